import { assert } from "../lib/assert.ts";

/** One view per buffer, kept as long as the buffer lives: no allocation per page. */
const wordViews = new WeakMap<ArrayBufferLike, Int32Array>();

/** The whole buffer as little-endian 32-bit words, for checksums over aligned bytes. */
export function wordsOf(buffer: ArrayBufferLike): Int32Array {
  let words = wordViews.get(buffer);
  if (words === undefined) {
    words = new Int32Array(buffer, 0, buffer.byteLength >>> 2);
    wordViews.set(buffer, words);
  }
  return words;
}

assert(new Uint8Array(Uint32Array.of(1).buffer)[0] === 1, "litefs needs a little-endian CPU");
