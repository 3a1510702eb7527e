import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FormatError } from "../../../src/lib/errors.ts";
import { decompressLz4Block, Lz4BlockCompressor } from "../../../src/ltx/lz4-block.ts";
import { Lz4FrameDecoder } from "../../../src/ltx/lz4-frame-decoder.ts";
import { Lz4FrameEncoder } from "../../../src/ltx/lz4-frame-encoder.ts";
import { XxHash32 } from "../../../src/ltx/xxhash32.ts";
import { cut, portionSizes } from "./portions.ts";

/** Data with repetitions near and far, runs, and noise. */
const compressible = fc
  .array(
    fc.tuple(
      fc.oneof(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.constant(new Uint8Array(3))),
      fc.integer({ min: 1, max: 400 }),
    ),
    { maxLength: 12 },
  )
  .map((parts) => {
    const pieces = parts.flatMap(([bytes, times]) => Array.from({ length: times }, () => bytes));
    return new Uint8Array(Buffer.concat(pieces));
  });

const compressor = new Lz4BlockCompressor();

function hashOf(bytes: Uint8Array): number {
  const hash = new XxHash32();
  hash.update(bytes, 0, bytes.length);
  return hash.digest();
}

function encodeFrame(bytes: Uint8Array): Uint8Array {
  const chunks: Uint8Array[] = [];
  const encoder = new Lz4FrameEncoder((chunk) => chunks.push(chunk.slice()));
  encoder.begin();
  encoder.write(bytes);
  encoder.end();
  return new Uint8Array(Buffer.concat(chunks));
}

function decodeFrame(bytes: Uint8Array, sizes: readonly number[] = [1 << 30]): Uint8Array {
  const chunks: Uint8Array[] = [];
  const decoder = new Lz4FrameDecoder((chunk) => chunks.push(chunk.slice()));
  let consumed = 0;
  for (const portion of cut(bytes, sizes)) consumed += decoder.push(portion, 0);
  expect(decoder.done).toBe(true);
  expect(consumed).toBe(bytes.length);
  return new Uint8Array(Buffer.concat(chunks));
}

describe("XxHash32", () => {
  test.each([
    ["", 0x02cc5d05],
    ["a", 0x550d7456],
    ["abc", 0x32d153ff],
    ["Nobody inspects the spammish repetition", 0xe2293b2f],
  ])("%j has its published value", (text, expected) => {
    expect(hashOf(new TextEncoder().encode(text))).toBe(expected);
  });

  test("does not depend on portions or alignment", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(3), fc.nat(300), (bytes, shift, at) => {
        const shifted = new Uint8Array(bytes.length + shift);
        shifted.set(bytes, shift);
        const middle = shift + Math.min(at, bytes.length);
        const hash = new XxHash32();
        hash.update(shifted, shift, middle);
        hash.update(shifted, middle, shifted.length);
        expect(hash.digest()).toBe(hashOf(bytes));
      }),
    );
  });
});

