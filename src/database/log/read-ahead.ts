import type { OpenFile } from "../files.ts";

const WINDOW_BYTES = 64 * 1024;

/** What the last one has left: thousands of logs are read at a start, one after the other. */
let spare: Uint8Array | undefined;

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
  /** How much of it is used; nothing any more once it is closed. */
  #windowBytes: number;
  #start = 0;
  #length = 0;

  constructor(file: Readable, sizeBytes: number) {
    this.#file = file;
    this.#windowBytes = Math.min(WINDOW_BYTES, sizeBytes);
    this.#window = spare ?? new Uint8Array(WINDOW_BYTES);
    spare = undefined;
  }

  /** The window goes to the next one. */
  close(): void {
    spare = this.#window;
    this.#windowBytes = 0;
  }

  readAt(out: Uint8Array, at: number, length: number, offset: number): number {
    if (length >= this.#windowBytes) return this.#file.readAt(out, at, length, offset);
    if (offset < this.#start || offset + length > this.#start + this.#length) {
      this.#start = offset;
      this.#length = this.#file.readAt(this.#window, 0, this.#windowBytes, offset);
    }
    const from = offset - this.#start;
    const count = Math.max(0, Math.min(length, this.#length - from));
    out.set(this.#window.subarray(from, from + count), at);
    return count;
  }
}
