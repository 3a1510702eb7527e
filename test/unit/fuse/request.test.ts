import * as fc from "fast-check";
import { expect, test } from "vitest";
import { InvariantError } from "../../../src/lib/assert.ts";
import { IN_HEADER_BYTES, InvalidNameError, RequestBuffer } from "../../../src/fuse/request.ts";
import { encodeRequest } from "./encode-request.ts";

test("decodes the header", () => {
  const request = encodeRequest({
    opcode: 32,
    unique: 0xfedc_ba98_7654_3210n,
    nodeId: 7,
    uid: 0xffff_fffe,
    gid: 5,
    pid: 1234,
    body: Buffer.alloc(8),
  });
  expect(request).toMatchObject({ opcode: 32, nodeId: 7, uid: 0xffff_fffe, gid: 5, pid: 1234 });
  expect(request.lengthBytes).toBe(48);
  // Halves are signed, so that they never leave V8's small integers.
  expect(request.uniqueLo).toBe(0x7654_3210);
  expect(request.uniqueHi).toBe(0xfedc_ba98 | 0);
});

test("64-bit numbers are exact up to the largest safe integer and clamped above it", () => {
  const request = new RequestBuffer(4096);
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (value) => {
      request.bytes.writeBigUInt64LE(value, 48);
      const limit = BigInt(Number.MAX_SAFE_INTEGER);
      expect(BigInt(request.uint64(48))).toBe(value > limit ? limit : value);
    }),
  );
});

test("times before 1970 are negative", () => {
  const request = new RequestBuffer(4096);
  request.bytes.writeBigInt64LE(-2n, 40);
  request.bytes.writeUInt32LE(500_000_000, 48);
  expect(request.timeMs(40, 48)).toBe(-1500);
});

test("a WRITE of the largest size fits, and its data is aligned", () => {
  const request = new RequestBuffer(1 << 20);
  expect(request.bytes.length).toBeGreaterThanOrEqual(80 + (1 << 20));
  expect((request.bytes.byteOffset + 80) % 8).toBe(0);
});

test("numbers that we gave out may outgrow 32 bits", () => {
  const request = new RequestBuffer(4096);
  request.bytes.writeBigUInt64LE((1n << 32n) + 7n, 40);
  expect(request.id(40)).toBe(2 ** 32 + 7);
});

test("a name that is no UTF-8 is refused, and one with a replacement character is not", () => {
  const bad = encodeRequest({ opcode: 1, body: Buffer.from("caf\xe9\0", "latin1") });
  expect(() => bad.name(IN_HEADER_BYTES)).toThrow(InvalidNameError);
  const good = encodeRequest({ opcode: 1, body: Buffer.from("caf\ufffd\0") });
  expect(good.name(IN_HEADER_BYTES)).toBe("caf\ufffd");
});

test("what the kernel never sends is a broken invariant", () => {
  const request = new RequestBuffer(4096);
  request.bytes.writeUInt32LE(100, 0);
  expect(() => request.decodeHeader(99)).toThrow(InvariantError);
  expect(() => request.decodeHeader(IN_HEADER_BYTES - 1)).toThrow(InvariantError);
  request.bytes.writeBigUInt64LE(1n << 53n, 40);
  expect(() => request.id(40)).toThrow("an id that we never gave out");
  const unended = encodeRequest({ opcode: 1, body: Buffer.from("name") });
  expect(() => unended.name(IN_HEADER_BYTES)).toThrow("does not end");
});

test("a name that stands beyond the request is not taken from an earlier one", () => {
  const request = encodeRequest({ opcode: 1, body: Buffer.from("a-long-name\0") });
  request.bytes.writeUInt32LE(IN_HEADER_BYTES + 3, 0);
  request.decodeHeader(IN_HEADER_BYTES + 3);
  expect(() => request.name(IN_HEADER_BYTES)).toThrow("does not end");
});
