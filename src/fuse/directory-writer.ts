import { type FuseEntry, ENTRY_OUT_BYTES, putEntry, putInt64 } from "./attributes.ts";

/*
 * struct fuse_dirent; with READDIRPLUS each follows a struct fuse_entry_out.
 *
 * | offset | size    | field                                     |
 * |--------|---------|-------------------------------------------|
 * | 0      | 8       | ino                                       |
 * | 8      | 8       | off: where the next entry starts (cookie) |
 * | 16     | 4       | namelen                                   |
 * | 20     | 4       | type: mode >> 12                          |
 * | 24     | namelen | name, padded with zeros to 8              |
 */
const DIRENT_HEADER_BYTES = 24;

/** Fills a directory answer of limited size. One object, reused for every READDIR. */
export class DirectoryWriter {
  readonly #bytes: Buffer;
  readonly #words: Int32Array;
  readonly #start: number;
  #position = 0;
  #end = 0;

  constructor(bytes: Buffer, words: Int32Array, startBytes: number) {
    this.#bytes = bytes;
    this.#words = words;
    this.#start = startBytes;
  }

  /** Begins an answer of at most `sizeBytes`. */
  reset(sizeBytes: number): this {
    this.#position = this.#start;
    this.#end = Math.min(this.#start + sizeBytes, this.#bytes.length);
    return this;
  }

  get lengthBytes(): number {
    return this.#position - this.#start;
  }

  /**
   * Adds an entry, or returns false when there is no room left. `nextOffset` is what the kernel
   * will send to continue after this entry: any positive number that stays valid while names come
   * and go.
   */
  add(name: string, ino: number, mode: number, nextOffset: number): boolean {
    return this.#put(undefined, name, ino, mode, nextOffset);
  }

  /** For READDIRPLUS. nodeId 0 gives the kernel the name without the node (for "." and ".."). */
  addPlus(name: string, entry: FuseEntry, nextOffset: number): boolean {
    return this.#put(entry, name, entry.attr.ino, entry.attr.mode, nextOffset);
  }

  #put(
    entry: FuseEntry | undefined,
    name: string,
    ino: number,
    mode: number,
    nextOffset: number,
  ): boolean {
    const nameLength = Buffer.byteLength(name);
    const entryBytes = entry === undefined ? 0 : ENTRY_OUT_BYTES;
    const recordBytes = entryBytes + ((DIRENT_HEADER_BYTES + nameLength + 7) & ~7);
    if (this.#position + recordBytes > this.#end) return false;
    const at = this.#position + entryBytes;
    if (entry !== undefined) putEntry(this.#words, this.#position, entry);
    putInt64(this.#words, at, ino);
    putInt64(this.#words, at + 8, nextOffset);
    this.#words[(at + 16) >> 2] = nameLength;
    this.#words[(at + 20) >> 2] = (mode >> 12) & 0o17;
    this.#position += recordBytes;
    this.#bytes.write(name, at + DIRENT_HEADER_BYTES);
    this.#bytes.fill(0, at + DIRENT_HEADER_BYTES + nameLength, this.#position);
    return true;
  }
}
