import type { Database } from "../database/database.ts";
import type { DatabaseFiles, FileKind } from "../database/database-files.ts";
import type { DaemonLocks, Job } from "../database/host.ts";
import { runJob } from "../database/host.ts";
import type { Position } from "../lib/position.ts";
import { LocalWal } from "../database/local-wal.ts";
import { F_RDLCK, F_UNLCK, F_WRLCK } from "../fuse/constants.ts";
import { SHARED_FIRST, SHARED_LAST, WAL_DMS_LOCK } from "../sqlite/locks.ts";
import { DAEMON_FH } from "./lock-table.ts";
import type { LockTable } from "./lock-table.ts";
import { readAccess } from "./shown-access.ts";
import type { ShownAccess } from "./shown-access.ts";
import { WriteTurns } from "./write-turns.ts";
import type { WriteTurnsHost } from "./write-turn-kinds.ts";

/** One file of a database as the kernel knows it. */
export interface FileNode {
  readonly type: "file";
  readonly id: number;
  readonly entry: DatabaseEntry;
  readonly kind: FileKind;
  /** The files it belongs to; a dropped and recreated database has new ones. */
  readonly files: DatabaseFiles;
  readonly locks: LockTable;
  /** References the kernel holds. */
  lookups: number;
  /** Open descriptors of applications. */
  opens: number;
  /** Its name is gone; what is still written to it nobody can read again. */
  isUnlinked: boolean;
}

/** For databases of which no other node is told. */
const noTurns: WriteTurnsHost = {
  isPrimary: () => true,
  isHeldBack: () => false,
  answer: () => undefined,
  tell: () => undefined,
};

/**
 * A database in the mount: the engine's part, the nodes through which the kernel reaches it, the
 * daemon's share in its locks, and the queue of work on it.
 */
export class DatabaseEntry implements DaemonLocks {
  readonly db: Database;
  #turns: WriteTurns | undefined;
  readonly #turnsHost: WriteTurnsHost;
  #local: LocalWal | undefined;
  // Made when first needed: of thousands of databases most are at rest.
  #nodes: Map<FileKind, FileNode> | undefined;
  #waiting: (() => void)[] | undefined;
  readonly #queue: (() => void)[] = [];
  /** Files on which the daemon holds a lock. */
  #locked: Set<FileNode> | undefined;
  #running = false;
  #access: ShownAccess | undefined;
  #accessOf: DatabaseFiles | undefined;
  /** Where the database stood when the running job began. */
  #positionBefore: Position | undefined;
  readonly #newNode: (entry: DatabaseEntry, kind: FileKind) => FileNode;

  constructor(
    db: Database,
    newNode: (entry: DatabaseEntry, kind: FileKind) => FileNode,
    turns: WriteTurnsHost = noTurns,
  ) {
    this.db = db;
    this.#turnsHost = turns;
    this.#newNode = newNode;
  }

