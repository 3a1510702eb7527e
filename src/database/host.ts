import type { Logger } from "../lib/log.ts";
import type { KeepAsideLimits } from "./keep-aside.ts";
import type { DatabaseFiles, FileKind } from "./database-files.ts";
import type { SyncHost } from "./replica-waits.ts";

/** What the databases of a node share; owned by the mount thread. */
export interface DatabaseHost {
  isPrimary(): boolean;
  /**
   * Whether commits are accepted at this very moment: on the primary, while its lease covers them.
   * Checked at every commit point.
   */
  mayCommit(): boolean;
  /**
   * Another number after anything by which the history may have forked: a start, or a change of this
   * node's role or of whom it follows.
   */
  historyEpoch(): number;
  readonly nodeId: bigint;
  nowMs(): number;
  readonly logger: Logger;
  /** How much of what was replaced is kept beside each database. */
  readonly keepAside: KeepAsideLimits;
  /** The position of a database has moved, or its status has changed. */
  changed(name: string): void;
  /** Set when commits wait for replicas. */
  readonly sync?: SyncHost | undefined;
  /** A dropped database's files: to be closed when nobody has them open any more. */
  retired(files: DatabaseFiles): void;
}

/**
 * The kernel's cache of a database's files in the mount. The engine says what has changed behind
 * the kernel's back; the notifications are written in order by another thread, because they wait
 * for pages that only this thread can unlock.
 */
export interface KernelCache {
  /** Cached data of the range and the cached size are stale. `lengthBytes` 0 means to the end. */
  invalidate(kind: FileKind, offsetBytes: number, lengthBytes: number): void;
  /** These bytes are now in the file; puts them into the kernel's cache. The bytes are copied. */
  store(kind: FileKind, offsetBytes: number, data: Uint8Array): void;
  /**
   * The same for bytes within the file that mean nothing to anybody yet: they may arrive together with
   * what was stored just before and of what is stored like this next, in any order.
   */
  storeAhead(kind: FileKind, offsetBytes: number, data: Uint8Array): void;
  /** The name has appeared or vanished. */
  invalidateName(kind: FileKind): void;
  /** Bytes of a file as its mappings show them now; undefined when the kernel caches none. */
  retrieve(
    kind: FileKind,
    offsetBytes: number,
    lengthBytes: number,
    then: (data: Uint8Array | undefined) => void,
  ): void;
  /** Calls back once everything queued before has reached the kernel. */
  settled(then: () => void): void;
}

/** For databases that no mount shows. */
export const noKernelCache: KernelCache = {
  invalidate: () => undefined,
  store: () => undefined,
  storeAhead: () => undefined,
  invalidateName: () => undefined,
  retrieve: (_kind, _offset, _length, then) => then(undefined),
  settled: (then) => then(),
};

/**
 * "joined": applications use the wal-index. "none": no lock was taken, because nobody uses it, and what
 * it shows means nothing, or because somebody is about to build it.
 */
export type IndexUse = "joined" | "none";

/**
 * The daemon as one more process among those that lock a database's files. What it takes is held
 * against applications, and what they hold is respected. Ranges are SQLite's lock bytes, inclusive.
 */
export interface DaemonLocks {
  /** Takes an exclusive lock; false when somebody is in the way. */
  tryLock(kind: "database" | "shm", first: number, last: number): boolean;
  unlock(kind: "database" | "shm", first: number, last: number): void;
  /**
   * Takes part in the wal-index as a connection does, by a shared lock of the "dead man's switch":
   * whoever opens the database meanwhile does not cut the wal-index down to build it anew. So only where
   * somebody has it already: otherwise he would take for good what others left behind long ago.
   */
  joinIndex(): IndexUse;
  leaveIndex(): void;
  /** Whether an application has the database file to itself: SQLite's EXCLUSIVE lock. */
  isHeldExclusively(): boolean;
  /** Calls back after any application has given up a lock or closed a file of this database. */
  whenReleased(then: () => void): void;
  /** How many descriptors of applications are open on a file of this database. */
  openCount(kind: FileKind | "any"): number;
}

/** For databases that no mount shows: nobody is ever in the way. */
export const noLocks: DaemonLocks = {
  tryLock: () => true,
  unlock: () => undefined,
  joinIndex: () => "none",
  leaveIndex: () => undefined,
  isHeldExclusively: () => false,
  whenReleased: (then) => then(),
  openCount: () => 0,
};

/**
 * A piece of work that must wait in between: it yields what starts the wait and is told when to go
 * on. Between two yields nothing else touches any database.
 */
export type Wait = (resume: () => void) => void;
export type Job<T> = Generator<Wait, T, void>;

/** Runs a job from here on; `done` gets its result, `failed` what it threw. */
export function runJob<T>(
  job: Job<T>,
  done: (result: T) => void,
  failed: (error: unknown) => void,
): void {
  let next = (): IteratorResult<Wait, T> => job.next();
  const run = (): void => {
    for (;;) {
      let result: IteratorResult<Wait, T>;
      try {
        result = next();
      } catch (error) {
        failed(error);
        return;
      }
      if (result.done === true) {
        done(result.value);
        return;
      }
      next = () => job.next();
      // A wait that is over at once must not grow the stack.
      let isOver = false;
      let isStarting = true;
      try {
        result.value(() => {
          if (isOver) return;
          isOver = true;
          if (!isStarting) run();
        });
      } catch (error) {
        // The wait will never end: the job learns of it, and gives its locks back.
        isOver = true;
        next = () => job.throw(error);
      }
      isStarting = false;
      if (!isOver) return;
    }
  };
  run();
}
