/*
 * Chunked body: u16 BE length 1…65535 and that many bytes, repeated; ended by u16 0. The borders
 * of chunks carry no meaning.
 */
export const CHUNK_HEADER_BYTES = 2;
export const MAX_CHUNK_BYTES = 65535;
/** Ends a chunked body. */
export const CHUNK_END: Uint8Array = new Uint8Array(CHUNK_HEADER_BYTES);

/** The size of `byteCount` bytes as chunks, without the end. */
export function chunkedBytes(byteCount: number): number {
  return byteCount + CHUNK_HEADER_BYTES * Math.ceil(byteCount / MAX_CHUNK_BYTES);
}

/** Bytes as chunks, without the end: a part of a body. */
export function encodeChunks(bytes: Uint8Array): Uint8Array {
  const out = new Uint8Array(chunkedBytes(bytes.length));
  writeChunks(bytes, out, 0);
  return out;
}

/** Writes chunks at `offset`; gives the offset after them. */
export function writeChunks(bytes: Uint8Array, out: Uint8Array, offset: number): number {
  let to = offset;
  for (let at = 0; at < bytes.length; at += MAX_CHUNK_BYTES) {
    const length = Math.min(MAX_CHUNK_BYTES, bytes.length - at);
    out[to] = length >>> 8;
    out[to + 1] = length;
    out.set(bytes.subarray(at, at + length), to + CHUNK_HEADER_BYTES);
    to += CHUNK_HEADER_BYTES + length;
  }
  return to;
}

/**
 * Takes a chunked body apart, portion by portion, without copying. Every `take` makes progress:
 * it reads length bytes, or gives as much of the current chunk as is there.
 */
export class ChunkParser {
  /** Bytes of the current chunk still to come. */
  #remainingBytes = 0;
  /** First length byte when the portion ended between the two. */
  #lengthHigh = -1;
  #done = false;

  /** The end of the body was read. */
  get done(): boolean {
    return this.#done;
  }

  /** Where the last `take` stopped. */
  offset = 0;

  /** Content found from `start` on, or undefined at the end of the portion or of the body. */
  take(portion: Uint8Array, start: number): Uint8Array | undefined {
    let at = start;
    while (at < portion.length && !this.#done) {
      if (this.#remainingBytes > 0) {
        const end = Math.min(portion.length, at + this.#remainingBytes);
        this.#remainingBytes -= end - at;
        this.offset = end;
        return portion.subarray(at, end);
      }
      const byte = portion[at++]!;
      if (this.#lengthHigh < 0) {
        this.#lengthHigh = byte;
      } else {
        this.#remainingBytes = (this.#lengthHigh << 8) | byte;
        this.#lengthHigh = -1;
        this.#done = this.#remainingBytes === 0;
      }
    }
    this.offset = at;
    return undefined;
  }
}
