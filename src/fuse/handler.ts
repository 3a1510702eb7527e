import type { InitResult } from "./init.ts";
import type { FuseReplies } from "./replies.ts";
import type { FuseRequest } from "./request.ts";

/**
 * A file system, as the kernel calls it. Every method answers with exactly one reply of the
 * session, now or later; a later one needs only `uniqueLo` and `uniqueHi`, to be copied from the
 * request, because the request object, `data` and `fields` are reused for the next request.
 * `forget`, `interrupt`, `notifyReply`, `wake` and `init` have no reply.
 *
 * - Halves of unique ids and lock owners are signed 32-bit integers: compare them, nothing else.
 * - A thrown system error (ENOSPC from the backing file) is answered with its number. Any other
 *   exception is answered with EIO and ends `run()` with it.
 * - Optional methods that are missing are answered with ENOSYS. Where the kernel then stops
 *   asking for good, that is the fastest answer there is; it is noted below.
 */
export interface FuseHandler {
  /** The handshake is over and requests follow. */
  init?(replies: FuseReplies, result: InitResult): void;

  // Names. The name belongs into directory `request.nodeId`.

  /** replyEntry, replyNegativeEntry (cached absence) or ENOENT (absence that is not cached). */
  lookup(request: FuseRequest, name: string): void;
  /** The kernel has dropped `lookupCount` of the references that entry replies gave it. */
  forget(nodeId: number, lookupCount: number): void;
  /** replyCreate. */
  create(request: FuseRequest, name: string, flags: number, mode: number): void;
  unlink(request: FuseRequest, name: string): void;
  rmdir?(request: FuseRequest, name: string): void;
  /** replyEntry. */
  mkdir?(request: FuseRequest, name: string, mode: number): void;
  /** replyEntry. Without it, ENOSYS reaches the caller. */
  mknod?(request: FuseRequest, name: string, mode: number, rdev: number): void;
  /** `flags` are those of renameat2(2); 0 for a plain rename. */
  rename?(
    request: FuseRequest,
    name: string,
    newParentId: number,
    newName: string,
    flags: number,
  ): void;
  /** replyEntry. */
  link?(request: FuseRequest, oldNodeId: number, newName: string): void;
  /** replyEntry. */
  symlink?(request: FuseRequest, name: string, target: string): void;
  /** replyBytes. */
  readlink?(request: FuseRequest): void;

  // Attributes.

  /** replyAttr. `fh` is -1 when the call was not made on an open file. */
  getattr(request: FuseRequest, fh: number): void;
  /** replyAttr. `valid` (FATTR_…) says which fields are meant. Truncation comes here. */
  setattr(request: FuseRequest, valid: number, fields: SetattrFields): void;
  /** Must exist: without it access(2) would be granted for ever, in the kernel. */
  access(request: FuseRequest, mask: number): void;
  /** replyStatfs. */
  statfs(request: FuseRequest): void;

  // Files. `fh` is what replyOpen or replyCreate gave out.

