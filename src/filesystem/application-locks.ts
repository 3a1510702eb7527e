import {
  PENDING_BYTE,
  RESERVED_BYTE,
  SHARED_FIRST,
  SHARED_LAST,
  WAL_CKPT_LOCK,
  WAL_READ0_LOCK,
  WAL_READ4_LOCK,
  WAL_WRITE_LOCK,
} from "../sqlite/locks.ts";
import { decodeWalIndexHeaderPair, WAL_INDEX_PREFIX_SIZE } from "../sqlite/wal-index-header.ts";
import { F_RDLCK, F_UNLCK, F_WRLCK } from "../fuse/constants.ts";
import * as errno from "../fuse/errno.ts";
import type { FuseReplies } from "../fuse/replies.ts";
import type { FuseRequest } from "../fuse/request.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import { LockWaiters } from "./lock-waiters.ts";
import type { LockRequest, MountLocks, RequestId } from "./mount-locks.ts";
import type { LockableNode } from "./nodes.ts";
import { SiblingThreads } from "./sibling-threads.ts";
import type { Knock, TurnAnswer, TurnRequest } from "./write-turn-kinds.ts";
import { isBeingWritten, isWriting } from "./write-door.ts";
import { WriteGate } from "./write-gate.ts";

/** What decides over writers. */
export interface WritePolicy {
  isPrimary(): boolean;
  mayCommit(): boolean;
  /** Whether an application holds SQLite's write lock on any database, or has begun to write. */
  isAnyoneWriting(): boolean;
}

const isKnock = true;

/**
 * The fcntl locks of applications, kept by this daemon: every request comes here. Whose turn it is
 * to take SQLite's write lock, when other nodes write as well, is decided in WriteTurns.
 */
export class ApplicationLocks implements MountLocks {
  readonly #waiters = new LockWaiters();
  /** Requests that wait for their turn to write. */
  readonly #turns = new Set<TurnRequest>();
  readonly #host: WritePolicy;
  readonly #gate = new WriteGate();
  readonly #threads = new SiblingThreads();
  /** Set when the session begins. */
  replies!: FuseReplies;

  constructor(host: WritePolicy) {
    this.#host = host;
  }

  /** Holds back new writers; calls back once there is none left. */
  pauseWrites(whenQuiet: () => void): void {
    this.#gate.close(whenQuiet);
    this.checkQuiet();
  }

  get isHoldingBack(): boolean {
    return this.#gate.isClosed;
  }

  /** Those held back are decided by what this node is now. */
  resumeWrites(): void {
    this.#gate.open();
  }

