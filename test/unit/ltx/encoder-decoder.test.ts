import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InvariantError } from "../../../src/lib/assert.ts";
import { FormatError } from "../../../src/lib/errors.ts";
import { CHECKSUM_FLAG } from "../../../src/lib/position.ts";
import { Crc64, pageChecksum, pageCrc } from "../../../src/ltx/crc64.ts";
import { DatabaseChecksum, EMPTY_DATABASE_CHECKSUM } from "../../../src/ltx/database-checksum.ts";
import { decodeLtx } from "../../../src/ltx/decode-ltx.ts";
import { LtxDecoder } from "../../../src/ltx/decoder.ts";
import { encodeLtx, type LtxPage } from "../../../src/ltx/encode-ltx.ts";
import { LtxEncoder } from "../../../src/ltx/encoder.ts";
import type { LtxHeader } from "../../../src/ltx/header.ts";
import { lockPgno } from "../../../src/ltx/lock-page.ts";
import { cut, portionSizes } from "./portions.ts";
import { GOLDEN_HEADER, GOLDEN_POST_APPLY, goldenPages, hex, incremental } from "./sample.ts";

const POST_APPLY = 0x9000000000000001n;

function page(pgno: number, pageSize = 512): LtxPage {
  return { pgno, data: Uint8Array.from({ length: pageSize }, (_, i) => (i * pgno) >>> 4) };
}

/** A transaction with some of the pages 1…30. */
const transactions = fc
  .record({
    flags: fc.constantFrom(0, 1),
    pageSize: fc.constantFrom(512, 1024, 4096),
    commit: fc.nat(30),
    chosen: fc.array(fc.boolean(), { minLength: 30, maxLength: 30 }),
    snapshot: fc.boolean(),
  })
  .map(({ flags, pageSize, commit, chosen, snapshot }) => {
    const change = { flags, pageSize, commit };
    const header = snapshot ? { ...GOLDEN_HEADER, ...change } : incremental(change);
    const pages: LtxPage[] = [];
    for (let pgno = 1; pgno <= commit; pgno++) {
      if (snapshot || chosen[pgno - 1] === true) pages.push(page(pgno, pageSize));
    }
    const postApply = commit === 0 ? EMPTY_DATABASE_CHECKSUM : POST_APPLY;
    return encodeLtx(header, pages, snapshot ? undefined : postApply);
  });

/** What a decoder reports, or its error, with the bytes pushed in these portions. */
function outcome(bytes: Uint8Array, sizes: readonly number[]): unknown {
  const seen: unknown[] = [];
  try {
    const decoder = new LtxDecoder({
      onHeader: (header) => seen.push(header),
      onPage: (pgno, data, hi, lo) => seen.push([pgno, Buffer.from(data).toString("hex"), hi, lo]),
      onTrailer: (trailer) => seen.push(trailer),
    });
    for (const portion of cut(bytes, sizes)) decoder.push(portion);
    return { seen, end: decoder.end() };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return { seen, error: error.message };
  }
}

describe("golden vectors", () => {
  test.each([
    [0, 1152, 0xb8fecd1d44548400n],
    [1, undefined, 0xcde554be2fe542c1n],
  ])("flags %i encode to the file checksum of LiteFS", (flags, length, fileChecksum) => {
    const bytes = encodeLtx({ ...GOLDEN_HEADER, flags }, goldenPages(), undefined);
    if (length !== undefined) expect(bytes.length).toBe(length);
    const decoded = decodeLtx(bytes);
    expect(decoded.trailer).toEqual({ postApplyChecksum: GOLDEN_POST_APPLY, fileChecksum });
    expect(decoded.pages).toEqual(goldenPages());
  });

  test("the compressed file that LiteFS writes decodes to the same", () => {
    const header = encodeLtx(GOLDEN_HEADER, goldenPages(), undefined).subarray(0, 100);
    const body = hex(`04224d186440a7 30000000
      ff050000000153514c69746520666f726d61742033000100ffe12f02ab0100ffe2000200b0ababababababab00000000
      00000000 e9b73ccf f69973e236246b07 cde554be2fe542c1`);
    const decoded = decodeLtx(new Uint8Array(Buffer.concat([header, body])));
    expect(decoded.header).toEqual(GOLDEN_HEADER);
    expect(decoded.pages).toEqual(goldenPages());
  });

  test.each([
    [
      "V3 (LTX 0.5.2)",
      `00000001 0001 00000028
        ff0153514c69746520666f726d61742033000100ffcc000200e00000000000000000000000000000
        00000002 0001 00000018 1fab0100ffda000200000200b0ababababababababababab
        000000000000 016432 02960122 00 0000000000000008 f69973e236246b07 dd8d8e17afa77aa6`,
    ],
    ["V3 (LTX 0.5.0)", `00000001 0000 04224d186440a7 ${"00".repeat(100)}`],
    ["V2 (LTX 0.4)", `00000001 04224d186440a7 ${"00".repeat(100)}`],
  ])("layout %s is refused by name", (layout, body) => {
    const flags0 = { ...GOLDEN_HEADER, flags: 0 };
    const header = encodeLtx(flags0, goldenPages(), undefined).subarray(0, 100);
    const bytes = new Uint8Array(Buffer.concat([header, hex(body)]));
    expect(() => decodeLtx(bytes)).toThrow(`looks like LTX layout ${layout}`);
  });
});

