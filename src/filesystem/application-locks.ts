import { PENDING_BYTE, RESERVED_BYTE, SHARED_LAST, WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import { decodeWalIndexHeaderPair, WAL_INDEX_PREFIX_SIZE } from "../sqlite/wal-index-header.ts";
import { F_UNLCK, F_WRLCK } from "../fuse/constants.ts";
import * as errno from "../fuse/errno.ts";
import type { FuseReplies } from "../fuse/replies.ts";
import type { FuseRequest } from "../fuse/request.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import { LockWaiters } from "./lock-waiters.ts";
import type { LockableNode } from "./nodes.ts";

/**
 * The fcntl locks of applications, kept by this daemon: every request comes here. Also the policy
 * of a replica, where SQLite's write lock is refused.
 */
export class ApplicationLocks {
  readonly #waiters = new LockWaiters();
  readonly #isPrimary: () => boolean;
  /** Set when the session begins. */
  replies!: FuseReplies;

  constructor(isPrimary: () => boolean) {
    this.#isPrimary = isPrimary;
  }

  /** Answers a SETLK or, with `wait`, a SETLKW, perhaps later. */
  set(
    request: FuseRequest,
    node: LockableNode,
    fh: number,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    type: number,
    pid: number,
    wait: boolean,
  ): void {
    const { uniqueLo, uniqueHi } = request;
    const { locks } = node;
    if (type === F_UNLCK) {
      this.#unlock(node, fh, ownerLo, ownerHi, start, end, pid);
      this.replies.replyEmpty(uniqueLo, uniqueHi);
      return;
    }
    if (
      type === F_WRLCK &&
      node.type === "file" &&
      !this.#isPrimary() &&
      this.#isWriteIntent(node, start, end)
    ) {
      this.#decideReplicaWrite(request, node, fh, ownerLo, ownerHi, start, end, pid);
      return;
    }
    if (locks.conflict(ownerLo, ownerHi, false, start, end, type) === undefined) {
      locks.set(ownerLo, ownerHi, fh, pid, start, end, type);
      this.replies.replyEmpty(uniqueLo, uniqueHi);
    } else if (wait) {
      const lock = { uniqueLo, uniqueHi, node, fh, ownerLo, ownerHi, start, end, type, pid };
      this.#waiters.add(lock);
    } else {
      this.replies.replyError(uniqueLo, uniqueHi, errno.EAGAIN);
    }
  }

  /** Answers a GETLK. The truth matters: SQLite asks who holds byte 128 of -shm. */
  get(
    request: FuseRequest,
    node: LockableNode | undefined,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    type: number,
  ): void {
    const { uniqueLo, uniqueHi } = request;
    const lock = node?.locks.conflict(ownerLo, ownerHi, false, start, end, type);
    if (lock === undefined) this.replies.replyLock(uniqueLo, uniqueHi, F_UNLCK, start, end, 0);
    else this.replies.replyLock(uniqueLo, uniqueHi, lock.type, lock.start, lock.end, lock.pid);
  }

  /** A descriptor was closed, perhaps by a dying process: POSIX ends all its locks on the file. */
  ownerCloses(node: LockableNode, ownerLo: number, ownerHi: number): void {
    const { locks } = node;
    if (locks.size === 0 && this.#waiters.size === 0) return;
    // A process that dies between its commit frame and the wal-index leaves the rest to us.
    const isShm = node.type === "file" && node.kind === "shm";
    if (isShm && locks.ownerHoldsWrite(ownerLo, ownerHi, WAL_WRITE_LOCK)) this.#finish(node.entry);
    this.#waiters.cancelOwner(ownerLo, ownerHi, node, (u, v) =>
      this.replies.replyError(u, v, errno.EINTR),
    );
    if (locks.releaseOwner(ownerLo, ownerHi)) this.#lockReleased(node);
  }

  /** The last descriptor is gone, and with it the locks of the open file description. */
  handleCloses(node: LockableNode, fh: number): void {
    if (node.locks.releaseHandle(fh)) this.#lockReleased(node);
    else if (node.type === "file") node.entry.released();
  }

  interrupt(targetLo: number, targetHi: number): void {
    if (this.#waiters.cancel(targetLo, targetHi)) {
      this.replies.replyError(targetLo, targetHi, errno.EINTR);
    }
  }

  /** Whether some application holds SQLite's write lock of the rollback modes. */
  isBeingWritten(node: FileNode): boolean {
    return node.locks.isWriteLocked(RESERVED_BYTE, SHARED_LAST);
  }

  #unlock(
    node: LockableNode,
    fh: number,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    pid: number,
  ): void {
    const { locks } = node;
    if (node.type === "plain") {
      locks.set(ownerLo, ownerHi, fh, pid, start, end, F_UNLCK);
      this.#lockReleased(node);
      return;
    }
    const { entry, kind } = node;
    if (kind === "shm" && entry.db.suspect && start <= WAL_WRITE_LOCK && end >= WAL_WRITE_LOCK) {
      entry.db.suspect = false;
      this.#finish(entry);
    }
    locks.set(ownerLo, ownerHi, fh, pid, start, end, F_UNLCK);
    if (kind === "database" && !this.isBeingWritten(node)) {
      entry.db.endLooseWrites();
    }
    this.#lockReleased(node);
  }

  /**
   * On a replica: SQLite's write lock in either mode, and its EXCLUSIVE lock. Nobody needs that to
   * read, and under it nobody else could tell what he reads: `locking_mode=EXCLUSIVE` keeps the
   * wal-index in the memory of the process.
   */
  #isWriteIntent(node: FileNode, start: number, end: number): boolean {
    if (node.files !== node.entry.db.files) return false;
    if (node.kind === "shm") return start <= WAL_WRITE_LOCK && end >= WAL_WRITE_LOCK;
    return node.kind === "database" && start <= SHARED_LAST && end >= PENDING_BYTE;
  }

  /**
   * A replica grants SQLite's write lock in one case only: the first to open a database in WAL
   * mode must build the wal-index under it. A writer is told SQLITE_BUSY.
   */
  #decideReplicaWrite(
    request: FuseRequest,
    node: FileNode,
    fh: number,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    pid: number,
  ): void {
    const { uniqueLo, uniqueHi } = request;
    const refuse = (): void => this.replies.replyError(uniqueLo, uniqueHi, errno.EAGAIN);
    if (node.kind !== "shm" || node.entry.local.isPublished) {
      refuse();
      return;
    }
    node.entry.db.kernel.retrieve("shm", 0, WAL_INDEX_PREFIX_SIZE, (data) => {
      const isInitialised = data !== undefined && decodeWalIndexHeaderPair(data, 0) !== undefined;
      const { locks } = node;
      if (isInitialised || locks.conflict(ownerLo, ownerHi, false, start, end, F_WRLCK)) {
        refuse();
        return;
      }
      locks.set(ownerLo, ownerHi, fh, pid, start, end, F_WRLCK);
      this.replies.replyEmpty(uniqueLo, uniqueHi);
    });
  }

  #lockReleased(node: LockableNode): void {
    if (this.#waiters.size > 0) {
      this.#waiters.retry(node, (u, v) => this.replies.replyEmpty(u, v));
    }
    if (node.type === "file") node.entry.released();
  }

  /** Publishes captured transactions that SQLite never entered into the wal-index. */
  #finish(entry: DatabaseEntry): void {
    if (!this.#isPrimary() || entry.db.store.frames.count === 0) return;
    entry.local.forgetIndex();
    entry.enqueue(
      function* () {
        while (!entry.tryLock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK)) {
          yield (resume) => entry.whenReleased(resume);
        }
        try {
          yield* entry.local.publish();
        } finally {
          entry.local.forgetIndex();
          entry.unlock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK);
        }
      },
      () => undefined,
      (error) => entry.db.quarantine(`cannot finish a commit: ${String(error)}`),
    );
  }
}