  /** Answers a SETLK or, with `wait`, a SETLKW, perhaps later. */
  set(
    request: LockRequest,
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
    const { uniqueLo, uniqueHi, pid: thread } = request;
    const { locks } = node;
    if (type === F_UNLCK) {
      this.#unlock(node, fh, ownerLo, ownerHi, start, end, pid);
      this.replies.replyEmpty(uniqueLo, uniqueHi);
      return;
    }
    this.#threads.note(ownerLo, thread);
    if (type === F_WRLCK && node.type === "file") {
      const intent = this.#intent(node, start, end);
      if (intent !== "other" && !this.#hasBegun(node, ownerLo, ownerHi)) {
        if (this.#gate.isClosed) {
          this.#hold(request, node, fh, ownerLo, ownerHi, start, end, pid, wait);
          return;
        }
        // Refused here rather than at the commit, while the lease of this primary has run out.
        if (this.#host.isPrimary() && !this.#host.mayCommit()) {
          this.replies.replyError(uniqueLo, uniqueHi, errno.EAGAIN);
          return;
        }
      }
      if (intent === "exclusive" && this.#isElsewhere(node, ownerLo, ownerHi)) {
        this.replies.replyError(uniqueLo, uniqueHi, errno.EAGAIN);
        return;
      }
      if (intent === "write" && !this.#isFree(node.entry)) {
        if (this.#isCheckpointing(node, ownerLo, ownerHi)) {
          this.replies.replyError(uniqueLo, uniqueHi, errno.EAGAIN);
          return;
        }
        const sinceMs = performance.now();
        const hasSiblings = this.#threads.has(ownerLo);
        const owner = { fh, ownerLo, ownerHi, pid, thread, hasSiblings };
        this.#takeTurn({ uniqueLo, uniqueHi, node, ...owner, start, end, type, sinceMs });
        return;
      }
      if (intent === "write" && node.kind === "shm") node.entry.local.forgetIndex();
    }
    if (node.type === "file" && type === F_RDLCK && this.#isAtDoor(node, start, end)) {
      const sinceMs = performance.now();
      const hasSiblings = this.#threads.has(ownerLo);
      const owner = { fh, ownerLo, ownerHi, pid, thread, hasSiblings };
      const knock: Knock = {
        uniqueLo,
        uniqueHi,
        node,
        ...owner,
        start,
        end,
        type,
        sinceMs,
        isKnock,
      };
      this.#turns.add(knock);
      if (!node.entry.requests.knock(knock)) return;
      this.#turns.delete(knock);
    }
    if (locks.conflict(ownerLo, ownerHi, false, start, end, type) === undefined) {
      locks.set(ownerLo, ownerHi, fh, pid, start, end, type);
      this.replies.replyEmpty(uniqueLo, uniqueHi);
    } else if (wait || this.#isShut(node, start, type)) {
      const sinceMs = performance.now();
      const owner = { fh, ownerLo, ownerHi, pid };
      this.#waiters.add({ uniqueLo, uniqueHi, node, ...owner, start, end, type, sinceMs });
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
  ownerCloses(
    _request: FuseRequest,
    node: LockableNode,
    ownerLo: number,
    ownerHi: number,
    then: () => void,
  ): void {
    this.#ownerCloses(node, ownerLo, ownerHi);
    then();
  }

  #ownerCloses(node: LockableNode, ownerLo: number, ownerHi: number): void {
    const { locks } = node;
    if (locks.size === 0 && this.#waiters.size === 0 && this.#turns.size === 0) return;
    // A process that dies between its commit frame and the wal-index leaves the rest to us.
    const isShm = node.type === "file" && node.kind === "shm";
    if (isShm && locks.ownerHoldsWrite(ownerLo, ownerHi, WAL_WRITE_LOCK, WAL_WRITE_LOCK))
      this.#finish(node.entry);
    this.#waiters.cancelOwner(ownerLo, ownerHi, node, (u, v) =>
      this.replies.replyError(u, v, errno.EINTR),
    );
    const turn = this.#cancelTurn(
      (lock) => lock.node === node && lock.ownerLo === ownerLo && lock.ownerHi === ownerHi,
    );
    if (turn !== undefined) this.replies.replyError(turn.uniqueLo, turn.uniqueHi, errno.EINTR);
    if (locks.releaseOwner(ownerLo, ownerHi)) this.#lockReleased(node);
  }

  /** The last descriptor is gone, and with it the locks of the open file description. */
  handleCloses(node: LockableNode, fh: number): void {
    if (node.locks.releaseHandle(fh)) this.#lockReleased(node);
    else if (node.type === "file") node.entry.released();
  }

  interrupt(targetLo: number, targetHi: number): void {
    if (
      this.#gate.cancel(targetLo, targetHi) ||
      this.#waiters.cancel(targetLo, targetHi) ||
      this.#cancelTurn((lock) => lock.uniqueLo === targetLo && lock.uniqueHi === targetHi)
    ) {
      this.replies.replyError(targetLo, targetHi, errno.EINTR);
    }
  }

