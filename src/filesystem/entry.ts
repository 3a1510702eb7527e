import type { Database } from "../database/database.ts";
import type { DatabaseFiles, FileKind } from "../database/database-files.ts";
import type { DaemonLocks, IndexUse, Job } from "../database/host.ts";
import { runJob } from "../database/host.ts";
import type { Position } from "../lib/position.ts";
import { LocalWal } from "../database/local-wal.ts";
import { assert } from "../lib/assert.ts";
import { LitefsError } from "../lib/errors.ts";
import { TableLocks } from "./entry-locks.ts";
import type { EntryLocks } from "./entry-locks.ts";
import type { LockTable } from "./lock-table.ts";
import { readAccess } from "./shown-access.ts";
import type { ShownAccess } from "./shown-access.ts";
import type { Turns } from "./turns.ts";
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

/** The parts of a database that depend on who keeps the locks. */
export interface EntryParts {
  readonly locks: EntryLocks;
  readonly turns: Turns;
}

/** For databases of which no other node is told. */
const noTurns: WriteTurnsHost = {
  isPrimary: () => true,
  isHeldBack: () => false,
  answer: () => undefined,
  unlocked: () => undefined,
  tell: () => undefined,
};

interface QueuedJob {
  start(): void;
  /** Reports that it failed without having begun; undefined where that must not be. */
  readonly abandon?: ((reason: Error) => void) | undefined;
}

/**
 * A database in the mount: the engine's part, the nodes through which the kernel reaches it, the
 * daemon's share in its locks, and the queue of work on it.
 */
export class DatabaseEntry implements DaemonLocks {
  readonly db: Database;
  #turns: Turns | undefined;
  readonly #turnsHost: WriteTurnsHost;
  #locks: EntryLocks | undefined;
  readonly #makeParts: ((entry: DatabaseEntry, host: WriteTurnsHost) => EntryParts) | undefined;
  #local: LocalWal | undefined;
  // Made when first needed: of thousands of databases most are at rest.
  #nodes: Map<FileKind, FileNode> | undefined;
  #waiting: (() => void)[] | undefined;
  readonly #queue: QueuedJob[] = [];
  #running = false;
  #mayBeAbandoned = false;
  #isAbandoned = false;
  #access: ShownAccess | undefined;
  #accessOf: DatabaseFiles | undefined;
  /** Where the database stood when the running job began. */
  #positionBefore: Position | undefined;
  readonly #newNode: (entry: DatabaseEntry, kind: FileKind) => FileNode;

  constructor(
    db: Database,
    newNode: (entry: DatabaseEntry, kind: FileKind) => FileNode,
    turns: WriteTurnsHost = noTurns,
    makeParts?: (entry: DatabaseEntry, host: WriteTurnsHost) => EntryParts,
  ) {
    this.db = db;
    this.#turnsHost = turns;
    this.#newNode = newNode;
    this.#makeParts = makeParts;
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
  get turns(): Turns {
    if (this.#turns === undefined) this.#make();
    assert(this.#turns !== undefined, "turns were made");
    return this.#turns;
  }

  /** Whether somebody who was told SQLITE_BUSY may come back to write. */
  get isWriterExpected(): boolean {
    return this.#turns instanceof WriteTurns && this.#turns.door.isAnyoneExpected;
  }

  /** Where applications ask for the write lock, those who wait for it. */
  get requests(): WriteTurns {
    const { turns } = this;
    assert(turns instanceof WriteTurns, "locks are kept here");
    return turns;
  }

  get #lockPart(): EntryLocks {
    if (this.#locks === undefined) this.#make();
    assert(this.#locks !== undefined, "locks were made");
    return this.#locks;
  }

  #make(): void {
    const parts = this.#makeParts?.(this, this.#turnsHost);
    this.#locks = parts?.locks ?? new TableLocks(this, (node) => this.#turnsHost.unlocked(node));
    this.#turns = parts?.turns ?? new WriteTurns(this, this.#turnsHost);
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

  /** The kernel reads these bytes of the wal-index from its file. */
  indexIsRead(offsetBytes: number): void {
    this.#local?.indexIsRead(offsetBytes);
  }

  get nodes(): Map<FileKind, FileNode> {
    this.#nodes ??= new Map<FileKind, FileNode>();
    return this.#nodes;
  }

  /** Gives back what nobody needs while nobody has the database open. */
  rest(): void {
    this.db.rest();
    if (this.#nodes?.size === 0) this.#nodes = undefined;
    this.#locks?.rest();
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

  /** A file beside the database was removed: who has it open has it alone, the name is free. */
  unlinked(kind: Exclude<FileKind, "database">): void {
    const node = this.#nodes?.get(kind);
    if (node !== undefined) node.isUnlinked = true;
    this.#nodes?.delete(kind);
    if (kind !== "journal") this.forgetIndex();
  }

  // The daemon's locks.

  tryLock(kind: "database" | "shm", first: number, last: number): boolean {
    return this.#lockPart.tryLock(kind, first, last);
  }

  unlock(kind: "database" | "shm", first: number, last: number): void {
    this.#lockPart.unlock(kind, first, last);
    this.released();
  }

  joinIndex(): IndexUse {
    return this.#lockPart.joinIndex();
  }

  leaveIndex(): void {
    this.#lockPart.leaveIndex();
    this.released();
  }

  isHeldExclusively(): boolean {
    return this.#lockPart.isHeldExclusively();
  }

  whenReleased(then: () => void): void {
    // The job hears of it where it waits, and gives back what locks it has.
    if (this.#isAbandoned) throw abandonedError(this.db.name);
    this.#waiting ??= [];
    this.#waiting.push(then);
    this.#lockPart.watch();
  }

  /** Somebody waits until a lock is released. */
  get isWaiting(): boolean {
    return this.#waiting !== undefined || this.#turns?.isWaiting === true;
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
    this.#push({ start: () => this.#run(job, done, failed) });
  }

  /** The same for what another node has sent, which can be had again: `abandonReceived` ends its waits. */
  enqueueReceived<T>(
    job: () => Job<T>,
    done: (result: T) => void,
    failed: (error: unknown) => void,
  ): void {
    this.#push({ start: () => this.#run(job, done, failed), abandon: failed });
  }

  /** Nobody wants any more what was received and waits, for applications or for its turn. */
  abandonReceived(): void {
    const abandoned = this.#queue.filter(({ abandon }) => abandon !== undefined);
    const rest = this.#queue.filter(({ abandon }) => abandon === undefined);
    this.#queue.splice(0, this.#queue.length, ...rest);
    for (const { abandon } of abandoned) abandon?.(abandonedError(this.db.name));
    if (!this.#running || !this.#mayBeAbandoned) return;
    this.#isAbandoned = true;
    this.released();
  }

  #run<T>(job: () => Job<T>, done: (result: T) => void, failed: (error: unknown) => void): void {
    runJob(
      job(),
      (result) => this.#ended(() => done(result)),
      (error) => this.#ended(() => failed(error)),
    );
  }

  #push(job: QueuedJob): void {
    this.#queue.push(job);
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
    this.#mayBeAbandoned = next?.abandon !== undefined;
    this.#isAbandoned = false;
    this.#positionBefore = this.#running ? this.db.position : undefined;
    next?.start();
  }
}

function abandonedError(database: string): LitefsError {
  return new LitefsError(
    "APPLY_ABANDONED",
    `applications kept received transactions of ${database} from being applied, and they are wanted no more`,
  );
}
