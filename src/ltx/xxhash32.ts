import { assert } from "../lib/assert.ts";
import { wordsOf } from "./word-view.ts";

const PRIME_1 = 0x9e3779b1 | 0;
const PRIME_2 = 0x85ebca77 | 0;
const PRIME_3 = 0xc2b2ae3d | 0;
const PRIME_4 = 0x27d4eb2f | 0;
const PRIME_5 = 0x165667b1 | 0;
const STRIPE_BYTES = 16;

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}

function round(lane: number, word: number): number {
  return Math.imul(rotate((lane + Math.imul(word, PRIME_2)) | 0, 13), PRIME_1);
}

/** xxHash32 with seed 0, the checksum of LZ4 frames, fed in any portions. */
export class XxHash32 {
  #lane1 = 0;
  #lane2 = 0;
  #lane3 = 0;
  #lane4 = 0;
  /** Bytes that do not fill a stripe yet. Its words view the same memory. */
  readonly #partialWords = new Int32Array(STRIPE_BYTES / 4);
  readonly #partial = new Uint8Array(this.#partialWords.buffer);
  #partialBytes = 0;
  #totalBytes = 0;

  constructor() {
    this.reset();
  }

  reset(): void {
    this.#lane1 = (PRIME_1 + PRIME_2) | 0;
    this.#lane2 = PRIME_2;
    this.#lane3 = 0;
    this.#lane4 = -PRIME_1 | 0;
    this.#partialBytes = 0;
    this.#totalBytes = 0;
  }

  /** Feeds bytes[start, end). */
  update(bytes: Uint8Array, start: number, end: number): void {
    assert(start >= 0 && start <= end && end <= bytes.length, "hash range outside the bytes");
    this.#totalBytes += end - start;
    let at = start;
    if (this.#partialBytes > 0) at = this.#fillPartial(bytes, at, end);
    if (((bytes.byteOffset + at) & 3) === 0 && end - at >= STRIPE_BYTES) {
      const stripeBytes = (end - at) & -STRIPE_BYTES;
      this.#stripes(wordsOf(bytes.buffer), (bytes.byteOffset + at) >>> 2, stripeBytes >>> 2);
      at += stripeBytes;
    }
    while (at < end) at = this.#fillPartial(bytes, at, end);
  }

  /** The hash of everything fed in, unsigned. More may follow. */
  digest(): number {
    let hash = PRIME_5;
    if (this.#totalBytes >= STRIPE_BYTES) {
      hash =
        rotate(this.#lane1, 1) +
        rotate(this.#lane2, 7) +
        rotate(this.#lane3, 12) +
        rotate(this.#lane4, 18);
    }
    hash = (hash + this.#totalBytes) | 0;
    let at = 0;
    for (; at + 4 <= this.#partialBytes; at += 4) {
      const word = this.#partialWords[at >>> 2]!;
      hash = Math.imul(rotate((hash + Math.imul(word, PRIME_3)) | 0, 17), PRIME_4);
    }
    for (; at < this.#partialBytes; at++) {
      const product = Math.imul(this.#partial[at]!, PRIME_5);
      hash = Math.imul(rotate((hash + product) | 0, 11), PRIME_1);
    }
    hash = Math.imul(hash ^ (hash >>> 15), PRIME_2);
    hash = Math.imul(hash ^ (hash >>> 13), PRIME_3);
    return (hash ^ (hash >>> 16)) >>> 0;
  }

  /** Takes bytes into the partial stripe, and the stripe into the lanes when it is full. */
  #fillPartial(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    while (at < end && this.#partialBytes < STRIPE_BYTES) {
      this.#partial[this.#partialBytes++] = bytes[at++]!;
    }
    if (this.#partialBytes === STRIPE_BYTES) {
      this.#stripes(this.#partialWords, 0, STRIPE_BYTES / 4);
      this.#partialBytes = 0;
    }
    return at;
  }

  #stripes(words: Int32Array, startWord: number, wordCount: number): void {
    let lane1 = this.#lane1;
    let lane2 = this.#lane2;
    let lane3 = this.#lane3;
    let lane4 = this.#lane4;
    for (let i = startWord, end = startWord + wordCount; i < end; i += 4) {
      lane1 = round(lane1, words[i]!);
      lane2 = round(lane2, words[i + 1]!);
      lane3 = round(lane3, words[i + 2]!);
      lane4 = round(lane4, words[i + 3]!);
    }
    this.#lane1 = lane1;
    this.#lane2 = lane2;
    this.#lane3 = lane3;
    this.#lane4 = lane4;
  }
}
