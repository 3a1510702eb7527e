import * as fs from "node:fs";

const HEADER_BYTES = 8;

/**
 * The input that a worker is running, in a file: when the worker never returns, or dies of it,
 * this is what it died of.
 */
export class CurrentInput {
  readonly #fd: number;
  #count = 0;

  constructor(path: string) {
    this.#fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT);
  }

  note(input: Uint8Array): void {
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt32LE(++this.#count, 0);
    header.writeUInt32LE(input.length, 4);
    fs.writevSync(this.#fd, [header, input], 0);
  }

  read(): { readonly count: number; readonly input: Uint8Array } {
    const header = Buffer.alloc(HEADER_BYTES);
    fs.readSync(this.#fd, header, 0, HEADER_BYTES, 0);
    const input = new Uint8Array(header.readUInt32LE(4));
    fs.readSync(this.#fd, input, 0, input.length, HEADER_BYTES);
    return { count: header.readUInt32LE(0), input };
  }

  close(): void {
    fs.closeSync(this.#fd);
  }
}
