import { writeSync } from "node:fs";
import { assert } from "../lib/assert.ts";
import { errorCode } from "../lib/errors.ts";
import {
  type FileAttributes,
  type FuseEntry,
  ATTR_OUT_BYTES,
  ENTRY_OUT_BYTES,
  putAttrOut,
  putEntry,
  putInt64,
} from "./attributes.ts";
import { DirectoryWriter } from "./directory-writer.ts";
import type { InitResult } from "./init.ts";

/*
 * struct fuse_out_header, before the body of every answer.
 *
 * | offset | size | field                            |
 * |--------|------|----------------------------------|
 * | 0      | 4    | len: header and body             |
 * | 4      | 4    | error: 0 or a negated errno      |
 * | 8      | 8    | unique of the request            |
 */
export const OUT_HEADER_BYTES = 16;

/** What statfs(2) shows. */
export interface FileSystemStatistics {
  readonly blocks: number;
  readonly bfree: number;
  readonly bavail: number;
  readonly files: number;
  readonly ffree: number;
  readonly bsize: number;
  readonly namelen: number;
  readonly frsize: number;
}

const STATFS_BYTES = 80;
const INIT_OUT_BYTES = 64;
/** Linux's "to the end of the file" in a lock range: 2^63 - 1. */
const OFFSET_MAX_HIGH = 0x7fffffff;

/**
 * Answers to requests, each by the unique id of its request, so at any time and in any order. All
 * are encoded in one buffer and written at once: nothing is allocated and nothing is kept.
 */
export class FuseReplies {
  /** Data for replyReadFromReplyBuffer goes here, from OUT_HEADER_BYTES on. */
  readonly replyBuffer: Buffer;
  readonly #fd: number;
  readonly #words: Int32Array;
  readonly #directory: DirectoryWriter;

  constructor(fd: number, maxReadBytes: number) {
    this.#fd = fd;
    const memory = new ArrayBuffer(OUT_HEADER_BYTES + maxReadBytes);
    this.replyBuffer = Buffer.from(memory);
    this.#words = new Int32Array(memory);
    this.#directory = new DirectoryWriter(this.replyBuffer, this.#words, OUT_HEADER_BYTES);
  }

  /** `errno` is positive. */
  replyError(uniqueLo: number, uniqueHi: number, errno: number): void {
    assert(errno > 0, "an error reply needs a positive errno");
    this.#send(uniqueLo, uniqueHi, 0, errno);
  }

  /** Success of an operation that has no result. */
  replyEmpty(uniqueLo: number, uniqueHi: number): void {
    this.#send(uniqueLo, uniqueHi, 0);
  }

