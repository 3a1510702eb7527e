import { assert } from "../lib/assert.ts";
import { wordsOf } from "./word-view.ts";

/**
 * CRC-64/ISO as LTX uses it: polynomial x^64 + x^4 + x^3 + x + 1, reflected, initial value and
 * final inversion all-ones.
 *
 * The polynomial has four low terms only, so a whole 32-bit word passes through the register with
 * a handful of shifts: the bits that leave come back at distances 0, 1, 3 and 4 from the top and
 * never meet the polynomial a second time. This beats a table, which would pollute the cache that
 * SQLite pages need. The 64-bit register is two int32 halves, because bigints allocate.
 */
export class Crc64 {
  /** Upper half of the register, not inverted until `finish`. */
  hi = -1;
  /** Lower half of the register, not inverted until `finish`. */
  lo = -1;

  reset(): void {
    this.hi = -1;
    this.lo = -1;
  }

  /** Turns the register into the checksum of everything fed in. Only `reset` may follow. */
  finish(): void {
    this.hi = ~this.hi;
    this.lo = ~this.lo;
  }

  /** Feeds bytes[start, end). */
  updateBytes(bytes: Uint8Array, start: number, end: number): void {
    assert(start >= 0 && start <= end && end <= bytes.length, "CRC range outside the bytes");
    const wordCount = (end - start) >>> 2;
    const offset = bytes.byteOffset + start;
    if (wordCount >= VIEW_MIN_WORDS && (offset & 3) === 0) {
      this.updateWords(wordsOf(bytes.buffer), offset >>> 2, wordCount);
    } else {
      this.#updateComposedWords(bytes, start, wordCount);
    }
    for (let i = start + wordCount * 4; i < end; i++) this.#updateByte(bytes[i]!);
  }

  /** Feeds little-endian 32-bit words, that is, the bytes as they lie in memory. */
  updateWords(words: Int32Array, startWord: number, wordCount: number): void {
    const endWord = startWord + wordCount;
    assert(startWord >= 0 && endWord <= words.length, "CRC range outside the words");
    let hi = this.hi;
    let lo = this.lo;
    for (let i = startWord; i < endWord; i++) {
      const t = lo ^ words[i]!;
      lo = hi ^ (t << 31) ^ (t << 29) ^ (t << 28);
      hi = t ^ (t >>> 1) ^ (t >>> 3) ^ (t >>> 4);
    }
    this.hi = hi;
    this.lo = lo;
  }

  /** Feeds a page number or other u32 as its four big-endian bytes. */
  updateU32BE(value: number): void {
    const word =
      (value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24);
    const t = this.lo ^ word;
    this.lo = this.hi ^ (t << 31) ^ (t << 29) ^ (t << 28);
    this.hi = t ^ (t >>> 1) ^ (t >>> 3) ^ (t >>> 4);
  }

  #updateComposedWords(bytes: Uint8Array, start: number, wordCount: number): void {
    let hi = this.hi;
    let lo = this.lo;
    for (let i = start, end = start + wordCount * 4; i < end; i += 4) {
      const t =
        lo ^ (bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24));
      lo = hi ^ (t << 31) ^ (t << 29) ^ (t << 28);
      hi = t ^ (t >>> 1) ^ (t >>> 3) ^ (t >>> 4);
    }
    this.hi = hi;
    this.lo = lo;
  }

  #updateByte(byte: number): void {
    const t = (this.lo ^ byte) & 0xff;
    this.lo = (this.lo >>> 8) | (this.hi << 24);
    this.hi = (this.hi >>> 8) ^ (t << 24) ^ (t << 23) ^ (t << 21) ^ (t << 20);
  }
}

/** Below this a view costs more than composing words from bytes. */
const VIEW_MIN_WORDS = 32;

/** The flag bit of page and database checksums, as it appears in the upper half. */
export const CHECKSUM_FLAG_HI: number = 0x80000000 | 0;

/**
 * Leaves the plain CRC of (pgno, page) in `crc.hi/lo`, without FLAG: the form that the encoder and
 * `Crc64Combiner` take, because FLAG overwrites the CRC's real top bit.
 */
export function pageCrc(
  crc: Crc64,
  pgno: number,
  page: Uint8Array,
  start: number,
  pageSize: number,
): void {
  crc.reset();
  crc.updateU32BE(pgno);
  crc.updateBytes(page, start, start + pageSize);
  crc.finish();
}

/** Leaves the page checksum, FLAG | CRC64(pgno, page), in `crc.hi/lo`. */
export function pageChecksum(
  crc: Crc64,
  pgno: number,
  page: Uint8Array,
  start: number,
  pageSize: number,
): void {
  pageCrc(crc, pgno, page, start, pageSize);
  crc.hi |= CHECKSUM_FLAG_HI;
}

/** Two int32 halves as the u64 they stand for. */
export function halvesToBigint(hi: number, lo: number): bigint {
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}

/** The upper half of a u64, as int32. */
export function bigintHi(value: bigint): number {
  return Number(BigInt.asIntN(32, value >> 32n));
}

/** The lower half of a u64, as int32. */
export function bigintLo(value: bigint): number {
  return Number(BigInt.asIntN(32, value));
}
