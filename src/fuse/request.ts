import { constants, isUtf8 } from "node:buffer";
import { endianness } from "node:os";
import { assert } from "../lib/assert.ts";
import { EILSEQ } from "./errno.ts";

/*
 * struct fuse_in_header, in the byte order of the machine, before the body of every request.
 *
 * | offset | size | field                                  |
 * |--------|------|----------------------------------------|
 * | 0      | 4    | len: header and body                   |
 * | 4      | 4    | opcode                                 |
 * | 8      | 8    | unique                                 |
 * | 16     | 8    | nodeid                                 |
 * | 24     | 4    | uid                                    |
 * | 28     | 4    | gid                                    |
 * | 32     | 4    | pid                                    |
 * | 36     | 2    | total_extlen (0: we ask for none)      |
 * | 38     | 2    | padding                                |
 */
export const IN_HEADER_BYTES = 40;

/** struct fuse_write_in: the payload of a WRITE therefore starts at 80, aligned to 8. */
const WRITE_IN_BYTES = 40;

/** One request; the object is reused for the next. */
export interface FuseRequest {
  /** Signed halves of the id that the answer must carry. */
  readonly uniqueLo: number;
  readonly uniqueHi: number;
  readonly nodeId: number;
  readonly opcode: number;
  readonly uid: number;
  readonly gid: number;
  /** Thread that made the call, as seen from the mount's pid namespace; 0 when outside it. */
  readonly pid: number;
  readonly lengthBytes: number;
}

const TWO_POW_32 = 0x1_0000_0000;

/** An answer to whoever has asked, as a system error is. */
export class InvalidNameError extends Error {
  override readonly name = "InvalidNameError";
  readonly code = "EILSEQ";
  readonly errno: number = -EILSEQ;
}

/**
 * The buffer that requests are read into, with typed views that are made once: a DataView call
 * per field or a new view per request would cost more than the dispatch.
 */
export class RequestBuffer implements FuseRequest {
  readonly bytes: Buffer;
  readonly #int32: Int32Array;
  readonly #uint32: Uint32Array;
  readonly #maxIoBytes: number;
  uniqueLo = 0;
  uniqueHi = 0;
  nodeId = 0;
  opcode = 0;
  uid = 0;
  gid = 0;
  pid = 0;
  lengthBytes = 0;

  /** `memory` may have room for more. */
  constructor(maxWriteBytes: number, memory?: ArrayBuffer) {
    this.#maxIoBytes = maxWriteBytes;
    assert(endianness() === "LE", "the FUSE layer is written for little-endian machines");
    const length = RequestBuffer.capacityFor(maxWriteBytes);
    assert(length % 8 === 0 && length < constants.MAX_LENGTH, "bad request buffer size");
    memory ??= new ArrayBuffer(length);
    this.bytes = Buffer.from(memory, 0, length);
    this.#int32 = new Int32Array(memory);
    this.#uint32 = new Uint32Array(memory);
  }

  /**
   * The kernel refuses a read whose buffer could not hold the largest WRITE (EINVAL). A page more
   * leaves room for the names and headers of everything else.
   */
  static capacityFor(maxWriteBytes: number): number {
    return IN_HEADER_BYTES + WRITE_IN_BYTES + maxWriteBytes + 4096;
  }

  /** Takes over the header of a request that was just read. */
  decodeHeader(lengthBytes: number): void {
    const int32 = this.#int32;
    assert(lengthBytes >= IN_HEADER_BYTES, "request is shorter than its header");
    assert(int32[0] === lengthBytes, "request length does not match its header");
    this.lengthBytes = lengthBytes;
    this.opcode = int32[1]!;
    this.uniqueLo = int32[2]!;
    this.uniqueHi = int32[3]!;
    this.nodeId = this.id(16);
    this.uid = this.#uint32[6]!;
    this.gid = this.#uint32[7]!;
    this.pid = int32[8]!;
  }

  /** Requires that the request has a body up to `endBytes`. */
  requireLength(endBytes: number): void {
    assert(this.lengthBytes >= endBytes, "request is shorter than its body");
  }

  /** Signed, so that any value is a small integer to V8 and costs no allocation. */
  int32(offset: number): number {
    return this.#int32[offset >> 2]!;
  }

  /** How much a READ or READDIR wants: never more than an answer has room for. */
  readSize(offset: number): number {
    const size = this.#uint32[offset >> 2]!;
    assert(size <= this.#maxIoBytes, "the kernel wants more than it agreed to");
    return size;
  }

  uint32(offset: number): number {
    return this.#uint32[offset >> 2]!;
  }

  /** A node id or file handle: we gave it out ourselves, so it is a safe integer. */
  id(offset: number): number {
    const high = this.#uint32[(offset >> 2) + 1]!;
    const low = this.#uint32[offset >> 2]!;
    // Nearly always, and then a small integer to V8.
    if (high === 0) return low;
    assert(high < 0x20_0000, "the kernel sent an id that we never gave out");
    return high * TWO_POW_32 + low;
  }

  /** An unsigned 64-bit offset, size or count, clamped to the largest safe integer. */
  uint64(offset: number): number {
    const high = this.#uint32[(offset >> 2) + 1]!;
    const low = this.#uint32[offset >> 2]!;
    if (high === 0) return low;
    if (high >= 0x20_0000) return Number.MAX_SAFE_INTEGER;
    return high * TWO_POW_32 + low;
  }

  /** A point in time from seconds (signed 64 bits) and nanoseconds. */
  timeMs(secondsOffset: number, nanosecondsOffset: number): number {
    const seconds = this.int32(secondsOffset + 4) * TWO_POW_32 + this.uint32(secondsOffset);
    return seconds * 1000 + this.uint32(nanosecondsOffset) / 1_000_000;
  }

  /** Index of the zero byte that ends the name at `start`. */
  nameEnd(start: number): number {
    const end = this.bytes.indexOf(0, start);
    assert(end >= start && end < this.lengthBytes, "a name in a request does not end");
    return end;
  }

  text(start: number, end: number): string {
    return this.bytes.toString("utf8", start, end);
  }

  /**
   * A name in a directory. The kernel splits paths itself; a name that could leave its directory
   * never comes from it, and must not become a path of ours.
   */
  component(start: number, end: number): string {
    const name = this.text(start, end);
    // Two names that are no UTF-8 would be the same name to us, and one file.
    if (name.includes("\uFFFD") && !isUtf8(this.bytes.subarray(start, end))) {
      throw new InvalidNameError("a name in a request is not UTF-8");
    }
    assert(!name.includes("/") && name !== "." && name !== "..", "a name in a request is a path");
    return name;
  }

  /** The name in a directory that starts at `start`. */
  name(start: number): string {
    return this.component(start, this.nameEnd(start));
  }
}
