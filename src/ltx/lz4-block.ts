import { assert } from "../lib/assert.ts";
import { FormatError } from "../lib/errors.ts";

/*
 * LZ4 block = sequences of
 *   token (1 byte: literal count << 4 | match length - 4)
 *   [more literal count: 255, 255, …, n] literals
 *   offset (u16 LE, back from here) [more match length]
 * The last sequence has literals only. By the format's rules the last 5 bytes are literals and no
 * match starts within the last 12 bytes.
 */
const MIN_MATCH_BYTES = 4;
const LAST_LITERAL_BYTES = 5;
const LAST_MATCH_START_BYTES = 12;
const HASH_BITS = 13;
const HASH_FACTOR = 2654435761 | 0;
/** Raises the step through data without matches: after 64 misses every second byte, and so on. */
const SKIP_SHIFT = 6;

/** Positions inside a block fit 16 bits. */
export const LZ4_MAX_COMPRESS_BYTES = 65536;

/** The "fast" level of LZ4 for blocks up to 64 KiB. Same input, same output. */
export class Lz4BlockCompressor {
  readonly #positions = new Uint16Array(1 << HASH_BITS);

  /**
   * Compresses source[start, end) into target[targetStart, targetEnd). Gives the number of bytes
   * written, or 0 when they do not fit: then the block is better stored as it is.
   */
  compress(
    source: Uint8Array,
    start: number,
    end: number,
    target: Uint8Array,
    targetStart: number,
    targetEnd: number,
  ): number {
    assert(start >= 0 && start <= end && end <= source.length, "LZ4 range outside the source");
    assert(end - start <= LZ4_MAX_COMPRESS_BYTES, "LZ4 block above 64 KiB");
    assert(targetStart >= 0 && targetEnd <= target.length, "LZ4 range outside the target");
    const positions = this.#positions.fill(0);
    const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
    const matchEndLimit = end - LAST_LITERAL_BYTES;
    let anchor = start;
    let out = targetStart;
    let misses = 1 << SKIP_SHIFT;
    // An unset entry means the block's first byte, which is why the search starts at the second.
    let at = start + 1;
    while (at <= end - LAST_MATCH_START_BYTES) {
      const word = view.getInt32(at, true);
      const slot = Math.imul(word, HASH_FACTOR) >>> (32 - HASH_BITS);
      let candidate = start + positions[slot]!;
      positions[slot] = at - start;
      if (view.getInt32(candidate, true) !== word) {
        at += misses++ >> SKIP_SHIFT;
        continue;
      }
      let matchEnd = at + MIN_MATCH_BYTES;
      const distance = at - candidate;
      while (
        matchEnd + 4 <= matchEndLimit &&
        view.getInt32(matchEnd, true) === view.getInt32(matchEnd - distance, true)
      ) {
        matchEnd += 4;
      }
      while (matchEnd < matchEndLimit && source[matchEnd] === source[matchEnd - distance]) {
        matchEnd++;
      }
      while (at > anchor && candidate > start && source[at - 1] === source[candidate - 1]) {
        at--;
        candidate--;
      }
      out = writeLiterals(source, anchor, at, target, out, targetEnd);
      if (out === 0) return 0;
      out = writeMatch(distance, matchEnd - at, target, out, targetEnd);
      if (out === 0) return 0;
      at = matchEnd;
      anchor = matchEnd;
      misses = 1 << SKIP_SHIFT;
    }
    out = writeLiterals(source, anchor, end, target, out, targetEnd);
    return out === 0 ? 0 : out - targetStart;
  }
}

/** Where the token of the sequence being written lies; set by writeLiterals for writeMatch. */
let tokenAt = 0;

/** Writes token and literals; gives the end of what was written, 0 when it does not fit. */
function writeLiterals(
  source: Uint8Array,
  start: number,
  end: number,
  target: Uint8Array,
  targetStart: number,
  targetEnd: number,
): number {
  const length = end - start;
  if (targetStart + 1 + extraLengthBytes(length) + length > targetEnd) return 0;
  tokenAt = targetStart;
  target[targetStart] = Math.min(length, 15) << 4;
  let out = writeExtraLength(length, target, targetStart + 1);
  if (length <= 32) {
    for (let i = start; i < end; i++) target[out++] = source[i]!;
    return out;
  }
  target.set(source.subarray(start, end), out);
  return out + length;
}

function writeMatch(
  distance: number,
  length: number,
  target: Uint8Array,
  targetStart: number,
  targetEnd: number,
): number {
  const coded = length - MIN_MATCH_BYTES;
  if (targetStart + 2 + extraLengthBytes(coded) > targetEnd) return 0;
  target[tokenAt]! |= Math.min(coded, 15);
  target[targetStart] = distance & 0xff;
  target[targetStart + 1] = distance >>> 8;
  return writeExtraLength(coded, target, targetStart + 2);
}

function extraLengthBytes(length: number): number {
  return length < 15 ? 0 : 1 + Math.trunc((length - 15) / 255);
}

function writeExtraLength(length: number, target: Uint8Array, start: number): number {
  if (length < 15) return start;
  let out = start;
  let rest = length - 15;
  for (; rest >= 255; rest -= 255) target[out++] = 255;
  target[out++] = rest;
  return out;
}

/**
 * Decompresses source[start, end) to the start of `target`; gives the number of bytes. Throws a
 * FormatError when the block is damaged or holds more than `target`, and never looks outside.
 */
export function decompressLz4Block(
  source: Uint8Array,
  start: number,
  end: number,
  target: Uint8Array,
): number {
  assert(start >= 0 && start <= end && end <= source.length, "LZ4 range outside the source");
  let at = start;
  let out = 0;
  for (;;) {
    if (at >= end) throw damaged("it ends inside a sequence");
    const token = source[at++]!;
    let literals = token >>> 4;
    if (literals === 15) {
      for (let more = 255; more === 255; literals += more) {
        if (at >= end) throw damaged("it ends inside a length");
        more = source[at++]!;
      }
    }
    if (literals > end - at) throw damaged("it ends inside literals");
    if (literals > target.length - out) throw damaged("it holds more than its block size");
    if (literals <= 32) {
      for (let i = 0; i < literals; i++) target[out + i] = source[at + i]!;
    } else {
      target.set(source.subarray(at, at + literals), out);
    }
    at += literals;
    out += literals;
    if (at === end) return out;
    if (end - at < 2) throw damaged("it ends inside an offset");
    const distance = source[at]! | (source[at + 1]! << 8);
    at += 2;
    if (distance === 0 || distance > out) throw damaged("an offset points before its start");
    let length = token & 15;
    if (length === 15) {
      for (let more = 255; more === 255; length += more) {
        if (at >= end) throw damaged("it ends inside a length");
        more = source[at++]!;
      }
    }
    length += MIN_MATCH_BYTES;
    if (length > target.length - out) throw damaged("it holds more than its block size");
    copyMatch(target, out, distance, length);
    out += length;
  }
}

/** A match may overlap itself and then repeats: what is copied doubles each time. */
function copyMatch(target: Uint8Array, out: number, distance: number, length: number): void {
  if (length <= 32) {
    for (let i = out, end = out + length; i < end; i++) target[i] = target[i - distance]!;
    return;
  }
  let copied = Math.min(distance, length);
  target.copyWithin(out, out - distance, out - distance + copied);
  while (copied < length) {
    const portion = Math.min(copied, length - copied);
    target.copyWithin(out + copied, out, out + portion);
    copied += portion;
  }
}

function damaged(what: string): FormatError {
  return new FormatError("LZ4_INVALID", `a compressed block is damaged: ${what}`);
}
