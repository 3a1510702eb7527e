import type { Database } from "../database/database.ts";
import type { DatabaseFiles, FileKind } from "../database/database-files.ts";
import type { Outcome } from "../database/outcome.ts";
import { formatPosition } from "../lib/position.ts";
import { RESERVED_BYTE, SHARED_FIRST, SHARED_SIZE, WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import { decodeWalIndexHeaderPair, WAL_INDEX_PREFIX_SIZE } from "../sqlite/wal-index-header.ts";
import type { FileAttributes, FuseEntry } from "../fuse/attributes.ts";
import {
  F_UNLCK,
  F_WRLCK,
  FATTR_SIZE,
  FOPEN_DIRECT_IO,
  FOPEN_KEEP_CACHE,
  FUSE_ROOT_ID,
  O_ACCMODE,
  O_EXCL,
  O_RDONLY,
  S_IFDIR,
  S_IFREG,
} from "../fuse/constants.ts";
import * as errno from "../fuse/errno.ts";
import type { FuseHandler, SetattrFields } from "../fuse/handler.ts";
import { OUT_HEADER_BYTES } from "../fuse/replies.ts";
import type { FuseReplies, FileSystemStatistics } from "../fuse/replies.ts";
import type { FuseRequest } from "../fuse/request.ts";
import { DatabaseEntry } from "./entry.ts";
import type { FileNode } from "./entry.ts";
import { LockTable } from "./lock-table.ts";
import { LockWaiters } from "./lock-waiters.ts";
import { LAG_NAME, nameOf, parseName, PRIMARY_NAME } from "./names.ts";
import { EntryCache } from "./notifier.ts";
import type { Outbox, Retrievals } from "./notifier.ts";
import { WalRunway } from "./wal-runway.ts";

/** A small file whose content is made when it is opened. */
interface TextNode {
  readonly type: "text";
  readonly id: number;
  readonly size: number;
  lookups: number;
  readonly content: () => string;
}

type Node = FileNode | TextNode;

interface Handle {
  readonly node: Node;
  readonly text: Uint8Array | undefined;
  wrote: boolean;
}

export interface FileSystemHost {
  isPrimary(): boolean;
  primaryHostname(): string | undefined;
  /** Milliseconds behind the primary, as `.lag` shows it. */
  lagMs(): number;
  createDatabase(name: string): Database;
  statistics(): FileSystemStatistics;
  /** Another thread has left messages. */
  wake(): void;
  /** Nobody has a file of this database open any more. */
  closed(entry: DatabaseEntry): void;
  /** Writes a STORE from this thread; only for pages that nobody can hold. */
  storeNow(message: Uint8Array): void;
  /** A request that may have moved a database has been answered. */
  afterReply(): void;
}

/** Every change reaches the kernel through itself or by notification, so it may remember for long. */
const FOREVER_MS = 24 * 3600 * 1000;
/** A node the main thread keeps open, so that it can wake this thread: `.lag`. */
export const LAG_NODE_ID = 2;
const PRIMARY_NODE_ID = 3;
const FIRST_FREE_NODE_ID = 16;
const SHARED_LAST = SHARED_FIRST + SHARED_SIZE - 1;
const LAG_FILE_BYTES = 11;
const LAG_MAX_MS = 2147483647;

/**
 * The mount as the kernel sees it: names, nodes, handles and locks. What the bytes mean is the
 * engine's business. Runs on the mount thread, one request at a time, and never waits.
 */
export class LitefsFileSystem implements FuseHandler {
  readonly entries: Map<string, DatabaseEntry> = new Map<string, DatabaseEntry>();
  readonly #host: FileSystemHost;
  readonly #outbox: Outbox;
  readonly #retrievals: Retrievals;
  readonly #nodes = new Map<number, Node>();
  readonly #handles: (Handle | undefined)[] = [];
  readonly #freeHandles: number[] = [];
  readonly #directories = new Map<number, string[]>();
  readonly #waiters = new LockWaiters();
  readonly #runway: WalRunway;
  readonly #mountedAtMs = Date.now();
  readonly #uid = process.getuid?.() ?? 0;
  readonly #gid = process.getgid?.() ?? 0;
  #nextNodeId = FIRST_FREE_NODE_ID;
  #nextDirectory = 1;
  #replies!: FuseReplies;

  constructor(host: FileSystemHost, outbox: Outbox, retrievals: Retrievals) {
    this.#host = host;
    this.#outbox = outbox;
    this.#retrievals = retrievals;
    this.#runway = new WalRunway((message) => host.storeNow(message));
    this.#nodes.set(LAG_NODE_ID, {
      type: "text",
      id: LAG_NODE_ID,
      size: LAG_FILE_BYTES,
      lookups: 0,
      content: () => lagText(this.#host.lagMs()),
    });
    this.#nodes.set(PRIMARY_NODE_ID, {
      type: "text",
      id: PRIMARY_NODE_ID,
      size: 0,
      lookups: 0,
      content: () => `${this.#host.primaryHostname() ?? ""}\n`,
    });
  }

  /** Shows a database in the mount. */
  add(db: Database): DatabaseEntry {
    const entry = new DatabaseEntry(db, (owner, kind) => this.#newFileNode(owner, kind));
    db.kernel = new EntryCache(entry, this.#outbox, this.#retrievals);
    this.entries.set(db.name, entry);
    return entry;
  }

  init(replies: FuseReplies): void {
    this.#replies = replies;
  }

  // Names.

  lookup(request: FuseRequest, name: string): void {
    const { uniqueLo, uniqueHi } = request;
    const node = this.#find(name);
    if (node === undefined) {
      const parsed = parseName(name);
      // Database files appear through the kernel or with a notification; the others just appear.
      const timeoutMs = parsed.kind === "file" ? FOREVER_MS : 0;
      this.#replies.replyNegativeEntry(uniqueLo, uniqueHi, timeoutMs);
      return;
    }
    this.#replies.replyEntry(uniqueLo, uniqueHi, this.#entryOf(node));
  }

  #find(name: string): Node | undefined {
    const parsed = parseName(name);
    switch (parsed.kind) {
      case "lag":
        return this.#nodes.get(LAG_NODE_ID);
      case "primary":
        if (this.#host.isPrimary() || this.#host.primaryHostname() === undefined) return undefined;
        return this.#nodes.get(PRIMARY_NODE_ID);
      case "file": {
        const entry = this.entries.get(parsed.database);
        if (entry === undefined || !entry.db.files.exists(parsed.file)) return undefined;
        return entry.node(parsed.file);
      }
      case "position":
      case "lock": {
        const entry = this.entries.get(parsed.database);
        return entry === undefined ? undefined : this.#newTextNode(entry, parsed.kind);
      }
      case "invalid":
        return undefined;
    }
  }

  create(request: FuseRequest, name: string, flags: number): void {
    const { uniqueLo, uniqueHi } = request;
    const parsed = parseName(name);
    if (parsed.kind !== "file") {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EACCES);
      return;
    }
    let entry = this.entries.get(parsed.database);
    if (entry === undefined) {
      if (parsed.file !== "database") {
        this.#replies.replyError(uniqueLo, uniqueHi, errno.EACCES);
        return;
      }
      entry = this.add(this.#host.createDatabase(parsed.database));
    }
    if (entry.db.status === "quarantined") {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EIO);
      return;
    }
    if (parsed.file === "journal" && !this.#host.isPrimary()) {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EROFS);
      return;
    }
    if ((flags & O_EXCL) !== 0 && entry.db.files.exists(parsed.file)) {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EEXIST);
      return;
    }
    entry.db.files.getOrCreate(parsed.file);
    const node = entry.node(parsed.file);
    const fh = this.#openNode(node);
    this.#replies.replyCreate(uniqueLo, uniqueHi, this.#entryOf(node), fh, FOPEN_KEEP_CACHE);
  }

  unlink(request: FuseRequest, name: string): void {
    const { uniqueLo, uniqueHi } = request;
    const parsed = parseName(name);
    const entry = parsed.kind === "file" ? this.entries.get(parsed.database) : undefined;
    if (parsed.kind !== "file") {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EPERM);
      return;
    }
    if (entry === undefined || !entry.db.files.exists(parsed.file)) {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.ENOENT);
      return;
    }
    const outcome = entry.db.unlink(parsed.file);
    if (outcome === "ok") {
      if (parsed.file !== "database") {
        const node = entry.nodes.get(parsed.file);
        if (node !== undefined) node.isUnlinked = true;
        entry.nodes.delete(parsed.file);
      }
      if (parsed.file === "shm" || parsed.file === "wal") entry.local.forgetIndex();
      if (parsed.file === "database") {
        for (const kind of ["journal", "wal", "shm"] as const) entry.db.kernel.invalidateName(kind);
        this.#outbox.flush();
      }
    }
    this.#replyOutcome(request, outcome);
  }

  /** EXDEV makes mv copy and remove, which works; a rename cannot be replicated. */
  rename(request: FuseRequest): void {
    this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.EXDEV);
  }
  mkdir(request: FuseRequest): void {
    this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.EPERM);
  }
  rmdir(request: FuseRequest): void {
    this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.EPERM);
  }
  symlink(request: FuseRequest): void {
    this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.EPERM);
  }
  link(request: FuseRequest): void {
    this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.EPERM);
  }
  mknod(request: FuseRequest): void {
    this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.EPERM);
  }

  forget(nodeId: number, lookupCount: number): void {
    const node = this.#nodes.get(nodeId);
    if (node === undefined) return;
    node.lookups -= lookupCount;
    if (node.lookups > 0 || nodeId < FIRST_FREE_NODE_ID) return;
    if (node.type === "file" && node.entry.nodes.get(node.kind) === node) {
      // We hold locks on it ourselves, and the name will lead to the same node again.
      if (node.locks.size > 0) return;
      node.entry.nodes.delete(node.kind);
    }
    this.#nodes.delete(nodeId);
  }

  // Attributes.

  getattr(request: FuseRequest): void {
    const { uniqueLo, uniqueHi, nodeId } = request;
    if (nodeId === FUSE_ROOT_ID) {
      this.#replies.replyAttr(uniqueLo, uniqueHi, this.#rootAttributes(), FOREVER_MS);
      return;
    }
    const node = this.#nodes.get(nodeId);
    if (node === undefined) this.#replies.replyError(uniqueLo, uniqueHi, errno.ESTALE);
    else this.#replyAttributes(request, node);
  }

  setattr(request: FuseRequest, valid: number, fields: SetattrFields): void {
    const node = this.#nodes.get(request.nodeId);
    if (request.nodeId === FUSE_ROOT_ID) {
      this.getattr(request);
      return;
    }
    if (node === undefined || node.type === "text") {
      this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.EACCES);
      return;
    }
    if ((valid & FATTR_SIZE) !== 0) {
      const outcome = this.#truncate(node, fields.size);
      if (outcome !== "ok") {
        this.#replyOutcome(request, outcome);
        return;
      }
      if (node.kind === "database") this.#markWritten(fields.fh);
    }
    this.#replyAttributes(request, node);
  }

  #truncate(node: FileNode, sizeBytes: number): Outcome {
    if (node.isUnlinked) return "ok";
    if (node.files !== node.entry.db.files) {
      node.files.get(node.kind)?.truncate(sizeBytes);
      return "ok";
    }
    if (node.kind === "shm") node.entry.local.forgetIndex();
    if (node.kind === "wal") this.#runway.forget(node);
    return node.entry.db.truncate(node.kind, sizeBytes);
  }

  access(request: FuseRequest): void {
    this.#replies.replyEmpty(request.uniqueLo, request.uniqueHi);
  }

  statfs(request: FuseRequest): void {
    this.#replies.replyStatfs(request.uniqueLo, request.uniqueHi, this.#host.statistics());
  }

  // Files.

  open(request: FuseRequest, flags: number): void {
    const { uniqueLo, uniqueHi } = request;
    const node = this.#nodes.get(request.nodeId);
    if (node === undefined) {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.ESTALE);
      return;
    }
    if (node.type === "text") {
      if ((flags & O_ACCMODE) !== O_RDONLY) {
        this.#replies.replyError(uniqueLo, uniqueHi, errno.EACCES);
        return;
      }
      this.#replies.replyOpen(uniqueLo, uniqueHi, this.#openNode(node), FOPEN_DIRECT_IO);
      return;
    }
    if (node.entry.db.status === "quarantined") {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EIO);
      return;
    }
    this.#replies.replyOpen(uniqueLo, uniqueHi, this.#openNode(node), FOPEN_KEEP_CACHE);
  }

  read(request: FuseRequest, fh: number, offset: number, size: number): void {
    const { uniqueLo, uniqueHi } = request;
    const handle = this.#handles[fh];
    if (handle === undefined) {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EBADF);
      return;
    }
    const { node } = handle;
    if (node.type === "text") {
      const text = handle.text ?? new Uint8Array(0);
      this.#replies.replyBytes(uniqueLo, uniqueHi, text.subarray(offset, offset + size));
      return;
    }
    const out = this.#replies.replyBuffer;
    const file = node.files.get(node.kind);
    const count = file?.readAt(out, OUT_HEADER_BYTES, size, offset) ?? 0;
    this.#replies.replyReadFromReplyBuffer(uniqueLo, uniqueHi, count);
  }

  write(
    request: FuseRequest,
    fh: number,
    offset: number,
    data: Uint8Array,
    dataStart: number,
    size: number,
  ): void {
    const { uniqueLo, uniqueHi } = request;
    // Write-back of a mapping may come with any handle of the file, so the node decides.
    const node = this.#nodes.get(request.nodeId);
    if (node === undefined || node.type === "text") {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EBADF);
      return;
    }
    const { entry, kind } = node;
    let outcome: Outcome = "ok";
    if (node.isUnlinked) {
      // SQLite removes -shm before it unmaps it, and the kernel writes the mapping back after.
    } else if (node.files !== entry.db.files) {
      node.files.get(kind)?.writeAt(data, dataStart, size, offset);
    } else {
      outcome = entry.db.write(kind, offset, data, dataStart, size);
      if (kind === "database") this.#markWritten(fh);
      if (kind === "wal" && outcome === "ok") this.#runway.extend(node, offset + size);
    }
    if (outcome === "ok") this.#replies.replyWrite(uniqueLo, uniqueHi, size);
    else this.#replyOutcome(request, outcome);
    this.#host.afterReply();
  }

  #markWritten(fh: number): void {
    const handle = fh < 0 ? undefined : this.#handles[fh];
    if (handle !== undefined) handle.wrote = true;
  }

  fsync(request: FuseRequest): void {
    const node = this.#nodes.get(request.nodeId);
    if (node?.type !== "file") {
      this.#replies.replyEmpty(request.uniqueLo, request.uniqueHi);
      return;
    }
    const { entry, kind } = node;
    if (node.files === entry.db.files) {
      this.#replyOutcomeOrEmpty(request, entry.db.sync(kind));
      return;
    }
    node.files.get(kind)?.sync();
    this.#replies.replyEmpty(request.uniqueLo, request.uniqueHi);
  }

  flush(request: FuseRequest, fh: number, ownerLo: number, ownerHi: number): void {
    const handle = this.#handles[fh];
    const node = handle?.node;
    if (node?.type !== "file") {
      this.#replies.replyEmpty(request.uniqueLo, request.uniqueHi);
      return;
    }
    const { entry, kind, locks } = node;
    let outcome: Outcome = "ok";
    if (locks.size > 0 || this.#waiters.size > 0) {
      // A process that dies between its commit frame and the wal-index leaves the rest to us.
      if (kind === "shm" && locks.ownerHoldsWrite(ownerLo, ownerHi, WAL_WRITE_LOCK)) {
        this.#finish(entry);
      }
      this.#waiters.cancelOwner(ownerLo, ownerHi, node, (u, v) =>
        this.#replies.replyError(u, v, errno.EINTR),
      );
      if (locks.releaseOwner(ownerLo, ownerHi)) this.#lockReleased(node);
    }
    if (handle?.wrote === true && kind === "database" && node.files === entry.db.files) {
      if (!locks.isWriteLocked(RESERVED_BYTE, SHARED_LAST)) outcome = entry.db.endLooseWrites();
      if (outcome === "ok") handle.wrote = false;
    }
    this.#replyOutcomeOrEmpty(request, outcome);
  }

  release(request: FuseRequest, fh: number): void {
    const handle = this.#handles[fh];
    this.#handles[fh] = undefined;
    this.#freeHandles.push(fh);
    if (handle?.node.type === "file") {
      const { node } = handle;
      node.opens--;
      if (node.locks.releaseHandle(fh)) this.#lockReleased(node);
      else node.entry.released();
      if (node.files !== node.entry.db.files) this.closeIfUnused(node.files);
      else if (node.entry.openCount("any") === 0) this.#host.closed(node.entry);
    }
    this.#replies.replyEmpty(request.uniqueLo, request.uniqueHi);
    this.#host.afterReply();
  }

  // Locks.

  setlk(
    request: FuseRequest,
    fh: number,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    type: number,
    pid: number,
    _flags: number,
    wait: boolean,
  ): void {
    const { uniqueLo, uniqueHi } = request;
    const node = this.#nodes.get(request.nodeId);
    if (node?.type !== "file") {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.ENOLCK);
      return;
    }
    const { locks } = node;
    if (type === F_UNLCK) {
      this.#unlock(node, fh, ownerLo, ownerHi, start, end, pid);
      this.#replies.replyEmpty(uniqueLo, uniqueHi);
      this.#host.afterReply();
      return;
    }
    if (type === F_WRLCK && !this.#host.isPrimary() && this.#isWriteIntent(node, start, end)) {
      this.#decideReplicaWrite(request, node, fh, ownerLo, ownerHi, start, end, pid);
      return;
    }
    if (locks.conflict(ownerLo, ownerHi, false, start, end, type) === undefined) {
      locks.set(ownerLo, ownerHi, fh, pid, start, end, type);
      this.#replies.replyEmpty(uniqueLo, uniqueHi);
    } else if (wait) {
      const lock = { uniqueLo, uniqueHi, node, fh, ownerLo, ownerHi, start, end, type, pid };
      this.#waiters.add(lock);
    } else {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EAGAIN);
    }
  }

  #unlock(
    node: FileNode,
    fh: number,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    pid: number,
  ): void {
    const { entry, kind, locks } = node;
    if (kind === "shm" && entry.db.suspect && start <= WAL_WRITE_LOCK && end >= WAL_WRITE_LOCK) {
      entry.db.suspect = false;
      this.#finish(entry);
    }
    locks.set(ownerLo, ownerHi, fh, pid, start, end, F_UNLCK);
    if (kind === "database" && !locks.isWriteLocked(RESERVED_BYTE, SHARED_LAST)) {
      entry.db.endLooseWrites();
    }
    this.#lockReleased(node);
  }

  /** On a replica: SQLite's write lock in either mode. */
  #isWriteIntent(node: FileNode, start: number, end: number): boolean {
    if (node.files !== node.entry.db.files) return false;
    if (node.kind === "shm") return start <= WAL_WRITE_LOCK && end >= WAL_WRITE_LOCK;
    return node.kind === "database" && start <= RESERVED_BYTE && end >= RESERVED_BYTE;
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
    const refuse = (): void => this.#replies.replyError(uniqueLo, uniqueHi, errno.EAGAIN);
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
      this.#replies.replyEmpty(uniqueLo, uniqueHi);
    });
  }

  getlk(
    request: FuseRequest,
    _fh: number,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    type: number,
  ): void {
    const { uniqueLo, uniqueHi } = request;
    const node = this.#nodes.get(request.nodeId);
    const lock =
      node?.type === "file"
        ? node.locks.conflict(ownerLo, ownerHi, false, start, end, type)
        : undefined;
    if (lock === undefined) this.#replies.replyLock(uniqueLo, uniqueHi, F_UNLCK, start, end, 0);
    else this.#replies.replyLock(uniqueLo, uniqueHi, lock.type, lock.start, lock.end, lock.pid);
  }

  #lockReleased(node: FileNode): void {
    if (this.#waiters.size > 0) {
      this.#waiters.retry(node, (u, v) => this.#replies.replyEmpty(u, v));
    }
    node.entry.released();
  }

  /** Publishes captured transactions that SQLite never entered into the wal-index. */
  #finish(entry: DatabaseEntry): void {
    if (!this.#host.isPrimary() || entry.db.store.frames.count === 0) return;
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

  interrupt(targetLo: number, targetHi: number): void {
    if (this.#waiters.cancel(targetLo, targetHi)) {
      this.#replies.replyError(targetLo, targetHi, errno.EINTR);
    }
  }

  // Directories.

  opendir(request: FuseRequest): void {
    const fh = this.#nextDirectory++;
    this.#directories.set(fh, this.#list());
    this.#replies.replyOpen(request.uniqueLo, request.uniqueHi, fh, 0);
  }

  readdir(request: FuseRequest, fh: number, offset: number, size: number): void {
    // A reader that goes back to the start wants to see what there is now.
    if (offset === 0) this.#directories.set(fh, this.#list());
    const names = this.#directories.get(fh) ?? [];
    const out = this.#replies.startDirectory(size);
    for (let i = offset; i < names.length; i++) {
      const name = names[i] ?? "";
      const isDirectory = name === "." || name === "..";
      const ino = isDirectory ? FUSE_ROOT_ID : inodeOf(name);
      if (!out.add(name, ino, isDirectory ? S_IFDIR : S_IFREG, i + 1)) break;
    }
    this.#replies.replyDirectory(request.uniqueLo, request.uniqueHi);
  }

  releasedir(request: FuseRequest, fh: number): void {
    this.#directories.delete(fh);
    this.#replies.replyEmpty(request.uniqueLo, request.uniqueHi);
  }

  #list(): string[] {
    const names = [".", "..", LAG_NAME];
    if (!this.#host.isPrimary() && this.#host.primaryHostname() !== undefined) {
      names.push(PRIMARY_NAME);
    }
    for (const { db } of this.entries.values()) {
      for (const kind of ["database", "journal", "wal", "shm"] as const) {
        if (db.files.exists(kind)) names.push(nameOf(db.name, kind));
      }
      if (db.store.pageCount > 0) names.push(`${db.name}-pos`);
    }
    return names;
  }

  // From the kernel.

  notifyReply(
    _request: FuseRequest,
    notifyUnique: number,
    _offset: number,
    data: Uint8Array,
    dataStart: number,
    size: number,
  ): void {
    this.#retrievals.finish(notifyUnique, data.subarray(dataStart, dataStart + size));
    this.#host.afterReply();
  }

  wake(): void {
    this.#host.wake();
  }

  // Nodes and handles.

  #newFileNode(entry: DatabaseEntry, kind: FileKind): FileNode {
    const node: FileNode = {
      type: "file",
      id: this.#nextNodeId++,
      entry,
      kind,
      files: entry.db.files,
      locks: new LockTable(),
      lookups: 0,
      opens: 0,
      isUnlinked: false,
    };
    this.#nodes.set(node.id, node);
    return node;
  }

  #newTextNode(entry: DatabaseEntry, kind: "position" | "lock"): TextNode {
    const isPosition = kind === "position";
    const node: TextNode = {
      type: "text",
      id: this.#nextNodeId++,
      size: isPosition ? 34 : 0,
      lookups: 0,
      content: () => (isPosition ? this.#positionText(entry) : ""),
    };
    this.#nodes.set(node.id, node);
    return node;
  }

  /** Whoever waits for a position here and then reads must find it. */
  #positionText(entry: DatabaseEntry): string {
    const position = this.#host.isPrimary() ? entry.db.position : entry.visiblePosition;
    return `${formatPosition(position)}\n`;
  }

  #openNode(node: Node): number {
    const text = node.type === "text" ? Buffer.from(node.content()) : undefined;
    if (node.type === "file") node.opens++;
    const handle: Handle = { node, text, wrote: false };
    const fh = this.#freeHandles.pop() ?? this.#handles.length;
    this.#handles[fh] = handle;
    return fh;
  }

  /** A dropped database's files close with the last descriptor that was open on them. */
  closeIfUnused(files: DatabaseFiles): void {
    for (const handle of this.#handles) {
      if (handle?.node.type === "file" && handle.node.files === files) return;
    }
    files.closeAll();
  }

  #entryOf(node: Node): FuseEntry {
    node.lookups++;
    const isFile = node.type === "file";
    return {
      nodeId: node.id,
      generation: 0,
      attr: this.#attributes(node),
      // `.lag` is always there; positions and `.primary` change behind the kernel's back.
      entryTimeoutMs: isFile || node.id === LAG_NODE_ID ? FOREVER_MS : 0,
      attrTimeoutMs: isFile ? FOREVER_MS : 0,
    };
  }

  #replyAttributes(request: FuseRequest, node: Node): void {
    const timeoutMs = node.type === "file" ? FOREVER_MS : 0;
    const attr = this.#attributes(node);
    this.#replies.replyAttr(request.uniqueLo, request.uniqueHi, attr, timeoutMs);
  }

  #attributes(node: Node): FileAttributes {
    const isFile = node.type === "file";
    const size = isFile
      ? node.files.size(node.kind)
      : node.id === PRIMARY_NODE_ID
        ? Buffer.byteLength(node.content())
        : node.size;
    const timeMs = isFile
      ? Math.max(node.entry.db.log.state.timestampMs, this.#mountedAtMs)
      : Date.now();
    return {
      ino: node.id,
      size,
      blocks: Math.ceil(size / 512),
      atimeMs: timeMs,
      mtimeMs: timeMs,
      ctimeMs: timeMs,
      mode: S_IFREG | (isFile ? 0o666 : 0o444),
      nlink: 1,
      uid: this.#uid,
      gid: this.#gid,
      rdev: 0,
      blksize: 4096,
    };
  }

  #rootAttributes(): FileAttributes {
    return {
      ino: FUSE_ROOT_ID,
      size: 0,
      blocks: 0,
      atimeMs: this.#mountedAtMs,
      mtimeMs: this.#mountedAtMs,
      ctimeMs: this.#mountedAtMs,
      mode: S_IFDIR | 0o777,
      nlink: 2,
      uid: this.#uid,
      gid: this.#gid,
      rdev: 0,
      blksize: 4096,
    };
  }

  #replyOutcomeOrEmpty(request: FuseRequest, outcome: Outcome): void {
    this.#replyOutcome(request, outcome);
  }

  #replyOutcome(request: FuseRequest, outcome: Outcome): void {
    const { uniqueLo, uniqueHi } = request;
    if (outcome === "ok") this.#replies.replyEmpty(uniqueLo, uniqueHi);
    else this.#replies.replyError(uniqueLo, uniqueHi, ERRNO[outcome]);
    this.#host.afterReply();
  }
}

const ERRNO: Readonly<Record<Exclude<Outcome, "ok">, number>> = {
  "read-only": errno.EROFS,
  busy: errno.EBUSY,
  unsupported: errno.EOPNOTSUPP,
  io: errno.EIO,
};

/** Only for listings, where the number must be neither 0 nor that of another name. */
function inodeOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return (hash >>> 0) + FIRST_FREE_NODE_ID;
}

/** Sign and nine digits, as LiteFS writes it; the largest value means "not in sync yet". */
function lagText(lagMs: number): string {
  const capped = Math.min(LAG_MAX_MS, Math.max(0, Math.round(lagMs)));
  return `+${String(capped).padStart(9, "0")}\n`.slice(0, LAG_FILE_BYTES);
}