  /** Permissions and owner that are shown for all files of the database. */
  get access(): ShownAccess {
    if (this.#access === undefined || this.#accessOf !== this.db.files) this.forgetAccess();
    return (this.#access ??= readAccess(this.db.files.pathOf("database")));
  }
  forgetAccess(): void {
    this.#access = undefined;
    this.#accessOf = this.db.files;
  }

  /** Whose turn it is to write. */
  get turns(): WriteTurns {
    this.#turns ??= new WriteTurns(this, this.#turnsHost);
    return this.#turns;
  }

  /** Whether somebody who was told SQLITE_BUSY may come back to write. */
  get isWriterExpected(): boolean {
    return this.#turns?.door.isAnyoneExpected === true;
  }

  roleChanged(): void {
    this.#turns?.roleChanged();
  }

  /** This node's own writes to the WAL. */
  get local(): LocalWal {
    this.#local ??= new LocalWal(this.db, this);
    return this.#local;
  }

  /** The wal-index was truncated or created anew by somebody else. */
  forgetIndex(): void {
    this.#local?.forgetIndex();
  }

  get nodes(): Map<FileKind, FileNode> {
    this.#nodes ??= new Map<FileKind, FileNode>();
    return this.#nodes;
  }

  /** Gives back what nobody needs while nobody has the database open. */
  rest(): void {
    this.db.rest();
    if (this.#nodes?.size === 0) this.#nodes = undefined;
    if (this.#locked?.size === 0) this.#locked = undefined;
    // What it knows of the wal-index is worth nothing without a WAL.
    if (this.db.store.frames.count === 0) this.#local = undefined;
  }

  /** The node of a file, made when it is first asked for. */
  node(kind: FileKind): FileNode {
    const existing = this.#nodes?.get(kind);
    if (existing !== undefined && existing.files === this.db.files) return existing;
    const node = this.#newNode(this, kind);
    this.nodes.set(kind, node);
    return node;
  }

  // The daemon's locks.

  tryLock(kind: "database" | "shm", first: number, last: number): boolean {
    const node = this.node(kind);
    const { locks } = node;
    if (locks.conflict(0, 0, true, first, last, F_WRLCK) !== undefined) {
      if (kind === "database") this.turns.makeWay();
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
    }
    this.released();
  }

  joinIndex(): "joined" | "alone" | "none" {
    const node = this.node("shm");
    const { locks } = node;
    if (locks.isLockedFor(F_WRLCK, WAL_DMS_LOCK, WAL_DMS_LOCK)) return "none";
    locks.set(0, 0, DAEMON_FH, process.pid, WAL_DMS_LOCK, WAL_DMS_LOCK, F_RDLCK);
    this.#locked ??= new Set<FileNode>();
    this.#locked.add(node);
    return locks.isLockedFor(F_RDLCK, WAL_DMS_LOCK, WAL_DMS_LOCK) ? "joined" : "alone";
  }

  leaveIndex(): void {
    this.unlock("shm", WAL_DMS_LOCK, WAL_DMS_LOCK);
  }

  isHeldExclusively(): boolean {
    const node = this.nodes.get("database");
    if (node?.files !== this.db.files) return false;
    return node.locks.isWriteLocked(SHARED_FIRST, SHARED_LAST);
  }

  whenReleased(then: () => void): void {
    this.#waiting ??= [];
    this.#waiting.push(then);
  }

  openCount(kind: FileKind | "any"): number {
    let count = 0;
    for (const node of this.nodes.values()) {
      // Whoever has files open that were dropped or given up has nothing of this database.
      const counts = (kind === "any" || node.kind === kind) && node.files === this.db.files;
      if (counts) count += node.opens;
    }
    return count;
  }

  /** Some lock was released: whoever waits may try again. */
  released(): void {
    this.#turns?.noticeLeaving();
    const waiting = this.#waiting;
    this.#waiting = undefined;
    for (const then of waiting ?? []) then();
    this.#turns?.serve();
  }

  /** Runs jobs on this database one after the other, in the order they came. */
  enqueue<T>(job: () => Job<T>, done: (result: T) => void, failed: (error: unknown) => void): void {
    this.#queue.push(() =>
      runJob(
        job(),
        (result) => this.#ended(() => done(result)),
        (error) => this.#ended(() => failed(error)),
      ),
    );
    if (!this.#running) this.#next();
  }

  /** Nothing runs while the outcome is reported, and whatever becomes of that, the next one runs. */
  #ended(report: () => void): void {
    this.#running = false;
    try {
      report();
    } finally {
      if (!this.#running) this.#next();
      // It may have brought the database to where somebody waits for it to be.
      this.#turns?.serve();
    }
  }

  get isBusy(): boolean {
    return this.#running || this.#queue.length > 0;
  }

  /**
   * The position that every reader of the mount sees. A job that applies transactions moves the
   * database first, and has shown them to all readers when it is done.
   */
  get visiblePosition(): Position {
    return this.#positionBefore ?? this.db.position;
  }

  #next(): void {
    const next = this.#queue.shift();
    this.#running = next !== undefined;
    this.#positionBefore = this.#running ? this.db.position : undefined;
    next?.();
  }
}
