/** What stat(2) shows of a file. Times may have fractions; sizes and numbers are safe integers. */
export interface FileAttributes {
  readonly ino: number;
  readonly size: number;
  /** In units of 512 bytes. */
  readonly blocks: number;
  readonly atimeMs: number;
  readonly mtimeMs: number;
  readonly ctimeMs: number;
  /** File type and permissions. */
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  readonly blksize: number;
}

/** A name's answer: the node, and for how long the kernel may remember name and attributes. */
export interface FuseEntry {
  readonly nodeId: number;
  /** Makes (nodeId, generation) unique if node ids are ever reused. */
  readonly generation: number;
  readonly attr: FileAttributes;
  readonly entryTimeoutMs: number;
  readonly attrTimeoutMs: number;
}

/*
 * struct fuse_attr                       struct fuse_entry_out
 *
 * | offset | size | field     |          | offset | size | field            |
 * |--------|------|-----------|          |--------|------|------------------|
 * | 0      | 8    | ino       |          | 0      | 8    | nodeid           |
 * | 8      | 8    | size      |          | 8      | 8    | generation       |
 * | 16     | 8    | blocks    |          | 16     | 8    | entry_valid      |
 * | 24     | 8    | atime     |          | 24     | 8    | attr_valid       |
 * | 32     | 8    | mtime     |          | 32     | 4    | entry_valid_nsec |
 * | 40     | 8    | ctime     |          | 36     | 4    | attr_valid_nsec  |
 * | 48     | 4    | atimensec |          | 40     | 88   | attr             |
 * | 52     | 4    | mtimensec |
 * | 56     | 4    | ctimensec |          struct fuse_attr_out
 * | 60     | 4    | mode      |
 * | 64     | 4    | nlink     |          | 0      | 8    | attr_valid       |
 * | 68     | 4    | uid       |          | 8      | 4    | attr_valid_nsec  |
 * | 72     | 4    | gid       |          | 12     | 4    | padding          |
 * | 76     | 4    | rdev      |          | 16     | 88   | attr             |
 * | 80     | 4    | blksize   |
 * | 84     | 4    | flags     |
 */
export const ENTRY_OUT_BYTES = 128;
export const ATTR_OUT_BYTES = 104;

const TWO_POW_32 = 0x1_0000_0000;

/** Writes a 64-bit integer, two's complement; `offset` is in bytes and a multiple of 4. */
export function putInt64(words: Int32Array, offset: number, value: number): void {
  words[offset >> 2] = value | 0;
  // A small value, which nearly all are, needs no division.
  words[(offset >> 2) + 1] = value === (value | 0) ? value >> 31 : Math.floor(value / TWO_POW_32);
}

export function putAttr(words: Int32Array, offset: number, attr: FileAttributes): void {
  putInt64(words, offset, attr.ino);
  putInt64(words, offset + 8, attr.size);
  putInt64(words, offset + 16, attr.blocks);
  putTime(words, offset + 24, offset + 48, attr.atimeMs);
  putTime(words, offset + 32, offset + 52, attr.mtimeMs);
  putTime(words, offset + 40, offset + 56, attr.ctimeMs);
  const word = offset >> 2;
  words[word + 15] = attr.mode;
  words[word + 16] = attr.nlink;
  words[word + 17] = attr.uid;
  words[word + 18] = attr.gid;
  words[word + 19] = attr.rdev;
  words[word + 20] = attr.blksize;
  words[word + 21] = 0;
}

export function putEntry(words: Int32Array, offset: number, entry: FuseEntry): void {
  putInt64(words, offset, entry.nodeId);
  putInt64(words, offset + 8, entry.generation);
  putTime(words, offset + 16, offset + 32, entry.entryTimeoutMs);
  putTime(words, offset + 24, offset + 36, entry.attrTimeoutMs);
  putAttr(words, offset + 40, entry.attr);
}

export function putAttrOut(
  words: Int32Array,
  offset: number,
  attr: FileAttributes,
  timeoutMs: number,
): void {
  putTime(words, offset, offset + 8, timeoutMs);
  words[(offset >> 2) + 3] = 0;
  putAttr(words, offset + 16, attr);
}

/** Milliseconds as seconds (floored, so that nanoseconds are positive before 1970) and the rest. */
function putTime(words: Int32Array, secondsOffset: number, nanosOffset: number, ms: number): void {
  const seconds = Math.floor(ms / 1000);
  putInt64(words, secondsOffset, seconds);
  words[nanosOffset >> 2] = Math.floor((ms - seconds * 1000) * 1_000_000);
}
