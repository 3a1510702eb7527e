import type { IndexUse } from "../database/host.ts";
import { F_UNLCK, F_WRLCK } from "../fuse/constants.ts";
import { RESERVED_BYTE, SHARED_FIRST, SHARED_LAST, WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import type { EntryLocks } from "./entry-locks.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import { DAEMON_FH } from "./lock-table.ts";
import { DEAD_MAN, RESERVED, SHARED_RANGE, WRITE } from "./own-file.ts";
import type { OwnFile } from "./own-file.ts";

/** What the locks of one database need of those of the mount. */
export interface OwnFiles {
  /** The file as this process has it open; undefined while it has not. */
  find(node: FileNode): OwnFile | undefined;
  /** Opens it, because an application has it open although this process has not. */
  adopt(node: FileNode): void;
  watch(entry: DatabaseEntry): void;
  isPrimary(): boolean;
  /** Nobody has opened the wal-index before, or it may be torn: makes it what it should be. */
  checkIndex(entry: DatabaseEntry): void;
}

/** Keeps applications from writing. */
export interface Guard {
  /** Takes what it can; true when no application writes, and none can begin to. */
  take(): boolean;
  drop(): void;
  /** Whether an application holds SQLite's write lock, in either mode. */
  isAnyoneWriting(): boolean;
  watch(): void;
}

/**
 * Where the kernel keeps the locks, this process is one more of those that take them. While nobody
 * has a file open, nobody can be in the way: then locks are only noted, and whoever opens the file
 * waits until this process has it open as well and has them from the kernel.
 *
 * The guard keeps applications from writing: SQLite's write lock in WAL mode (WRITE) and in the
 * rollback modes (RESERVED). With a read lock (SHARED) nobody gets the database to himself either, to
 * remove its WAL or to leave WAL mode. With that of the "dead man's switch" (DEAD_MAN) nobody takes
 * himself for the first to open the wal-index, who would cut it and then need WRITE to build it.
 */
export class KernelEntryLocks implements EntryLocks, Guard {
  readonly #entry: DatabaseEntry;
  readonly #files: OwnFiles;
  /** Files on which a job holds a lock. */
  #locked: Set<FileNode> | undefined;
  /** See `joinIndex`. */
  #hasJoined = false;

  constructor(entry: DatabaseEntry, files: OwnFiles) {
    this.#entry = entry;
    this.#files = files;
  }

  rest(): void {
    if (this.#locked?.size === 0) this.#locked = undefined;
  }

  tryLock(kind: "database" | "shm", first: number, last: number): boolean {
    // Who has the database to himself may remove the WAL under us.
    if (kind === "shm" && this.#entry.turns.isGuarded && !this.take()) return false;
    const node = this.#entry.node(kind);
    const file = this.#files.find(node);
    if (file?.isOpen === true) {
      if (!file.tryLock(first, last)) return false;
    } else if (node.opens > 0) {
      this.#files.adopt(node);
      return false;
    }
    node.locks.set(0, 0, DAEMON_FH, process.pid, first, last, F_WRLCK);
    this.#locked ??= new Set<FileNode>();
    this.#locked.add(node);
    return true;
  }

  unlock(kind: "database" | "shm", first: number, last: number): void {
    // By now the name may belong to another file; whoever has the old one open waits for it.
    for (const node of this.#locked ?? []) {
      if (node.kind !== kind) continue;
      node.locks.set(0, 0, DAEMON_FH, process.pid, first, last, F_UNLCK);
      this.#files.find(node)?.restore(first, last);
      if (!node.locks.isDaemonLocked) this.#locked?.delete(node);
    }
  }

  joinIndex(): IndexUse {
    const file = this.#own("shm");
    if (file === undefined) return "none";
    // Under the guard whoever opens it takes it as it is, and could not build it anew.
    const isUsed = file.guards(DEAD_MAN) || file.isShared(DEAD_MAN);
    if (!isUsed || !file.guard(DEAD_MAN, "read")) return "none";
    this.#hasJoined = true;
    return "joined";
  }

  leaveIndex(): void {
    this.#hasJoined = false;
    if (!this.#entry.turns.isGuarded) this.#own("shm")?.unguard(DEAD_MAN);
  }

  isHeldExclusively(): boolean {
    const file = this.#own("database");
    if (file === undefined || file.guards(SHARED_RANGE)) return false;
    return file.writer(SHARED_FIRST, SHARED_LAST) !== undefined;
  }

  watch(): void {
    this.#files.watch(this.#entry);
  }

  // Guard.

  take(): boolean {
    const isFree = this.#isReady("database") && this.#takeDatabase(this.#own("database"));
    return this.#isReady("shm") && this.#takeIndex(this.#own("shm")) && isFree;
  }

  drop(): void {
    this.#own("database")?.unguardAll();
    const index = this.#own("shm");
    if (this.#hasJoined) index?.unguard(WRITE);
    else index?.unguardAll();
  }

  isAnyoneWriting(): boolean {
    return (
      this.#own("database")?.writer(RESERVED_BYTE, SHARED_LAST) !== undefined ||
      this.#own("shm")?.writer(WAL_WRITE_LOCK, WAL_WRITE_LOCK) !== undefined
    );
  }

  /** RESERVED first: who holds it needs readers to be gone when he commits. */
  #takeDatabase(file: OwnFile | undefined): boolean {
    if (file === undefined) return true;
    // A journal that is to be played back is overlooked by whoever finds RESERVED taken.
    const isUnsettled = this.#files.isPrimary() && this.#entry.db.hasOpenChanges;
    if (!isUnsettled && file.guard(RESERVED, "write")) return file.guard(SHARED_RANGE, "read");
    file.unguard(SHARED_RANGE);
    return false;
  }

  #takeIndex(file: OwnFile | undefined): boolean {
    if (file === undefined) return true;
    const wasGuarded = file.guards(WRITE);
    if (!file.guard(DEAD_MAN, "read") || !file.guard(WRITE, "write")) return false;
    if (!wasGuarded && file.node.opens > 0) this.#files.checkIndex(this.#entry);
    return true;
  }

  /** Whoever opens a file that nobody has open yet will find the guard. */
  #isReady(kind: "database" | "shm"): boolean {
    const node = this.#node(kind);
    if (node === undefined || node.opens === 0 || this.#files.find(node)?.isOpen === true) {
      return true;
    }
    this.#files.adopt(node);
    return false;
  }

  #own(kind: "database" | "shm"): OwnFile | undefined {
    const node = this.#node(kind);
    const file = node === undefined ? undefined : this.#files.find(node);
    return file?.isOpen === true ? file : undefined;
  }

  #node(kind: "database" | "shm"): FileNode | undefined {
    const node = this.#entry.nodes.get(kind);
    return node?.files === this.#entry.db.files ? node : undefined;
  }
}
