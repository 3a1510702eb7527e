import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FormatError } from "../../../src/lib/errors.ts";
import { formatLtxFilename, parseLtxFilename } from "../../../src/ltx/filename.ts";
import {
  decodeHeader,
  encodeHeader,
  isSnapshot,
  LTX_HEADER_SIZE,
  type LtxHeader,
} from "../../../src/ltx/header.ts";
import { lockPgno } from "../../../src/ltx/lock-page.ts";
import { decodeTrailer, encodeTrailer } from "../../../src/ltx/trailer.ts";
import { GOLDEN_HEADER, hex, incremental } from "./sample.ts";

const u32 = fc.nat(0xffffffff);
const safe = fc.maxSafeNat();

/** Any header that follows the rules. */
const headers: fc.Arbitrary<LtxHeader> = fc
  .record({
    flags: fc.constantFrom(0, 1),
    pageSize: fc.constantFrom(512, 1024, 4096, 65536),
    commit: u32,
    minTxid: fc.oneof(
      fc.constant(1),
      safe.map((n) => Math.max(1, n)),
    ),
    span: fc.nat(1000),
    timestampMs: fc.maxSafeInteger(),
    checksum: fc.bigInt({ min: 0x8000000000000000n, max: 0xffffffffffffffffn }),
    wal: fc.option(fc.tuple(safe, safe, u32, u32)),
    nodeId: fc.bigInt({ min: 0n, max: 0xffffffffffffffffn }),
  })
  .map(({ span, checksum, wal, ...rest }) => ({
    ...rest,
    maxTxid: Math.min(Number.MAX_SAFE_INTEGER, rest.minTxid + span),
    preApplyChecksum: rest.minTxid === 1 ? 0n : checksum,
    walOffset: wal === null ? 0 : wal[0] + (wal[0] === 0 ? 1 : 0),
    walSize: wal === null ? 0 : wal[1] + (wal[1] === 0 ? 1 : 0),
    walSalt1: wal === null ? 0 : wal[2],
    walSalt2: wal === null ? 0 : wal[3],
  }));

