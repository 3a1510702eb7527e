import type { OpenFile } from "../files.ts";

const WINDOW_BYTES = 64 * 1024;

/** What can be read from. */
export type Readable = Pick<OpenFile, "readAt">;

/**
 * Serves small reads of a file from one larger read. A log is scanned record by record, header by
 * header: of thousands of databases with a few short transactions each, the calls would be most of the
 * start. Not for a file that is written meanwhile.
 */
export class ReadAhead implements Readable {
  readonly #file: Readable;
  readonly #window: Uint8Array;
  #start = 0;
  #length = 0;

  constructor(file: Readable, sizeBytes: number) {
    this.#file = file;
    this.#window = new Uint8Array(Math.min(WINDOW_BYTES, sizeBytes));
  }

  readAt(out: Uint8Array, at: number, length: number, offset: number): number {
    if (length >= this.#window.length) return this.#file.readAt(out, at, length, offset);
    if (offset < this.#start || offset + length > this.#start + this.#length) {
      this.#start = offset;
      this.#length = this.#file.readAt(this.#window, 0, this.#window.length, offset);
    }
    const from = offset - this.#start;
    const count = Math.max(0, Math.min(length, this.#length - from));
    out.set(this.#window.subarray(from, from + count), at);
    return count;
  }
}
