import { F_RDLCK, F_UNLCK, F_WRLCK } from "../fuse/constants.ts";

/** One POSIX record lock. Ranges are inclusive. */
export interface Lock {
  readonly ownerLo: number;
  readonly ownerHi: number;
  /** The descriptor it was taken through; -1 for the daemon. */
  readonly fh: number;
  readonly pid: number;
  start: number;
  end: number;
  type: number;
}

/** Descriptor that stands for the daemon's own locks. */
export const DAEMON_FH = -1;

/**
 * The fcntl locks of one file, as POSIX defines them: an owner's new lock replaces his old ones in
 * the range, different owners conflict unless both read. A request is granted as a whole or not at
 * all. A handful of locks per file, so a list is the fastest structure.
 */
export class LockTable {
  readonly #locks: Lock[] = [];

  get size(): number {
    return this.#locks.length;
  }

  get isDaemonLocked(): boolean {
    return this.#locks.some((lock) => lock.fh === DAEMON_FH);
  }

  /** Whether the daemon holds a lock on any byte of a range. */
  isHeldByDaemon(start: number, end: number): boolean {
    return this.#locks.some(
      (lock) => lock.fh === DAEMON_FH && lock.start <= end && lock.end >= start,
    );
  }

  /** A lock of another owner that is in the way, or undefined. */
  conflict(
    ownerLo: number,
    ownerHi: number,
    isDaemon: boolean,
    start: number,
    end: number,
    type: number,
  ): Lock | undefined {
    for (const lock of this.#locks) {
      if (lock.start > end || lock.end < start) continue;
      if (type === F_RDLCK && lock.type === F_RDLCK) continue;
      if (sameOwner(lock, ownerLo, ownerHi, isDaemon)) continue;
      return lock;
    }
    return undefined;
  }

  /** Grants a lock that has no conflict, or releases. */
  set(
    ownerLo: number,
    ownerHi: number,
    fh: number,
    pid: number,
    start: number,
    end: number,
    type: number,
  ): void {
    this.#clear(ownerLo, ownerHi, fh === DAEMON_FH, start, end);
    if (type !== F_UNLCK) this.#locks.push({ ownerLo, ownerHi, fh, pid, start, end, type });
  }

  /** Releases everything an owner holds; returns whether there was anything. */
  releaseOwner(ownerLo: number, ownerHi: number): boolean {
    return this.#remove((lock) => sameOwner(lock, ownerLo, ownerHi, false));
  }

  /**
   * Releases what was taken through a descriptor that is gone. Open-file-description locks end
   * here: their owner never appears in a FLUSH.
   */
  releaseHandle(fh: number): boolean {
    return this.#remove((lock) => lock.fh === fh);
  }

  /** Whether an owner holds a write lock on any byte of a range. */
  ownerHoldsWrite(ownerLo: number, ownerHi: number, start: number, end: number): boolean {
    return this.#locks.some(
      (lock) =>
        lock.type === F_WRLCK &&
        lock.start <= end &&
        lock.end >= start &&
        sameOwner(lock, ownerLo, ownerHi, false),
    );
  }

  /** Whether an owner holds a lock of any kind on a byte of a range. */
  ownerHoldsAny(ownerLo: number, ownerHi: number, start: number, end: number): boolean {
    return this.#locks.some(
      (lock) => lock.start <= end && lock.end >= start && sameOwner(lock, ownerLo, ownerHi, false),
    );
  }

  /** Whether any application holds a write lock in a range. */
  isWriteLocked(start: number, end: number): boolean {
    return this.isLockedFor(F_WRLCK, start, end);
  }

  /** Whether any application holds a lock of a kind in a range. */
  isLockedFor(type: number, start: number, end: number): boolean {
    return this.#locks.some(
      (lock) =>
        lock.type === type && lock.fh !== DAEMON_FH && lock.start <= end && lock.end >= start,
    );
  }

  #remove(matches: (lock: Lock) => boolean): boolean {
    let kept = 0;
    for (const lock of this.#locks) if (!matches(lock)) this.#locks[kept++] = lock;
    const removed = kept < this.#locks.length;
    this.#locks.length = kept;
    return removed;
  }

  /** Takes a range away from an owner, cutting and splitting his locks. */
  #clear(ownerLo: number, ownerHi: number, isDaemon: boolean, start: number, end: number): void {
    const locks = this.#locks;
    for (let i = locks.length - 1; i >= 0; i--) {
      const lock = locks[i];
      if (lock === undefined || lock.start > end || lock.end < start) continue;
      if (!sameOwner(lock, ownerLo, ownerHi, isDaemon)) continue;
      const before = lock.start < start;
      const after = lock.end > end;
      if (before && after) {
        locks.push({ ...lock, start: end + 1 });
        lock.end = start - 1;
      } else if (before) lock.end = start - 1;
      else if (after) lock.start = end + 1;
      else {
        const last = locks.pop();
        if (last !== undefined && last !== lock) locks[i] = last;
      }
    }
  }
}

function sameOwner(lock: Lock, ownerLo: number, ownerHi: number, isDaemon: boolean): boolean {
  if (isDaemon || lock.fh === DAEMON_FH) return isDaemon && lock.fh === DAEMON_FH;
  return lock.ownerLo === ownerLo && lock.ownerHi === ownerHi;
}