  /** A found or new name (LOOKUP, MKDIR, MKNOD, LINK, SYMLINK). Counts as one lookup. */
  replyEntry(uniqueLo: number, uniqueHi: number, entry: FuseEntry): void {
    putEntry(this.#words, OUT_HEADER_BYTES, entry);
    this.#send(uniqueLo, uniqueHi, ENTRY_OUT_BYTES);
  }

  /** "There is no such name", which the kernel may remember for that long. */
  replyNegativeEntry(uniqueLo: number, uniqueHi: number, timeoutMs: number): void {
    this.#words.fill(0, OUT_HEADER_BYTES >> 2, (OUT_HEADER_BYTES + ENTRY_OUT_BYTES) >> 2);
    const seconds = Math.floor(timeoutMs / 1000);
    putInt64(this.#words, OUT_HEADER_BYTES + 16, seconds);
    this.#words[(OUT_HEADER_BYTES + 32) >> 2] = (timeoutMs - seconds * 1000) * 1_000_000;
    this.#send(uniqueLo, uniqueHi, ENTRY_OUT_BYTES);
  }

  replyAttr(uniqueLo: number, uniqueHi: number, attr: FileAttributes, timeoutMs: number): void {
    putAttrOut(this.#words, OUT_HEADER_BYTES, attr, timeoutMs);
    this.#send(uniqueLo, uniqueHi, ATTR_OUT_BYTES);
  }

  /** OPEN and OPENDIR; `openFlags` are FOPEN_…. */
  replyOpen(uniqueLo: number, uniqueHi: number, fh: number, openFlags: number): void {
    this.#putOpen(OUT_HEADER_BYTES, fh, openFlags);
    this.#send(uniqueLo, uniqueHi, 16);
  }

  replyCreate(
    uniqueLo: number,
    uniqueHi: number,
    entry: FuseEntry,
    fh: number,
    openFlags: number,
  ): void {
    putEntry(this.#words, OUT_HEADER_BYTES, entry);
    this.#putOpen(OUT_HEADER_BYTES + ENTRY_OUT_BYTES, fh, openFlags);
    this.#send(uniqueLo, uniqueHi, ENTRY_OUT_BYTES + 16);
  }

  /** WRITE and COPY_FILE_RANGE: how many bytes. */
  replyWrite(uniqueLo: number, uniqueHi: number, sizeBytes: number): void {
    this.#words[4] = sizeBytes;
    this.#words[5] = 0;
    this.#send(uniqueLo, uniqueHi, 8);
  }

  /** READ whose data stands in replyBuffer from OUT_HEADER_BYTES on. */
  replyReadFromReplyBuffer(uniqueLo: number, uniqueHi: number, sizeBytes: number): void {
    this.#send(uniqueLo, uniqueHi, sizeBytes);
  }

  /** READ, READLINK, GETXATTR, LISTXATTR. */
  replyBytes(uniqueLo: number, uniqueHi: number, bytes: Uint8Array): void {
    this.replyBuffer.set(bytes, OUT_HEADER_BYTES);
    this.#send(uniqueLo, uniqueHi, bytes.length);
  }

  /** GETXATTR and LISTXATTR with size 0. */
  replyXattrSize(uniqueLo: number, uniqueHi: number, sizeBytes: number): void {
    this.replyWrite(uniqueLo, uniqueHi, sizeBytes);
  }

  replyStatfs(uniqueLo: number, uniqueHi: number, statistics: FileSystemStatistics): void {
    const words = this.#words;
    words.fill(0, OUT_HEADER_BYTES >> 2, (OUT_HEADER_BYTES + STATFS_BYTES) >> 2);
    putInt64(words, OUT_HEADER_BYTES, statistics.blocks);
    putInt64(words, OUT_HEADER_BYTES + 8, statistics.bfree);
    putInt64(words, OUT_HEADER_BYTES + 16, statistics.bavail);
    putInt64(words, OUT_HEADER_BYTES + 24, statistics.files);
    putInt64(words, OUT_HEADER_BYTES + 32, statistics.ffree);
    words[(OUT_HEADER_BYTES + 40) >> 2] = statistics.bsize;
    words[(OUT_HEADER_BYTES + 44) >> 2] = statistics.namelen;
    words[(OUT_HEADER_BYTES + 48) >> 2] = statistics.frsize;
    this.#send(uniqueLo, uniqueHi, STATFS_BYTES);
  }

  /** GETLK; `end` is inclusive, Number.MAX_SAFE_INTEGER means to the end of the file. */
  replyLock(
    uniqueLo: number,
    uniqueHi: number,
    type: number,
    start: number,
    end: number,
    pid: number,
  ): void {
    putInt64(this.#words, OUT_HEADER_BYTES, start);
    putInt64(this.#words, OUT_HEADER_BYTES + 8, end);
    if (end === Number.MAX_SAFE_INTEGER) {
      this.#words[6] = -1;
      this.#words[7] = OFFSET_MAX_HIGH;
    }
    this.#words[8] = type;
    this.#words[9] = pid;
    this.#send(uniqueLo, uniqueHi, 24);
  }

  replyLseek(uniqueLo: number, uniqueHi: number, offset: number): void {
    putInt64(this.#words, OUT_HEADER_BYTES, offset);
    this.#send(uniqueLo, uniqueHi, 8);
  }

  /** Begins the answer to a READDIR or READDIRPLUS. */
  startDirectory(sizeBytes: number): DirectoryWriter {
    return this.#directory.reset(sizeBytes);
  }

  /** Sends what was added since startDirectory; nothing means the end of the directory. */
  replyDirectory(uniqueLo: number, uniqueHi: number): void {
    this.#send(uniqueLo, uniqueHi, this.#directory.lengthBytes);
  }

  /*
   * struct fuse_init_out
   *
   * | offset | size | field                                        |
   * |--------|------|----------------------------------------------|
   * | 0      | 4    | major                                        |
   * | 4      | 4    | minor                                        |
   * | 8      | 4    | max_readahead                                |
   * | 12     | 4    | flags                                        |
   * | 16     | 2    | max_background (0: the kernel's default)     |
   * | 18     | 2    | congestion_threshold (0: default)            |
   * | 20     | 4    | max_write                                    |
   * | 24     | 4    | time_gran, nanoseconds                       |
   * | 28     | 2    | max_pages                                    |
   * | 30     | 2    | map_alignment                                |
   * | 32     | 4    | flags2                                       |
   * | 36     | 28   | unused                                       |
   */
  replyInit(uniqueLo: number, uniqueHi: number, result: InitResult): void {
    const words = this.#words;
    words.fill(0, OUT_HEADER_BYTES >> 2, (OUT_HEADER_BYTES + INIT_OUT_BYTES) >> 2);
    words[4] = result.major;
    words[5] = result.minor;
    words[6] = result.maxReadaheadBytes;
    words[7] = result.flags;
    words[9] = result.maxWriteBytes;
    words[10] = 1;
    words[11] = result.maxPages;
    this.#send(uniqueLo, uniqueHi, INIT_OUT_BYTES);
  }

  #putOpen(offset: number, fh: number, openFlags: number): void {
    putInt64(this.#words, offset, fh);
    this.#words[(offset + 8) >> 2] = openFlags;
    this.#words[(offset + 12) >> 2] = 0;
  }

  #send(uniqueLo: number, uniqueHi: number, bodyBytes: number, errno = 0): void {
    const words = this.#words;
    const length = OUT_HEADER_BYTES + bodyBytes;
    words[0] = length;
    words[1] = -errno;
    words[2] = uniqueLo;
    words[3] = uniqueHi;
    try {
      writeSync(this.#fd, this.replyBuffer, 0, length, null);
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }
}

/** Nobody waits for the answer: the request was interrupted (ENOENT) or the mount has ended. */
function isGone(error: unknown): boolean {
  const code = errorCode(error);
  return code === "ENOENT" || code === "ENODEV" || code === "EPERM";
}