describe("encoder and decoder", () => {
  test("decoding does not depend on how the bytes are cut", () => {
    fc.assert(
      fc.property(transactions, portionSizes, (bytes, sizes) => {
        const whole = outcome(bytes, [1 << 30]);
        expect(whole).toHaveProperty("end");
        expect(outcome(bytes, sizes)).toEqual(whole);
      }),
    );
  });

  test("any truncation is found, wherever the bytes are cut", () => {
    fc.assert(
      fc.property(transactions, portionSizes, fc.nat(), (bytes, sizes, at) => {
        expect(outcome(bytes.subarray(0, at % bytes.length), sizes)).toHaveProperty("error");
      }),
      { numRuns: 300 },
    );
  });

  test("a flipped bit is found, or is one of LZ4 or reserved bits that change nothing", () => {
    fc.assert(
      fc.property(transactions, fc.nat(), portionSizes, (bytes, at, sizes) => {
        const bit = at % (bytes.length * 8);
        const bad = bytes.slice();
        bad[bit >>> 3]! ^= 1 << (bit & 7);
        const result = outcome(bad, sizes);
        if (typeof result !== "object" || result === null || "error" in result) return;
        expect(result).toEqual(outcome(bytes, [1 << 30]));
        // The header is covered as it lies in the file, so only compression is ambiguous.
        expect(bit).toBeGreaterThanOrEqual(800);
        expect(bytes[7]).toBe(1);
      }),
      { numRuns: 1000 },
    );
  });

  test("bytes after the trailer are found, in the same push or a later one", () => {
    for (const flags of [0, 1]) {
      const bytes = encodeLtx({ ...GOLDEN_HEADER, flags }, goldenPages(), undefined);
      const longer = new Uint8Array([...bytes, 0]);
      expect(() => decodeLtx(longer)).toThrow("bytes follow its trailer");
      const decoder = new LtxDecoder({});
      decoder.push(bytes);
      decoder.push(new Uint8Array(0));
      expect(() => decoder.push(Uint8Array.of(0))).toThrow("bytes follow its trailer");
    }
  });

  test("a decoder that failed refuses more", () => {
    const decoder = new LtxDecoder({});
    expect(() => decoder.push(new Uint8Array(100))).toThrow(FormatError);
    expect(() => decoder.push(new Uint8Array(1))).toThrow(InvariantError);
    expect(() => decoder.end()).toThrow(InvariantError);
  });

  test("a handler's error passes through as it is", () => {
    const decoder = new LtxDecoder({
      onPage: () => {
        throw new TypeError("disk full");
      },
    });
    expect(() => decoder.push(encodeLtx(GOLDEN_HEADER, goldenPages(), undefined))).toThrow(
      TypeError,
    );
  });

  test("pages come with their checksums", () => {
    const crc = new Crc64();
    let count = 0;
    const decoder = new LtxDecoder({
      onPage: (pgno, data, hi, lo) => {
        pageChecksum(crc, pgno, data, 0, data.length);
        expect([hi, lo]).toEqual([crc.hi, crc.lo]);
        count++;
      },
    });
    decoder.push(encodeLtx(GOLDEN_HEADER, goldenPages(), undefined));
    expect(decoder.end()).toMatchObject({ pageCount: 2, pagesChecksum: GOLDEN_POST_APPLY });
    expect(count).toBe(2);
  });

  test("uncompressed pages are views of the file", () => {
    const bytes = encodeLtx({ ...GOLDEN_HEADER, flags: 0 }, goldenPages(), undefined);
    expect(decodeLtx(bytes).pages[1]?.data.buffer).toBe(bytes.buffer);
  });

  test("a deletion has no pages and the empty checksum", () => {
    const bytes = encodeLtx(incremental({ commit: 0 }), [], EMPTY_DATABASE_CHECKSUM);
    expect(bytes.length).toBe(120);
    const decoded = decodeLtx(bytes);
    expect(decoded.trailer.postApplyChecksum).toBe(EMPTY_DATABASE_CHECKSUM);
    expect(() => encodeLtx(incremental({ commit: 0 }), [], POST_APPLY)).toThrow("empty database");
  });

  test("page CRCs handed in give the same file", () => {
    const chunks: Uint8Array[] = [];
    const encoder = new LtxEncoder((chunk) => chunks.push(chunk.slice()));
    const crc = new Crc64();
    const expected = Buffer.from(encodeLtx(GOLDEN_HEADER, goldenPages(), undefined));
    for (let round = 0; round < 2; round++) {
      encoder.writeHeader(GOLDEN_HEADER);
      for (const { pgno, data } of goldenPages()) {
        pageCrc(crc, pgno, data, 0, data.length);
        encoder.writePage(pgno, data, crc.hi, crc.lo);
      }
      encoder.close(GOLDEN_POST_APPLY);
      expect(Buffer.compare(Buffer.concat(chunks.splice(0)), expected)).toBe(0);
    }
  });
});