  /** The answer to a request that had to wait for its turn to write. */
  answer(lock: TurnRequest, answer: TurnAnswer): void {
    const { uniqueLo, uniqueHi } = lock;
    this.#turns.delete(lock);
    if (answer === "granted") this.replies.replyEmpty(uniqueLo, uniqueHi);
    else this.replies.replyError(uniqueLo, uniqueHi, errno.EAGAIN);
  }

  #cancelTurn(matches: (lock: TurnRequest) => boolean): TurnRequest | undefined {
    for (const lock of this.#turns) {
      if (!matches(lock)) continue;
      this.#turns.delete(lock);
      lock.node.entry.requests.cancel(lock);
      return lock;
    }
    return undefined;
  }

  /** Whether some application holds SQLite's write lock of the rollback modes. */
  isBeingWritten(node: FileNode): boolean {
    return isBeingWritten(node);
  }

  isWriting(entry: DatabaseEntry): boolean {
    return isWriting(entry);
  }

  // What only matters where the kernel keeps the locks.

  lookup(): boolean {
    return false;
  }
  isOwn(): boolean {
    return false;
  }
  opens(_request: RequestId, _node: FileNode, answer: (errno: number) => void): void {
    answer(0);
  }
  adopted(): void {
    return;
  }
  changed(): void {
    return;
  }
  woken(): void {
    return;
  }
  release(then: () => void): void {
    then();
  }

  #hold(
    request: LockRequest,
    node: FileNode,
    fh: number,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    pid: number,
    wait: boolean,
  ): void {
    const { uniqueLo, uniqueHi, pid: thread } = request;
    // The request's buffer belongs to the next one by then; its number is all that is needed of it.
    const again = { uniqueLo, uniqueHi, pid: thread };
    const decide = (): void =>
      this.set(again, node, fh, ownerLo, ownerHi, start, end, F_WRLCK, pid, wait);
    this.#gate.hold({ uniqueLo, uniqueHi, decide });
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
    if (kind === "database" && !isBeingWritten(node)) {
      entry.db.endLooseWrites();
    }
    this.#lockReleased(node);
  }

  /** Nobody else has the right to write, and it is not that nobody may. */
  #isFree({ db, requests }: DatabaseEntry): boolean {
    return this.#host.isPrimary() && !requests.isContended && !db.isFenced;
  }

  /**
   * A reader comes while this daemon has the database to itself, to take back what a dead writer has left
   * or to apply a transaction. That is soon over, and without a `busy_timeout` he would not come again.
   * While it still waits for other readers, nobody knows how long that takes.
   */
  #isShut(node: LockableNode, start: number, type: number): boolean {
    const isReader = type === F_RDLCK && start === PENDING_BYTE;
    if (!isReader || node.type !== "file" || node.kind !== "database") return false;
    return node.locks.isHeldByDaemon(SHARED_FIRST, SHARED_LAST);
  }

  /** A lock was given up, by an application or by this daemon: who waits for it may have it. */
  serveWaiters(node: LockableNode): void {
    if (this.#waiters.size === 0) return;
    this.#waiters.retry(node, (u, v) => this.replies.replyEmpty(u, v));
  }

  /** The first read lock of a transaction, while somebody is expected who may want to write in it. */
  #isAtDoor(node: FileNode, start: number, end: number): boolean {
    if (!node.entry.isWriterExpected || node.files !== node.entry.db.files) return false;
    return node.kind === "shm"
      ? start >= WAL_READ0_LOCK && end <= WAL_READ4_LOCK
      : node.kind === "database" && start === PENDING_BYTE;
  }

  /** The right to write is with another node, and none of it with this owner. */
  #isElsewhere(node: FileNode, ownerLo: number, ownerHi: number): boolean {
    if (this.#host.isPrimary()) return node.entry.turns.loan !== undefined;
    return !node.locks.ownerHoldsWrite(ownerLo, ownerHi, RESERVED_BYTE, RESERVED_BYTE);
  }

  /** Who wants the write lock only to finish a checkpoint does not trouble other nodes for it. */
  #isCheckpointing(node: FileNode, ownerLo: number, ownerHi: number): boolean {
    return (
      node.kind === "shm" &&
      node.locks.ownerHoldsWrite(ownerLo, ownerHi, WAL_CKPT_LOCK, WAL_CKPT_LOCK)
    );
  }

  /** An owner goes on who has a write lock already: in a rollback mode he needs several. */
  #hasBegun({ kind, locks }: FileNode, ownerLo: number, ownerHi: number): boolean {
    return kind === "shm"
      ? locks.ownerHoldsWrite(ownerLo, ownerHi, WAL_WRITE_LOCK, WAL_WRITE_LOCK)
      : locks.ownerHoldsWrite(ownerLo, ownerHi, PENDING_BYTE, SHARED_LAST);
  }

  /**
   * What a lock is for: SQLite's write lock in either mode, or its EXCLUSIVE lock, which a writer
   * takes besides. Nobody needs that to read, and under it nobody else could tell what he reads:
   * `locking_mode=EXCLUSIVE` keeps the wal-index in the memory of the process.
   */
  #intent(node: FileNode, start: number, end: number): "write" | "exclusive" | "other" {
    if (node.files !== node.entry.db.files) return "other";
    if (node.kind === "shm") {
      return start <= WAL_WRITE_LOCK && end >= WAL_WRITE_LOCK ? "write" : "other";
    }
    if (node.kind !== "database" || start > SHARED_LAST || end < PENDING_BYTE) return "other";
    return start <= RESERVED_BYTE && end >= RESERVED_BYTE ? "write" : "exclusive";
  }

  /**
   * The lock is another node's to give, in all cases but one: the first to open a database in WAL
   * mode builds the wal-index under it, and writes nothing.
   */
  #takeTurn(lock: TurnRequest): void {
    const { node } = lock;
    const { local, turns } = node.entry;
    if (node.kind !== "shm" || local.isPublished || turns.hasRight) {
      this.#enqueueTurn(lock);
      return;
    }
    this.#turns.add(lock);
    node.entry.db.kernel.retrieve("shm", 0, WAL_INDEX_PREFIX_SIZE, (data) => {
      // Interrupted in the meantime.
      if (!this.#turns.has(lock)) return;
      const isInitialised = data !== undefined && decodeWalIndexHeaderPair(data, 0) !== undefined;
      const { locks } = node;
      const { fh, ownerLo, ownerHi, start, end, pid } = lock;
      if (isInitialised || locks.conflict(ownerLo, ownerHi, false, start, end, F_WRLCK)) {
        this.#enqueueTurn(lock);
        return;
      }
      locks.set(ownerLo, ownerHi, fh, pid, start, end, F_WRLCK);
      this.answer(lock, "granted");
    });
  }

  #enqueueTurn(lock: TurnRequest): void {
    this.#turns.add(lock);
    const answer = lock.node.entry.requests.request(lock);
    if (answer !== undefined) this.answer(lock, answer);
  }

  #lockReleased(node: LockableNode): void {
    this.serveWaiters(node);
    if (node.type === "file") node.entry.released();
    this.checkQuiet();
  }

  /** Somebody may have ended what he was writing. */
  checkQuiet(): void {
    if (this.#gate.isWaitingForQuiet && !this.#host.isAnyoneWriting()) this.#gate.quiet();
  }

  /** Publishes captured transactions that SQLite never entered into the wal-index. */
  #finish(entry: DatabaseEntry): void {
    if (entry.db.store.frames.count === 0) return;
    entry.forgetIndex();
    entry.enqueue(
      function* () {
        while (!entry.tryLock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK)) {
          yield (resume) => entry.whenReleased(resume);
        }
        try {
          yield* entry.local.publish();
        } finally {
          entry.forgetIndex();
          entry.unlock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK);
        }
      },
      () => undefined,
      (error) => entry.db.quarantine(`cannot finish a commit: ${String(error)}`),
    );
  }
}