describe("header", () => {
  test("has the bytes that LiteFS writes", () => {
    const bytes = new Uint8Array(LTX_HEADER_SIZE + 2).fill(0xff);
    encodeHeader(GOLDEN_HEADER, bytes, 1);
    expect(bytes.subarray(1, 101)).toEqual(
      hex(`4c545831 00000001 00000200 00000002 0000000000000001 0000000000000001
        0000018bcfe56800 0000000000000000 0000000000000000 0000000000000000
        00000000 00000000 1122334455667788 ${"00".repeat(20)}`),
    );
    expect([bytes[0], bytes[101]]).toEqual([0xff, 0xff]);
  });

  test("decoding reverses encoding", () => {
    fc.assert(
      fc.property(headers, fc.nat(5), (header, offset) => {
        const bytes = new Uint8Array(LTX_HEADER_SIZE + offset);
        encodeHeader(header, bytes, offset);
        expect(decodeHeader(bytes, offset)).toEqual(header);
        expect(isSnapshot(header)).toBe(header.minTxid === 1);
      }),
    );
  });

  test("reserved bytes are ignored", () => {
    const bytes = new Uint8Array(LTX_HEADER_SIZE);
    encodeHeader(GOLDEN_HEADER, bytes, 0);
    bytes.fill(0x55, 80);
    expect(decodeHeader(bytes, 0)).toEqual(GOLDEN_HEADER);
  });

  test.each<[string, Partial<LtxHeader>, string]>([
    ["unknown flags", { flags: 4 }, "flags 0x4"],
    ["the no-checksum flag", { flags: 2 }, "no-checksum"],
    ["page size 0", { pageSize: 0 }, "page size"],
    ["page size 256", { pageSize: 256 }, "page size"],
    ["page size 131072", { pageSize: 131072 }, "page size"],
    ["page size 1000", { pageSize: 1000 }, "page size"],
    ["a commit of 33 bits", { commit: 2 ** 32 }, "commit"],
    ["first TXID 0", { minTxid: 0 }, "first TXID"],
    ["a first TXID beyond 2^53", { minTxid: 2 ** 53, maxTxid: 2 ** 53 }, "first TXID"],
    ["a last TXID before the first", { maxTxid: 6 }, "last TXID"],
    ["a timestamp beyond 2^53", { timestampMs: 2 ** 60 }, "timestamp"],
    ["no pre-apply checksum", { preApplyChecksum: 0n }, "pre-apply"],
    ["a pre-apply checksum without flag", { preApplyChecksum: 1n }, "pre-apply"],
    ["a snapshot with a pre-apply checksum", { minTxid: 1 }, "snapshot"],
    ["a negative WAL offset", { walOffset: -1, walSize: 1 }, "WAL"],
    ["a negative WAL size", { walOffset: 1, walSize: -1 }, "WAL"],
    ["a WAL size without offset", { walSize: 1 }, "without a WAL offset"],
    ["WAL salt 1 without offset", { walSalt1: 1 }, "without a WAL offset"],
    ["WAL salt 2 without offset", { walSalt2: 1 }, "without a WAL offset"],
    ["a WAL offset without size", { walOffset: 32 }, "without a WAL size"],
    ["a node id of 65 bits", { nodeId: 1n << 64n }, "node id"],
  ])("refuses %s", (_, change, message) => {
    const encode = (): void =>
      encodeHeader(incremental(change), new Uint8Array(LTX_HEADER_SIZE), 0);
    expect(encode).toThrow(FormatError);
    expect(encode).toThrow(message);
  });

  test("refuses another magic, TXIDs of 64 bits and short input when decoding", () => {
    const bytes = new Uint8Array(LTX_HEADER_SIZE);
    encodeHeader(incremental(), bytes, 0);
    expect(() => decodeHeader(bytes, 1)).toThrow("ends inside its header");
    const big = bytes.slice().fill(0xff, 16, 32);
    expect(() => decodeHeader(big, 0)).toThrow("first TXID");
    bytes[3] = 0x32;
    expect(() => decodeHeader(bytes, 0)).toThrow("magic");
  });

  test("random bytes give a FormatError or a header that encodes to the same bytes", () => {
    fc.assert(
      fc.property(headers, fc.nat(79), fc.nat(255), (header, at, byte) => {
        const bytes = new Uint8Array(LTX_HEADER_SIZE);
        encodeHeader(header, bytes, 0);
        bytes[at] = byte;
        try {
          const again = new Uint8Array(LTX_HEADER_SIZE);
          encodeHeader(decodeHeader(bytes, 0), again, 0);
          expect(again).toEqual(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("trailer", () => {
  test("decoding reverses encoding", () => {
    const bytes = new Uint8Array(20);
    const trailer = { postApplyChecksum: 0x8000000000000000n, fileChecksum: 0xffffffffffffffffn };
    encodeTrailer(trailer, bytes, 3);
    expect(decodeTrailer(bytes, 3)).toEqual(trailer);
  });

  test.each([[0], [8]])("refuses a checksum at %i without its flag", (at) => {
    const bytes = new Uint8Array(16).fill(0xff);
    bytes[at] = 0x7f;
    expect(() => decodeTrailer(bytes, 0)).toThrow(FormatError);
  });
});

test.each([
  [512, 2097153],
  [1024, 1048577],
  [4096, 262145],
  [8192, 131073],
  [65536, 16385],
])("the lock page of %i-byte pages is %i", (pageSize, pgno) => {
  expect(lockPgno(pageSize)).toBe(pgno);
});

describe("file names", () => {
  test("parsing reverses formatting", () => {
    expect(formatLtxFilename(1, 255)).toBe("0000000000000001-00000000000000ff.ltx");
    expect(parseLtxFilename("0000000000000001-00000000000000ff.ltx")).toEqual({
      minTxid: 1,
      maxTxid: 255,
    });
  });

  test.each([
    "0000000000000001-00000000000000FF.ltx",
    "000000000000001-00000000000000ff.ltx",
    "0000000000000001-00000000000000ff.ltx.tmp",
    "x0000000000000001-00000000000000ff.ltx",
    "0000000000000000-0000000000000001.ltx",
    "0000000000000002-0000000000000001.ltx",
    "ffffffffffffffff-ffffffffffffffff.ltx",
    "0000000000000001-0000000000000001.ltx\n",
  ])("%j is no LTX file name", (name) => {
    expect(parseLtxFilename(name)).toBeUndefined();
  });
});
