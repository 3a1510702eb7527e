import { LitefsError } from "../../../src/lib/errors.ts";
import { Crc64, halvesToBigint, pageChecksum } from "../../../src/ltx/crc64.ts";
import { decodeLtx } from "../../../src/ltx/decode-ltx.ts";
import type { DecodedLtx } from "../../../src/ltx/decode-ltx.ts";
import { LtxDecoder } from "../../../src/ltx/decoder.ts";
import { encodeLtx } from "../../../src/ltx/encode-ltx.ts";
import {
  decodeHeader,
  encodeHeader,
  LTX_FLAG_COMPRESSED,
  LTX_HEADER_SIZE,
  LTX_MAGIC,
  LTX_TRAILER_SIZE,
} from "../../../src/ltx/header.ts";
import { decompressLz4Block } from "../../../src/ltx/lz4-block.ts";
import { Lz4FrameDecoder } from "../../../src/ltx/lz4-frame-decoder.ts";
import { Lz4FrameEncoder } from "../../../src/ltx/lz4-frame-encoder.ts";
import { XxHash32 } from "../../../src/ltx/xxhash32.ts";
import type { Random } from "../random.ts";
import { ltxSeeds } from "../seeds.ts";
import { invariant } from "../target.ts";
import type { FuzzTarget } from "../target.ts";

/** What a parser made of an input: a value, or the code of its typed error. */
export function outcomeOf<T>(parse: () => T): { readonly value: T } | { readonly code: string } {
  try {
    return { value: parse() };
  } catch (error) {
    if (error instanceof LitefsError) return { code: error.code };
    throw error;
  }
}

/** Uneven portions, a function of the input alone. */
export function portionsOf(input: Uint8Array): Uint8Array[] {
  const portions: Uint8Array[] = [];
  for (
    let at = 0, size = 1 + (input.length % 7);
    at < input.length;
    at += size, size = size * 2 + 1
  )
    portions.push(input.subarray(at, at + size));
  return portions;
}

export const ltx: FuzzTarget = {
  name: "ltx",
  seeds: () => [...ltxSeeds("raw-4096"), ...ltxSeeds("delete-1024"), ...ltxSeeds("drop-4096")],
  repair: repairLtx,
  run(input) {
    const whole = outcomeOf(() => decodeLtx(input));
    const cut = outcomeOf(() => decodePortions(portionsOf(input)));
    invariant("value" in whole === "value" in cut, "the result depends on the portions");
    if ("code" in whole || "code" in cut) return;
    invariant(
      whole.value.pagesChecksum === cut.value.pagesChecksum,
      "the pages depend on the portions",
    );
    checkRoundTrip(whole.value);
  },
};

function decodePortions(portions: readonly Uint8Array[]): Omit<DecodedLtx, "pages"> {
  const decoder = new LtxDecoder({});
  for (const portion of portions) decoder.push(portion);
  return decoder.end();
}

function checkRoundTrip({ header, trailer, pages }: DecodedLtx): void {
  const again = decodeLtx(encodeLtx(header, pages, trailer.postApplyChecksum));
  invariant(again.trailer.fileChecksum === fileChecksumOf(header, again), "file checksum differs");
  invariant(again.pages.length === pages.length, "pages are lost in a round trip");
  for (const [i, page] of pages.entries()) {
    const other = again.pages[i];
    invariant(other?.pgno === page.pgno, "a page number differs after a round trip");
    invariant(Buffer.compare(other.data, page.data) === 0, "a page differs after a round trip");
  }
}

/** Reserved bytes of the header are read as anything and written as zeros. */
function fileChecksumOf(header: DecodedLtx["header"], again: DecodedLtx): bigint {
  const bytes = new Uint8Array(LTX_HEADER_SIZE);
  encodeHeader(header, bytes, 0);
  const copy = decodeHeader(bytes, 0);
  invariant(
    JSON.stringify(copy, bigintText) === JSON.stringify(again.header, bigintText),
    "the header differs after a round trip",
  );
  return again.trailer.fileChecksum;
}

