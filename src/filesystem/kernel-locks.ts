import * as fs from "node:fs";
import type { Job } from "../database/host.ts";
import { runJob } from "../database/host.ts";
import type { RefusedLock } from "../fuse/lock-trace.ts";
import * as errno from "../fuse/errno.ts";
import type { FuseReplies } from "../fuse/replies.ts";
import type { FuseRequest } from "../fuse/request.ts";
import { errorText } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { RESERVED_BYTE, SHARED_LAST, WAL_CKPT_LOCK, WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import { KernelEntryLocks } from "./kernel-entry-locks.ts";
import type { OwnFiles } from "./kernel-entry-locks.ts";
import { KernelTurns } from "./kernel-turns.ts";
import type { LockLink } from "./lock-link.ts";
import type { LockResult, OpenFailure } from "./lock-messages.ts";
import type { MountLocks, RequestId } from "./mount-locks.ts";
import { OWN_DIRECTORY_NAME } from "./names.ts";
import type { NodeTable } from "./node-table.ts";
import { entryOf, OWN_DIRECTORY_NODE_ID, ownDirectoryEntry } from "./nodes.ts";
import type { LockableNode, Node } from "./nodes.ts";
import { OwnFile } from "./own-file.ts";
import type { WriteTurnsHost } from "./write-turn-kinds.ts";
import { WriteGate } from "./write-gate.ts";

export interface KernelLocksOptions {
  readonly link: LockLink;
  readonly nodes: NodeTable;
  readonly logger: Logger;
  isPrimary(): boolean;
  /** Whether an application has begun to write to any database, or none may be kept from it. */
  isAnyoneWriting(): boolean;
}

interface DeferredOpen extends RequestId {
  answer(errno: number): void;
}

/** How often a lock is tried again that an application has: soon at first. */
const POLLS: readonly { readonly count: number; readonly everyMs: number }[] = [
  { count: 50, everyMs: 1 },
  { count: 100, everyMs: 4 },
  { count: Infinity, everyMs: 10 },
];
/** After a commit SQLite gives up its lock within microseconds, and a busy one is back as soon. */
const SPIN_MS = 0.15;
const WARN_EVERY_MS = 10_000;

/**
 * Where the kernel keeps the locks. No lock of an application comes here, and a reader costs nothing.
 * This process has the files open that applications have open, through another thread, and takes
 * its own locks there.
 */
export class KernelLocks implements MountLocks, OwnFiles {
  replies!: FuseReplies;
  readonly #options: KernelLocksOptions;
  readonly #link: LockLink;
  readonly #gate = new WriteGate();
  readonly #files = new Map<number, OwnFile>();
  readonly #deferred = new Map<OwnFile, DeferredOpen[]>();
  readonly #turns = new WeakMap<DatabaseEntry, KernelTurns>();
  /** Databases whose locks somebody waits for. */
  readonly #watched = new Set<DatabaseEntry>();
  #polls = 0;
  /** Written without a journal, under a lock: it is over when the lock is gone. */
  readonly #loose = new Set<FileNode>();
  /** Up to which transaction a database was looked at after a commit. */
  readonly #seenTxids = new WeakMap<DatabaseEntry, number>();
  #warnedOfLimitAtMs = -Infinity;
  #whenFinished: (() => void) | undefined;

  constructor(options: KernelLocksOptions) {
    this.#options = options;
    this.#link = options.link;
  }

  /** The parts of a database that depend on who keeps the locks. */
  partsOf(
    entry: DatabaseEntry,
    host: WriteTurnsHost,
  ): { locks: KernelEntryLocks; turns: KernelTurns } {
    const locks = new KernelEntryLocks(entry, this);
    const turns = new KernelTurns(entry, host, locks);
    this.#turns.set(entry, turns);
    return { locks, turns };
  }

  isPrimary(): boolean {
    return this.#options.isPrimary();
  }

  // The lease is about to change hands.

  pauseWrites(whenQuiet: () => void): void {
    this.#gate.close(whenQuiet);
    this.checkQuiet();
  }
  get isHoldingBack(): boolean {
    return this.#gate.isClosed;
  }
  resumeWrites(): void {
    this.#gate.open();
  }
  checkQuiet(): void {
    if (this.#gate.isWaitingForQuiet && !this.#options.isAnyoneWriting()) this.#gate.quiet();
  }

  isWriting(entry: DatabaseEntry): boolean {
    if (entry.openCount("any") === 0) return false;
    // Those that must end are waited for, and the guards of the others stay.
    const isWriting = entry.turns.isWaiting;
    if (isWriting) this.watch(entry);
    return isWriting;
  }

  // The kernel keeps the locks and asks for none.

  set(request: RequestId): void {
    this.replies.replyError(request.uniqueLo, request.uniqueHi, errno.ENOLCK);
  }
  get(request: FuseRequest): void {
    this.replies.replyError(request.uniqueLo, request.uniqueHi, errno.ENOLCK);
  }

  // Files that this process has open.

  lookup(request: FuseRequest, name: string): boolean {
    const { nodeId, uniqueLo, uniqueHi } = request;
    if (!this.isOwn(request)) return false;
    if (nodeId !== OWN_DIRECTORY_NODE_ID) {
      if (name !== OWN_DIRECTORY_NAME) return false;
      this.replies.replyEntry(uniqueLo, uniqueHi, ownDirectoryEntry());
      return true;
    }
    const node = this.#options.nodes.get(Number(name));
    if (node?.type === "file") {
      const entry = entryOf(node);
      this.replies.replyEntry(uniqueLo, uniqueHi, { ...entry, entryTimeoutMs: 0 });
    } else this.replies.replyError(uniqueLo, uniqueHi, errno.ENOENT);
    return true;
  }

  isOwn(request: FuseRequest): boolean {
    return request.pid === this.#link.threadId;
  }

  find(node: FileNode): OwnFile | undefined {
    return this.#files.get(node.id);
  }

  opens(request: RequestId, node: FileNode, answer: (errno: number) => void): void {
    const isLocked = node.kind === "database" || node.kind === "shm";
    const known = this.#files.get(node.id);
    // Before this process is ready nothing is locked either.
    if (!isLocked || !this.#mayOpen || (known?.isOpen === true && !known.isPreparing)) {
      answer(0);
      return;
    }
    const file = this.#ask(node, false);
    const { uniqueLo, uniqueHi } = request;
    const deferred = this.#deferred.get(file) ?? [];
    deferred.push({ uniqueLo, uniqueHi, answer });
    this.#deferred.set(file, deferred);
  }

  adopted(node: Node): void {
    if (node.type === "file") this.adopt(node);
  }

  adopt(node: FileNode): void {
    const isLocked = node.kind === "database" || node.kind === "shm";
    if (isLocked && this.#mayOpen) this.#ask(node, true);
  }

  get #mayOpen(): boolean {
    return this.#link.isServing && this.#whenFinished === undefined;
  }

  #ask(node: FileNode, isNeeded: boolean): OwnFile {
    let file = this.#files.get(node.id);
    if (file === undefined) {
      file = new OwnFile(node, this.#link.calls);
      this.#files.set(node.id, file);
    }
    file.node = node;
    if (!file.isOpen && !file.isAsked) {
      file.isAsked = true;
      this.#link.send({ type: "open", nodeId: node.id, isNeeded });
    }
    return file;
  }

  #opened(nodeId: number, fd: number): void {
    const file = this.#files.get(nodeId);
    if (file === undefined) {
      this.#link.send({ type: "close", fd });
      return;
    }
    const now = this.#options.nodes.get(nodeId);
    if (now?.type === "file") file.node = now;
    const { node } = file;
    const { entry } = node;
    file.isAsked = false;
    if (this.#whenFinished !== undefined) {
      // The lock thread has closed it by now.
      this.#answer(file, 0);
      return;
    }
    file.attach(fd);
    const isCurrent = node.files === entry.db.files;
    const isGuarded = isCurrent && entry.turns.isGuarded;
    if (isGuarded && entry.turns.isWaiting) this.watch(entry);
    // Whoever opens the wal-index first would build it under a lock that he cannot have.
    if (isGuarded && node.kind === "shm" && node.opens === 0) this.#prepareIndex(file);
    else this.#answer(file, 0);
    entry.released();
  }

  #prepareIndex(file: OwnFile): void {
    const { entry } = file.node;
    file.isPreparing = true;
    const done = (number: number): void => {
      file.isPreparing = false;
      this.#answer(file, number);
    };
    entry.enqueue(
      () => entry.local.buildIndex(),
      () => done(0),
      (error) => {
        this.#warn("cannot build a wal-index", entry, error);
        done(errno.EIO);
      },
    );
  }

  #failed(nodeId: number, code: OpenFailure, reason: string): void {
    const file = this.#files.get(nodeId);
    if (file === undefined) return;
    file.isAsked = false;
    if (code === "full") this.#warnOfLimit(file, reason);
    else this.#warn("cannot open a file of the mount", file.node.entry, reason);
    // Not EMFILE: that would be about a limit of the application's own.
    this.#answer(file, code === "full" ? errno.ENFILE : errno.EIO);
  }

  #warnOfLimit({ node }: OwnFile, reason: string): void {
    const nowMs = performance.now();
    if (nowMs - this.#warnedOfLimitAtMs < WARN_EVERY_MS) return;
    this.#warnedOfLimitAtMs = nowMs;
    this.#options.logger.error("an application cannot open its database, too few descriptors", {
      db: node.entry.db.name,
      reason,
      remedy: "raise the limit of open files (ulimit -n) of litefs",
    });
  }

  #answer(file: OwnFile, number: number): void {
    const deferred = this.#deferred.get(file) ?? [];
    this.#deferred.delete(file);
    for (const open of deferred) open.answer(number);
    this.#closeIfUnused(file);
  }

  /** Locks of jobs stay noted; whoever opens the file finds them. */
  #closeIfUnused(file: OwnFile): void {
    // The file may have changed sides since, or have another name.
    const now = this.#options.nodes.get(file.node.id);
    const { opens } = now === undefined || now.type === "text" ? file.node : now;
    if (opens > 0 || file.isAsked || this.#deferred.has(file)) return;
    if (file.isOpen) this.#link.send({ type: "close", fd: file.detach() });
    this.#files.delete(file.node.id);
    this.#loose.delete(file.node);
  }

  interrupt(targetLo: number, targetHi: number): void {
    for (const [file, deferred] of this.#deferred) {
      const index = deferred.findIndex((d) => d.uniqueLo === targetLo && d.uniqueHi === targetHi);
      if (index < 0) continue;
      deferred.splice(index, 1);
      if (deferred.length === 0) this.#deferred.delete(file);
      this.replies.replyError(targetLo, targetHi, errno.EINTR);
      return;
    }
  }

  // What applications do.

  handleCloses(node: LockableNode): void {
    const file = this.#files.get(node.id);
    if (file !== undefined) this.#closeIfUnused(file);
    if (node.type === "file") node.entry.released();
  }

  /**
   * The kernel takes the locks of a closing process away after this is answered. So if that is the one
   * which writes to the WAL, what it has committed and not shown is shown under its own lock.
   */
  ownerCloses(
    request: FuseRequest,
    node: LockableNode,
    _ownerLo: number,
    _ownerHi: number,
    then: () => void,
  ): void {
    const isIndex = node.type === "file" && node.kind === "shm";
    const file = isIndex ? this.#files.get(node.id) : undefined;
    if (!isIndex || file === undefined || node.entry.db.store.frames.count === 0) {
      then();
      return;
    }
    const { entry } = node;
    const writer = file.writer(WAL_WRITE_LOCK, WAL_WRITE_LOCK);
    if (writer === undefined || node.files !== entry.db.files) {
      then();
      return;
    }
    const isWriter = isThreadOf(request.pid, writer.pid);
    if (isWriter !== true) {
      if (isWriter === undefined) this.#finish(entry);
      then();
      return;
    }
    entry.forgetIndex();
    // Not in the queue of the database: what runs there may be waiting for the lock of this process.
    runJob(
      entry.local.publish(),
      () => {
        entry.forgetIndex();
        then();
        this.watch(entry);
      },
      (error) => {
        entry.db.quarantine(`cannot finish a commit: ${errorText(error)}`);
        then();
      },
    );
  }

  isBeingWritten(node: FileNode, request: FuseRequest): boolean {
    const writer = this.#files.get(node.id)?.writer(RESERVED_BYTE, SHARED_LAST);
    return writer !== undefined && isThreadOf(request.pid, writer.pid) !== true;
  }

  changed(node: FileNode): void {
    const { entry, kind } = node;
    const { db } = entry;
    if (node.files !== db.files) return;
    // Applications write the wal-index; what we knew of it is worth nothing after.
    if (kind === "wal") entry.forgetIndex();
    if (kind === "database") this.#noticeLoose(node);
    if (kind !== "shm") this.#turns.get(entry)?.noticeWrite();
    if (db.suspect) {
      // SQLite takes for rolled back what is committed.
      db.suspect = false;
      this.#finish(entry);
    }
    this.#afterCommit(entry);
  }

  /** Somebody waits for the one who writes, and those who write all the time leave a short gap. */
  #afterCommit(entry: DatabaseEntry): void {
    const { txid } = entry.db.log;
    if (!this.#watched.has(entry) || this.#seenTxids.get(entry) === txid) return;
    this.#seenTxids.set(entry, txid);
    const endMs = performance.now() + SPIN_MS;
    do {
      if (entry.turns.isWaiting) continue;
      entry.released();
      return;
    } while (performance.now() < endMs);
  }

  #noticeLoose(node: FileNode): void {
    const { db } = node.entry;
    if (!db.hasOpenChanges || db.hasHotJournal || this.#loose.has(node)) return;
    if (this.#files.get(node.id)?.writer(RESERVED_BYTE, SHARED_LAST) === undefined) return;
    this.#loose.add(node);
    this.watch(node.entry);
  }

  /** Publishes captured transactions that SQLite never entered into the wal-index. */
  #finish(entry: DatabaseEntry): void {
    if (entry.db.store.frames.count === 0) return;
    entry.enqueue(
      () => underWriteLock(entry, () => entry.local.publish()),
      () => undefined,
      (error) => entry.db.quarantine(`cannot finish a commit: ${errorText(error)}`),
    );
  }

  checkIndex(entry: DatabaseEntry): void {
    entry.enqueue(
      () => underWriteLock(entry, () => entry.local.mendIndex()),
      () => undefined,
      (error) => this.#warn("cannot mend a wal-index", entry, error),
    );
  }

  // What is waited for.

  watch(entry: DatabaseEntry): void {
    if (!this.#watched.has(entry)) this.#polls = 0;
    this.#watched.add(entry);
    this.#pace();
  }

  #pace(): void {
    let rest = this.#polls;
    let everyMs = 0;
    for (const poll of POLLS) {
      everyMs = poll.everyMs;
      if (rest < poll.count) break;
      rest -= poll.count;
    }
    this.#link.pollEvery(this.#watched.size === 0 ? 0 : everyMs);
  }

  woken(): void {
    this.#link.drain((result) => this.#handle(result));
    if (this.#watched.size > 0) this.#poll();
  }

  #poll(): void {
    this.#polls++;
    const watched = Array.from(this.#watched);
    this.#watched.clear();
    for (const entry of watched) {
      entry.released();
      const isLoose = this.#endLoose(entry);
      if (isLoose || entry.isWaiting) this.#watched.add(entry);
    }
    this.#pace();
    this.checkQuiet();
  }

  /** True while an application goes on writing without a journal. */
  #endLoose(entry: DatabaseEntry): boolean {
    const node = entry.nodes.get("database");
    if (node === undefined || !this.#loose.has(node)) return false;
    if (this.#files.get(node.id)?.writer(RESERVED_BYTE, SHARED_LAST) !== undefined) return true;
    this.#loose.delete(node);
    entry.db.endLooseWrites();
    return false;
  }

  #handle(result: LockResult): void {
    switch (result.type) {
      case "opened":
        this.#opened(result.nodeId, result.fd);
        return;
      case "failed":
        this.#failed(result.nodeId, result.code, result.reason);
        return;
      case "refused":
        for (const refused of result.refused) this.#refused(refused);
        return;
      case "finished":
        this.#whenFinished?.();
    }
  }

  /** An application would like to write. */
  #refused({ inode, pid, byte }: RefusedLock): void {
    const node = this.#options.nodes.get(inode);
    if (node?.type !== "file" || node.files !== node.entry.db.files) return;
    if (node.kind === "shm") {
      if (byte !== WAL_WRITE_LOCK) return;
      // Who wants it only to finish a checkpoint does not trouble other nodes for it.
      const checkpointer = this.#files.get(node.id)?.writer(WAL_CKPT_LOCK, WAL_CKPT_LOCK);
      if (checkpointer?.pid === pid) return;
    } else if (node.kind !== "database" || byte !== RESERVED_BYTE) return;
    this.#turns.get(node.entry)?.attempted();
  }

  release(then: () => void): void {
    for (const file of this.#files.values()) if (file.isOpen) file.detach();
    this.#whenFinished = then;
    this.#link.send({ type: "finish" });
  }

  #warn(text: string, { db }: DatabaseEntry, error: unknown): void {
    this.#options.logger.warn(text, { db: db.name, error: errorText(error) });
  }
}

/** Whoever recovers a wal-index needs this lock first, and nobody checkpoints by one that is not valid. */
function* underWriteLock(entry: DatabaseEntry, job: () => Job<void>): Job<void> {
  while (!entry.tryLock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK)) {
    yield (resume) => entry.whenReleased(resume);
  }
  try {
    entry.forgetIndex();
    yield* job();
  } finally {
    entry.forgetIndex();
    entry.unlock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK);
  }
}

/** Requests name a thread, locks a process; undefined when that cannot be told. */
function isThreadOf(thread: number, process: number): boolean | undefined {
  // In another namespace.
  if (thread === 0 || process === 0) return undefined;
  if (thread === process) return true;
  try {
    const status = fs.readFileSync(`/proc/${thread}/status`, "latin1");
    return Number(/^Tgid:\s+(\d+)$/m.exec(status)?.[1]) === process;
  } catch {
    return undefined;
  }
}