  /** replyOpen. O_TRUNC is not part of `flags`: the kernel sends SETATTR with size 0 instead. */
  open(request: FuseRequest, flags: number): void;
  /** replyReadFromReplyBuffer or replyBytes; fewer bytes than `size` mean end of file. */
  read(
    request: FuseRequest,
    fh: number,
    offset: number,
    size: number,
    readFlags: number,
    ownerLo: number,
    ownerHi: number,
  ): void;
  /** replyWrite. The bytes are `data[dataStart .. dataStart + size)`. */
  write(
    request: FuseRequest,
    fh: number,
    offset: number,
    data: Uint8Array,
    dataStart: number,
    size: number,
    writeFlags: number,
    ownerLo: number,
    ownerHi: number,
  ): void;
  fsync(request: FuseRequest, fh: number, dataOnly: boolean): void;
  /**
   * One descriptor was closed, perhaps by a dying process. Must release the owner's locks on this
   * file: with posixLocks the kernel keeps none of its own. Must exist: after one ENOSYS the
   * kernel never sends it again.
   */
  flush(request: FuseRequest, fh: number, ownerLo: number, ownerHi: number): void;
  /** The last descriptor is gone; nobody looks at the answer. */
  release(
    request: FuseRequest,
    fh: number,
    flags: number,
    releaseFlags: number,
    ownerLo: number,
    ownerHi: number,
  ): void;
  /** replyEmpty. Missing: EOPNOTSUPP for the caller, never asked again. */
  fallocate?(request: FuseRequest, fh: number, offset: number, length: number, mode: number): void;
  /** replyLseek. Missing: the kernel treats files as without holes, never asked again. */
  lseek?(request: FuseRequest, fh: number, offset: number, whence: number): void;
  /** replyWrite. Missing: the kernel copies by read and write, never asked again. */
  copyFileRange?(
    request: FuseRequest,
    fhIn: number,
    offsetIn: number,
    nodeIdOut: number,
    fhOut: number,
    offsetOut: number,
    length: number,
  ): void;

  // Locks of fcntl(2), only with posixLocks. `end` is inclusive and Number.MAX_SAFE_INTEGER when
  // the range goes to the end of the file.

  /** replyEmpty when taken or released, EAGAIN when refused. With `wait`, the answer may be late. */
  setlk(
    request: FuseRequest,
    fh: number,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    type: number,
    pid: number,
    flags: number,
    wait: boolean,
  ): void;
  /** replyLock: a lock that is in the way, or F_UNLCK. */
  getlk(
    request: FuseRequest,
    fh: number,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    type: number,
    pid: number,
  ): void;

  // Directories.

  /** replyOpen. */
  opendir(request: FuseRequest, flags: number): void;
  /**
   * Fill `replies.startDirectory(size)` and replyDirectory. `offset` is 0 or the `nextOffset` of
   * the last entry the reader has consumed.
   */
  readdir(request: FuseRequest, fh: number, offset: number, size: number): void;
  /** As readdir, with DirectoryWriter.addPlus; each such entry counts as a lookup. */
  readdirplus?(request: FuseRequest, fh: number, offset: number, size: number): void;
  releasedir(request: FuseRequest, fh: number, flags: number): void;
  /** Missing: succeeds in the kernel, never asked again. */
  fsyncdir?(request: FuseRequest, fh: number, dataOnly: boolean): void;

  // Extended attributes. Missing: EOPNOTSUPP for the caller, never asked again. That also saves a
  // query of security.capability before every write.

  /** replyXattrSize when `size` is 0, else replyBytes; ERANGE when it does not fit. */
  getxattr?(request: FuseRequest, name: string, size: number): void;
  /** As getxattr; names each ended by a zero byte. */
  listxattr?(request: FuseRequest, size: number): void;
  setxattr?(
    request: FuseRequest,
    name: string,
    data: Uint8Array,
    dataStart: number,
    size: number,
    flags: number,
  ): void;
  removexattr?(request: FuseRequest, name: string): void;

  // From the kernel to us, without a reply.

  /** Some request that may still be unanswered should be answered at once, with EINTR. */
  interrupt(targetUniqueLo: number, targetUniqueHi: number): void;
  /** What a RETRIEVE found in the page cache of `request.nodeId`, perhaps fewer bytes. */
  notifyReply(
    request: FuseRequest,
    notifyUnique: number,
    offset: number,
    data: Uint8Array,
    dataStart: number,
    size: number,
  ): void;
  /** Another thread has written a wakeMessage. */
  wake(): void;
}

/** Reused for every SETATTR; only the fields named by `valid` mean anything. */
export interface SetattrFields {
  /** -1 when the call was not made on an open file. */
  readonly fh: number;
  readonly size: number;
  readonly atimeMs: number;
  readonly mtimeMs: number;
  readonly ctimeMs: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly ownerLo: number;
  readonly ownerHi: number;
}
