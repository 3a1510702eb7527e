import type { IndexUse } from "../database/host.ts";
import { F_RDLCK, F_UNLCK, F_WRLCK } from "../fuse/constants.ts";
import { SHARED_FIRST, SHARED_LAST, WAL_DMS_LOCK } from "../sqlite/locks.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import { DAEMON_FH } from "./lock-table.ts";

/** The daemon's part in the locks of one database's files. */
export interface EntryLocks {
  tryLock(kind: "database" | "shm", first: number, last: number): boolean;
  unlock(kind: "database" | "shm", first: number, last: number): void;
  joinIndex(): IndexUse;
  leaveIndex(): void;
  isHeldExclusively(): boolean;
  /** Somebody waits for a lock of an application: `DatabaseEntry.released` is to be called. */
  watch(): void;
  /** Gives back what nobody needs. */
  rest(): void;
}

/** Where every lock of an application is in our own table. */
export class TableLocks implements EntryLocks {
  readonly #entry: DatabaseEntry;
  readonly #unlocked: (node: FileNode) => void;
  /** Files on which the daemon holds a lock. */
  #locked: Set<FileNode> | undefined;

  constructor(entry: DatabaseEntry, unlocked: (node: FileNode) => void) {
    this.#entry = entry;
    this.#unlocked = unlocked;
  }

  rest(): void {
    if (this.#locked?.size === 0) this.#locked = undefined;
  }

  tryLock(kind: "database" | "shm", first: number, last: number): boolean {
    const node = this.#entry.node(kind);
    const { locks } = node;
    if (locks.conflict(0, 0, true, first, last, F_WRLCK) !== undefined) {
      if (kind === "database") this.#entry.turns.makeWay();
      return false;
    }
    locks.set(0, 0, DAEMON_FH, process.pid, first, last, F_WRLCK);
    this.#locked ??= new Set<FileNode>();
    this.#locked.add(node);
    return true;
  }

  unlock(kind: "database" | "shm", first: number, last: number): void {
    // By now the name may belong to another file; whoever has the old one open waits for it.
    for (const node of this.#locked ?? []) {
      if (node.kind !== kind) continue;
      node.locks.set(0, 0, DAEMON_FH, process.pid, first, last, F_UNLCK);
      if (!node.locks.isDaemonLocked) this.#locked?.delete(node);
      this.#unlocked(node);
    }
  }

  joinIndex(): IndexUse {
    const node = this.#entry.node("shm");
    const { locks } = node;
    if (!locks.isLockedFor(F_RDLCK, WAL_DMS_LOCK, WAL_DMS_LOCK)) return "none";
    locks.set(0, 0, DAEMON_FH, process.pid, WAL_DMS_LOCK, WAL_DMS_LOCK, F_RDLCK);
    this.#locked ??= new Set<FileNode>();
    this.#locked.add(node);
    return "joined";
  }

  leaveIndex(): void {
    this.unlock("shm", WAL_DMS_LOCK, WAL_DMS_LOCK);
  }

  isHeldExclusively(): boolean {
    const { db, nodes } = this.#entry;
    const node = nodes.get("database");
    if (node?.files !== db.files) return false;
    return node.locks.isWriteLocked(SHARED_FIRST, SHARED_LAST);
  }

  /** Every release is a request. */
  watch(): void {
    return;
  }
}
