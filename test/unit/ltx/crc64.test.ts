import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Crc64Combiner, pageFrameCombiner } from "../../../src/ltx/crc64-combine.ts";
import {
  bigintHi,
  bigintLo,
  Crc64,
  halvesToBigint,
  pageChecksum,
  pageCrc,
} from "../../../src/ltx/crc64.ts";
import { CHECKSUM_FLAG } from "../../../src/lib/position.ts";

/** The textbook definition, one bit at a time. */
function bitwiseCrc64(bytes: Uint8Array): bigint {
  let crc = 0xffffffffffffffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) {
      crc = (crc & 1n) === 1n ? (crc >> 1n) ^ 0xd800000000000000n : crc >> 1n;
    }
  }
  return crc ^ 0xffffffffffffffffn;
}

function crcOf(bytes: Uint8Array): bigint {
  const crc = new Crc64();
  crc.updateBytes(bytes, 0, bytes.length);
  crc.finish();
  return halvesToBigint(crc.hi, crc.lo);
}

const bytesArbitrary = fc.uint8Array({ maxLength: 600 });

describe("Crc64", () => {
  test("has the published check value", () => {
    expect(crcOf(new TextEncoder().encode("123456789"))).toBe(0xb90956c775a41001n);
    expect(crcOf(new Uint8Array())).toBe(0n);
  });

  test("equals the bitwise definition at every alignment, however the bytes are cut", () => {
    fc.assert(
      fc.property(bytesArbitrary, fc.nat(7), fc.nat(600), (bytes, shift, cut) => {
        const shifted = new Uint8Array(bytes.length + shift + 3);
        shifted.set(bytes, shift);
        const middle = Math.min(cut, bytes.length);
        const crc = new Crc64();
        crc.updateBytes(shifted, shift, shift + middle);
        crc.updateBytes(shifted.subarray(shift), middle, bytes.length);
        crc.finish();
        expect(halvesToBigint(crc.hi, crc.lo)).toBe(bitwiseCrc64(bytes));
      }),
    );
  });

  test("updateU32BE feeds big-endian bytes", () => {
    fc.assert(
      fc.property(fc.nat(0xffffffff), (value) => {
        const bytes = new Uint8Array(4);
        new DataView(bytes.buffer).setUint32(0, value);
        const crc = new Crc64();
        crc.updateU32BE(value);
        crc.finish();
        expect(halvesToBigint(crc.hi, crc.lo)).toBe(bitwiseCrc64(bytes));
      }),
    );
  });

  test("refuses ranges outside the bytes", () => {
    const crc = new Crc64();
    expect(() => crc.updateBytes(new Uint8Array(4), 0, 5)).toThrow("outside");
    expect(() => crc.updateBytes(new Uint8Array(4), 3, 2)).toThrow("outside");
    expect(() => crc.updateWords(new Int32Array(4), 2, 3)).toThrow("outside");
  });

  test("a bigint and its halves are the same value", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 0xffffffffffffffffn }), (value) => {
        expect(halvesToBigint(bigintHi(value), bigintLo(value))).toBe(value);
      }),
    );
  });
});

describe("Crc64Combiner", () => {
  test("combine(A, crc(B)) equals the CRC of A‖B", () => {
    fc.assert(
      fc.property(bytesArbitrary, fc.uint8Array({ maxLength: 64 }), (head, block) => {
        const running = new Crc64();
        running.updateBytes(head, 0, head.length);
        const own = new Crc64();
        own.updateBytes(block, 0, block.length);
        own.finish();
        new Crc64Combiner(block.length).combine(running, own.hi, own.lo);
        running.finish();
        expect(halvesToBigint(running.hi, running.lo)).toBe(
          bitwiseCrc64(Uint8Array.of(...head, ...block)),
        );
      }),
      { numRuns: 50 },
    );
  });

  test("a page CRC continues a file CRC, for every page size", () => {
    for (let pageSize = 512; pageSize <= 65536; pageSize *= 2) {
      const page = Uint8Array.from({ length: pageSize }, (_, i) => (i * i) >>> 3);
      const direct = new Crc64();
      direct.updateU32BE(99);
      direct.updateU32BE(7);
      direct.updateBytes(page, 0, pageSize);
      const combined = new Crc64();
      combined.updateU32BE(99);
      const own = new Crc64();
      pageCrc(own, 7, page, 0, pageSize);
      pageFrameCombiner(pageSize).combine(combined, own.hi, own.lo);
      expect([combined.hi, combined.lo]).toEqual([direct.hi, direct.lo]);
    }
  });
});

test("a page checksum is FLAG | CRC64(pgno, page), as LiteFS computes it", () => {
  const page = new Uint8Array(512 + 1024);
  page.set(new TextEncoder().encode("SQLite format 3\0"), 0);
  page.fill(0xab, 1024);
  const crc = new Crc64();
  pageChecksum(crc, 1, page, 0, 512);
  expect(halvesToBigint(crc.hi, crc.lo)).toBe(0xdeab2593341315e9n);
  pageChecksum(crc, 2, page, 1024, 512);
  expect(halvesToBigint(crc.hi, crc.lo)).toBe(0xa832567102377eeen);
  pageCrc(crc, 2, page, 1024, 512);
  expect(halvesToBigint(crc.hi, crc.lo) | CHECKSUM_FLAG).toBe(0xa832567102377eeen);
});