function bigintText(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

const crc = new Crc64();

/** Sets magic and checksums right, and compresses some files that were not. */
export function repairLtx(input: Uint8Array, random: Random): Uint8Array {
  if (input.length < LTX_HEADER_SIZE + 4 + LTX_TRAILER_SIZE) return input;
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  view.setUint32(0, LTX_MAGIC);
  if (random.chance(0.9)) view.setUint32(4, view.getUint32(4) & LTX_FLAG_COMPRESSED);
  if ((view.getUint32(4) & LTX_FLAG_COMPRESSED) !== 0) return input;
  if (random.chance(0.5)) setPostApply(input, view);
  const trailer = input.length - LTX_TRAILER_SIZE;
  const compress = random.chance(0.3);
  if (compress) view.setUint32(4, LTX_FLAG_COMPRESSED);
  setFileChecksum(input, view, trailer);
  if (!compress) return input;
  const frame = compressed(input.subarray(LTX_HEADER_SIZE, trailer));
  return new Uint8Array(
    Buffer.concat([input.subarray(0, LTX_HEADER_SIZE), frame, input.subarray(trailer)]),
  );
}

function setFileChecksum(bytes: Uint8Array, view: DataView, trailer: number): void {
  crc.reset();
  crc.updateBytes(bytes, 0, trailer + 8);
  crc.finish();
  view.setBigUint64(trailer + 8, halvesToBigint(crc.hi | (1 << 31), crc.lo));
}

/** Of a snapshot: the checksum of the pages that are there. */
function setPostApply(bytes: Uint8Array, view: DataView): void {
  const pageSize = view.getUint32(8);
  if (pageSize < 512 || pageSize > 65536) return;
  const trailer = bytes.length - LTX_TRAILER_SIZE;
  let hi = 0;
  let lo = 0;
  for (let at = LTX_HEADER_SIZE; at + 4 + pageSize <= trailer - 4; at += 4 + pageSize) {
    pageChecksum(crc, view.getUint32(at), bytes, at + 4, pageSize);
    hi ^= crc.hi;
    lo ^= crc.lo;
  }
  view.setBigUint64(trailer, halvesToBigint(hi | (1 << 31), lo));
}

function compressed(bytes: Uint8Array): Uint8Array {
  const parts: Uint8Array[] = [];
  const encoder = new Lz4FrameEncoder((part) => parts.push(part.slice()));
  encoder.begin();
  encoder.write(bytes);
  encoder.end();
  return Buffer.concat(parts);
}

export const lz4Frame: FuzzTarget = {
  name: "lz4-frame",
  seeds: () =>
    ltxSeeds("delete-1024").map((file) =>
      file.slice(LTX_HEADER_SIZE, file.length - LTX_TRAILER_SIZE),
    ),
  /** Without the content checksum, and with the check of its header right. */
  repair(input, random) {
    if (input.length < 7) return input;
    if (random.chance(0.9)) {
      new DataView(input.buffer, input.byteOffset).setUint32(0, 0x184d2204, true);
      input[4] = 0x60 | (random.chance(0.2) ? 0x08 : 0);
      input[5] = random.pick([4, 5, 6, 7]) << 4;
    }
    const end = (input[4]! & 0x08) === 0 ? 6 : 14;
    if (input.length <= end) return input;
    const hash = new XxHash32();
    hash.update(input, 4, end);
    input[end] = (hash.digest() >>> 8) & 0xff;
    return input;
  },
  run(input) {
    const whole = outcomeOf(() => decodeFrame([input]));
    const cut = outcomeOf(() => decodeFrame(portionsOf(input)));
    invariant("value" in whole === "value" in cut, "the result depends on the portions");
    if ("code" in whole || "code" in cut) return;
    invariant(Buffer.compare(whole.value, cut.value) === 0, "the bytes depend on the portions");
    const again = decodeFrame([compressed(whole.value)]);
    invariant(Buffer.compare(whole.value, again) === 0, "the bytes differ after a round trip");
  },
};

function decodeFrame(portions: readonly Uint8Array[]): Uint8Array {
  const parts: Uint8Array[] = [];
  const decoder = new Lz4FrameDecoder((bytes) => parts.push(bytes.slice()));
  for (const portion of portions) if (!decoder.done) decoder.push(portion, 0);
  if (!decoder.done) throw new LitefsError("TRUNCATED", "the frame is cut off");
  return Buffer.concat(parts);
}

/** As the target says, the first two bytes are the size of the output. */
export const lz4Block: FuzzTarget = {
  name: "lz4-block",
  seeds: () => [
    Uint8Array.of(0, 16, 0x1f, 97, 1, 0, 200, 0x50, 1, 2, 3, 4, 5),
    Uint8Array.of(0, 16, 0xf0, 3, ...Array.from({ length: 18 }, (_, i) => i)),
    Uint8Array.of(1, 0, 0x44, 1, 2, 3, 4, 2, 0, 0x50, 1, 2, 3, 4, 5),
  ],
  run(input) {
    if (input.length < 2) return;
    const target = new Uint8Array((input[0]! << 8) | input[1]!);
    const count = decompressLz4Block(input, 2, input.length, target);
    invariant(count <= target.length, "more bytes than there is room for");
  },
};
