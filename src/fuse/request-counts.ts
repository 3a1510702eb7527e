/** Requests of the kernel protocol by opcode, in the order of their numbers. */
const NAMES: readonly (string | undefined)[] = (
  "- LOOKUP FORGET GETATTR SETATTR READLINK SYMLINK - MKNOD MKDIR UNLINK RMDIR RENAME LINK OPEN " +
  "READ WRITE STATFS RELEASE - FSYNC SETXATTR GETXATTR LISTXATTR REMOVEXATTR FLUSH INIT OPENDIR " +
  "READDIR RELEASEDIR FSYNCDIR GETLK SETLK SETLKW ACCESS CREATE INTERRUPT BMAP DESTROY IOCTL " +
  "POLL NOTIFY_REPLY BATCH_FORGET FALLOCATE READDIRPLUS RENAME2 LSEEK COPY_FILE_RANGE " +
  "SETUPMAPPING REMOVEMAPPING SYNCFS TMPFILE STATX"
)
  .split(" ")
  .map((name) => (name === "-" ? undefined : name));

export const REQUEST_COUNTS_BYTES: number = NAMES.length * 4;

/**
 * How often the kernel has asked for what. The mount thread counts, another thread reads: the
 * memory is shared, and plain accesses do because a count that is one request old is as good.
 */
export class RequestCounts {
  readonly #counts: Uint32Array;

  constructor(
    memory: ArrayBufferLike = new ArrayBuffer(REQUEST_COUNTS_BYTES),
    offsetBytes: number = 0,
  ) {
    this.#counts = new Uint32Array(memory, offsetBytes, NAMES.length);
  }

  /** An opcode that we do not know is not counted. Wraps at 2^32. */
  add(opcode: number): void {
    const counts = this.#counts;
    if (opcode < counts.length) counts[opcode] = counts[opcode]! + 1;
  }

  /** All together, as a number that may wrap. */
  get total(): number {
    let total = 0;
    for (const count of this.#counts) total += count;
    return total;
  }

  /** By name, without those that never came. */
  toObject(): Record<string, number> {
    const object: Record<string, number> = {};
    for (const [opcode, name] of NAMES.entries()) {
      const count = this.#counts[opcode] ?? 0;
      if (name !== undefined && count > 0) object[name] = count;
    }
    return object;
  }
}