describe("the encoder refuses", () => {
  const encoderFor = (header: LtxHeader): LtxEncoder => {
    const encoder = new LtxEncoder(() => undefined);
    encoder.writeHeader(header);
    return encoder;
  };

  test("calls out of order", () => {
    const encoder = new LtxEncoder(() => undefined);
    expect(() => encoder.writePage(1, new Uint8Array(512))).toThrow("without a header");
    expect(() => encoder.close(POST_APPLY)).toThrow("without a header");
    encoder.writeHeader(incremental());
    expect(() => encoder.writeHeader(incremental())).toThrow("twice");
    encoder.abandon();
    encoder.writeHeader(incremental());
    encoder.close(POST_APPLY);
    expect(() => encoder.close(POST_APPLY)).toThrow("without a header");
  });

  test.each<[string, Partial<LtxHeader>, number[], string]>([
    ["page 0", {}, [0], "outside the database"],
    ["a page beyond commit", {}, [3], "outside the database"],
    ["descending pages", {}, [2, 1], "comes after"],
    ["a page twice", {}, [1, 1], "comes after"],
    ["the lock page", { pageSize: 65536, commit: 20000 }, [16385], "lock page"],
  ])("%s", (_, change, pgnos, message) => {
    const header = incremental(change);
    const encoder = encoderFor(header);
    const write = (): void => {
      for (const pgno of pgnos) encoder.writePage(pgno, new Uint8Array(header.pageSize));
    };
    expect(write).toThrow(InvariantError);
    expect(write).toThrow(message);
  });

  test("a page of another size", () => {
    expect(() => encoderFor(incremental()).writePage(1, new Uint8Array(513))).toThrow("size");
  });

  test("snapshots with holes, without an end, or with another checksum", () => {
    const [first, second] = goldenPages();
    const snapshot = { ...GOLDEN_HEADER, flags: 0 };
    expect(() => encoderFor(snapshot).writePage(2, second!.data)).toThrow("page 1 must be");
    const short = encoderFor(snapshot);
    short.writePage(1, first!.data);
    expect(() => short.close(undefined)).toThrow("ends after page 1 of 2");
    expect(() => encodeLtx(snapshot, goldenPages(), POST_APPLY)).toThrow("checksum");
  });

  test("post-apply checksums that are missing or lack the flag", () => {
    expect(() => encoderFor(incremental()).close(undefined)).toThrow("post-apply");
    expect(() => encoderFor(incremental()).close(1n)).toThrow("post-apply");
  });
});