describe("LZ4 block", () => {
  test("decompression reverses compression, anywhere in a buffer", () => {
    fc.assert(
      fc.property(compressible, fc.nat(20), (bytes, shift) => {
        const content = bytes.subarray(0, 65536);
        const source = new Uint8Array(content.length + shift + 7).fill(9);
        source.set(content, shift);
        const packed = new Uint8Array(content.length + content.length / 255 + 64);
        const end = shift + content.length;
        const size = compressor.compress(source, shift, end, packed, 5, packed.length);
        expect(size).toBeGreaterThan(0);
        const target = new Uint8Array(content.length);
        expect(decompressLz4Block(packed, 5, 5 + size, target)).toBe(content.length);
        expect(target).toEqual(content);
      }),
    );
  });

  test("compresses what repeats", () => {
    const packed = new Uint8Array(65536);
    expect(compressor.compress(new Uint8Array(65536), 0, 65536, packed, 0, 65536)).toBeLessThan(
      300,
    );
  });

  test("gives 0 when the result does not fit, and writes nothing outside", () => {
    fc.assert(
      fc.property(compressible, fc.nat(100), (bytes, room) => {
        const content = bytes.subarray(0, 65536);
        const packed = new Uint8Array(room + 20).fill(0xee);
        const size = compressor.compress(content, 0, content.length, packed, 10, 10 + room);
        expect(size).toBeLessThanOrEqual(room);
        expect(packed.subarray(0, 10).every((byte) => byte === 0xee)).toBe(true);
        expect(packed.subarray(10 + room).every((byte) => byte === 0xee)).toBe(true);
      }),
    );
  });

  test("decodes LiteFS's block of a page with a run", () => {
    // 15 + 0 literals, then a match of distance 1, then more: from the golden LTX file.
    const hex =
      "ff050000000153514c69746520666f726d61742033000100ffe12f02ab0100ffe2000200b0ababababababab00000000";
    const block = new Uint8Array(Buffer.from(hex, "hex"));
    const target = new Uint8Array(65536);
    expect(decompressLz4Block(block, 0, block.length, target)).toBe(2 * 516 + 4);
    expect(target.subarray(4, 20)).toEqual(new TextEncoder().encode("SQLite format 3\0"));
  });

  test.each([
    ["an empty block", ""],
    ["literals cut short", "50616263"],
    ["an offset cut short", "1061 01"],
    ["offset 0", "1061 0000 00"],
    ["an offset before the start", "1061 0200 00"],
    ["a length cut short", "f0ff"],
    ["a match length cut short", "1f61 0100 ff"],
    ["nothing after a match", "1061 0100"],
    ["more than the target holds", "1f61 0100 ffffff00 00"],
  ])("refuses %s", (_, hex) => {
    const block = new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex"));
    expect(() => decompressLz4Block(block, 0, block.length, new Uint8Array(100))).toThrow(
      FormatError,
    );
  });

  test("never crashes on random bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(80), (bytes, room) => {
        const target = new Uint8Array(room);
        try {
          expect(decompressLz4Block(bytes, 0, bytes.length, target)).toBeLessThanOrEqual(room);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("LZ4 frame", () => {
  test("decoding reverses encoding, however the bytes are cut", () => {
    fc.assert(
      fc.property(compressible, fc.nat(3), portionSizes, (bytes, copies, sizes) => {
        const content = new Uint8Array(Buffer.concat(Array(copies).fill(bytes)));
        expect(Buffer.compare(decodeFrame(encodeFrame(content), sizes), content)).toBe(0);
      }),
    );
  });

  test("has the parameters of LiteFS, and stores what does not shrink", () => {
    let state = 1;
    const noise = Uint8Array.from({ length: 70_000 }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      return state >>> 24;
    });
    const frame = encodeFrame(noise);
    expect(Buffer.from(frame.subarray(0, 7)).toString("hex")).toBe("04224d186440a7");
    const view = new DataView(frame.buffer);
    expect(view.getUint32(7, true)).toBe(0x80000000 + 65536);
    expect(view.getUint32(frame.length - 8)).toBe(0);
    expect(view.getUint32(frame.length - 4, true)).toBe(hashOf(noise));
  });

  test("an empty frame is its header, end mark and checksum", () => {
    expect(encodeFrame(new Uint8Array()).length).toBe(15);
    expect(decodeFrame(encodeFrame(new Uint8Array())).length).toBe(0);
  });

  test("an encoder writes the same bytes in a second frame", () => {
    const chunks: Uint8Array[] = [];
    const encoder = new Lz4FrameEncoder((chunk) => chunks.push(chunk.slice()));
    const content = new TextEncoder().encode("one page like another, ".repeat(50));
    const frames = [1, 2].map(() => {
      encoder.begin();
      encoder.write(content);
      encoder.end();
      return Buffer.concat(chunks.splice(0)).toString("hex");
    });
    expect(frames[1]).toBe(frames[0]);
    expect(() => encoder.write(content)).toThrow("not open");
    expect(() => encoder.end()).toThrow("not open");
  });

  /** A frame with one stored block. */
  function frameWith(options: { flg: number; bd: number; size?: bigint; content: Uint8Array }) {
    const { flg, bd, size, content } = options;
    const descriptor = Buffer.alloc(size === undefined ? 2 : 10);
    descriptor.set([flg, bd]);
    if (size !== undefined) descriptor.writeBigUInt64LE(size, 2);
    const check = (hashOf(new Uint8Array(descriptor)) >>> 8) & 0xff;
    const block = Buffer.alloc(4);
    block.writeUInt32LE((content.length | 0x80000000) >>> 0);
    const tail = Buffer.alloc((flg & 4) === 0 ? 4 : 8);
    if ((flg & 4) !== 0) tail.writeUInt32LE(hashOf(content), 4);
    const magic = Buffer.from("04224d18", "hex");
    const parts = [magic, descriptor, Buffer.from([check]), block, content, tail];
    return new Uint8Array(Buffer.concat(parts));
  }

  test.each([
    ["256 KiB blocks", 0x64, 0x50, undefined],
    ["1 MiB blocks", 0x64, 0x60, undefined],
    ["4 MiB blocks", 0x64, 0x70, undefined],
    ["a content size", 0x6c, 0x40, 100_000n],
    ["no content checksum", 0x60, 0x70, undefined],
  ])("reads %s", (_, flg, bd, size) => {
    const content = new Uint8Array(bd === 0x40 ? 60_000 : 100_000).fill(7);
    const declared = size === undefined ? {} : { size: BigInt(content.length) };
    const frame = frameWith({ flg, bd, content, ...declared });
    for (const sizes of [[1 << 30], [1], [7, 8, 1000]]) {
      expect(Buffer.compare(decodeFrame(frame, sizes), content)).toBe(0);
    }
  });

  test.each([
    ["block checksums", 0x74, 0x40, undefined, "block checksums"],
    ["linked blocks", 0x44, 0x40, undefined, "linked blocks"],
    ["a dictionary", 0x65, 0x40, undefined, "dictionary"],
    ["reserved flags", 0x66, 0x40, undefined, "reserved"],
    ["another version", 0xa4, 0x40, undefined, "version"],
    ["a small block size code", 0x64, 0x30, undefined, "block size code"],
    ["reserved bits in BD", 0x64, 0xc0, undefined, "block size code"],
    ["a wrong content size", 0x6c, 0x40, 11n, "declares 11 bytes"],
  ])("refuses %s", (_, flg, bd, size, message) => {
    const content = new Uint8Array(10);
    const frame = frameWith({ flg, bd, content, ...(size === undefined ? {} : { size }) });
    expect(() => decodeFrame(frame)).toThrow(FormatError);
    expect(() => decodeFrame(frame)).toThrow(message);
  });

  test("refuses blocks above the declared size, and empty ones", () => {
    const frame = encodeFrame(new Uint8Array(100));
    for (const size of [65537, 0x80000000, 0x80010001, 0x7fffffff]) {
      new DataView(frame.buffer).setUint32(7, size, true);
      expect(() => decodeFrame(frame)).toThrow("outside 1…65536");
    }
  });

  test("a flipped bit never changes the content", () => {
    const content = new TextEncoder().encode("the quick brown fox ".repeat(30));
    const frame = encodeFrame(content);
    fc.assert(
      fc.property(fc.nat(frame.length * 8 - 1), (bit) => {
        const bad = frame.slice();
        bad[bit >>> 3]! ^= 1 << (bit & 7);
        const chunks: Uint8Array[] = [];
        const decoder = new Lz4FrameDecoder((chunk) => chunks.push(chunk.slice()));
        try {
          // A flip may leave the content as it was: another distance in text that repeats.
          const complete = decoder.push(bad, 0) === bad.length && decoder.done;
          if (complete) expect(Buffer.compare(Buffer.concat(chunks), content)).toBe(0);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }),
      { numRuns: 500 },
    );
  });
});