/** A file with valid checksums whose pages break the rules, as a careless writer makes it. */
function forge(header: LtxHeader, pages: readonly LtxPage[], postApply: bigint): Uint8Array {
  const template = encodeLtx(incremental(), [], POST_APPLY);
  const valid = encodeLtx({ ...header, commit: 0 }, [], EMPTY_DATABASE_CHECKSUM);
  const frames = pages.map(({ pgno, data }) => {
    const prefix = Buffer.alloc(4);
    prefix.writeUInt32BE(pgno);
    return Buffer.concat([prefix, data]);
  });
  const head = Buffer.from(valid.subarray(0, 100));
  head.writeUInt32BE(header.commit, 12);
  const end = Buffer.from(template.subarray(100));
  const bytes = Buffer.concat([head, ...frames, end]);
  bytes.writeBigUInt64BE(postApply, bytes.length - 16);
  const crc = new Crc64();
  crc.updateBytes(bytes, 0, bytes.length - 8);
  crc.finish();
  bytes.writeInt32BE(crc.hi | 0x80000000, bytes.length - 8);
  bytes.writeInt32BE(crc.lo, bytes.length - 4);
  return new Uint8Array(bytes);
}

describe("the decoder refuses what LiteFS lets pass", () => {
  const snapshot = { ...GOLDEN_HEADER, flags: 0 };

  test("forged files are otherwise valid", () => {
    const bytes = forge(incremental(), [page(1), page(2)], POST_APPLY);
    expect(bytes).toEqual(encodeLtx(incremental(), [page(1), page(2)], POST_APPLY));
  });

  test.each<[string, LtxHeader, LtxPage[], bigint, string]>([
    ["descending pages", incremental(), [page(2), page(1)], POST_APPLY, "comes after"],
    ["a page twice", incremental(), [page(2), page(2)], POST_APPLY, "comes after"],
    ["pages beyond commit", incremental(), [page(9)], POST_APPLY, "outside the database"],
    ["pages of a deletion", incremental({ commit: 0 }), [page(1)], POST_APPLY, "outside"],
    ["a snapshot with a hole", snapshot, [page(2)], POST_APPLY, "page 1 must be"],
    ["a snapshot without an end", snapshot, [page(1)], POST_APPLY, "ends after page 1 of 2"],
    ["another checksum of a snapshot", snapshot, goldenPages(), POST_APPLY, "not that of its"],
    ["another checksum of a deletion", incremental({ commit: 0 }), [], POST_APPLY, "deletes"],
    ["a post-apply checksum without flag", incremental(), [], 1n, "lacks the flag"],
    [
      "the lock page",
      incremental({ pageSize: 65536, commit: 20000 }),
      [page(16385, 65536)],
      POST_APPLY,
      "lock page",
    ],
  ])("%s", (_, header, pages, postApply, message) => {
    const bytes = forge(header, pages, postApply);
    expect(() => decodeLtx(bytes)).toThrow(FormatError);
    expect(() => decodeLtx(bytes)).toThrow(message);
  });
});

test("a snapshot steps over the lock page", () => {
  const header = { ...GOLDEN_HEADER, pageSize: 65536, commit: 16387 };
  const data = new Uint8Array(65536);
  const encoder = new LtxEncoder((chunk) => decoder.push(chunk));
  const pgnos: number[] = [];
  const decoder = new LtxDecoder({ onPage: (pgno) => pgnos.push(pgno) });
  const crc = new Crc64();
  pageCrc(crc, 1, data, 0, data.length);
  encoder.writeHeader({ ...header, flags: 1 });
  for (let pgno = 1; pgno <= header.commit; pgno++) {
    if (pgno !== lockPgno(65536)) encoder.writePage(pgno, data);
  }
  encoder.close(undefined);
  expect(decoder.end().pageCount).toBe(16386);
  expect(pgnos.slice(-3)).toEqual([16384, 16386, 16387]);
});

test("the database checksum is an XOR that keeps its flag", () => {
  const sum = new DatabaseChecksum();
  expect(sum.toBigint()).toBe(EMPTY_DATABASE_CHECKSUM);
  sum.toggle(0x12345678, 0x9abcdef0 | 0);
  expect(sum.toBigint()).toBe(CHECKSUM_FLAG | 0x123456789abcdef0n);
  sum.toggle(0x12345678 | 0x80000000, 0x9abcdef0 | 0);
  expect(sum.toBigint()).toBe(EMPTY_DATABASE_CHECKSUM);
  sum.toggle(1, 1);
  sum.reset();
  expect(sum.toBigint()).toBe(EMPTY_DATABASE_CHECKSUM);
});
