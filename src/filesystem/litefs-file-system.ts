import type { Database } from "../database/database.ts";
import type { DatabaseFiles } from "../database/database-files.ts";
import type { Outcome } from "../database/outcome.ts";
import type { FuseEntry } from "../fuse/attributes.ts";
import {
  F_UNLCK,
  FATTR_SIZE,
  FOPEN_DIRECT_IO,
  FOPEN_KEEP_CACHE,
  FUSE_ROOT_ID,
  O_ACCMODE,
  O_EXCL,
  O_RDONLY,
} from "../fuse/constants.ts";
import * as errno from "../fuse/errno.ts";
import type { FuseHandler, SetattrFields } from "../fuse/handler.ts";
import { OUT_HEADER_BYTES } from "../fuse/replies.ts";
import type { FuseReplies } from "../fuse/replies.ts";
import type { FuseRequest } from "../fuse/request.ts";
import { ApplicationLocks } from "./application-locks.ts";
import type { FileSystemHost } from "./file-system-host.ts";
import { DirectoryListings } from "./directory-listings.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import { HandleTable } from "./handle-table.ts";
import { parseName } from "./names.ts";
import { Namespace } from "./namespace.ts";
import { NodeTable } from "./node-table.ts";
import { attributesOf, LAG_NODE_ID, rootAttributes } from "./nodes.ts";
import type { Node } from "./nodes.ts";
import { EntryCache } from "./notifier.ts";
import type { Outbox, Retrievals } from "./notifier.ts";
import { WalRunway } from "./wal-runway.ts";

/** Every change reaches the kernel through itself or by notification, so it may remember for long. */
const FOREVER_MS = 24 * 3600 * 1000;

/**
 * The mount as the kernel sees it: names, nodes, handles and locks. What the bytes mean is the
 * engine's business. Runs on the mount thread, one request at a time, and never waits.
 */
export class LitefsFileSystem implements FuseHandler {
  readonly #host: FileSystemHost;
  readonly #outbox: Outbox;
  readonly #retrievals: Retrievals;
  readonly #nodes = new NodeTable();
  readonly #handles = new HandleTable();
  readonly #listings = new DirectoryListings();
  readonly #names: Namespace;
  readonly #locks: ApplicationLocks;
  readonly #runway: WalRunway;
  readonly #mountedAtMs = Date.now();
  #replies!: FuseReplies;

  constructor(host: FileSystemHost, outbox: Outbox, retrievals: Retrievals) {
    this.#host = host;
    this.#outbox = outbox;
    this.#retrievals = retrievals;
    this.#names = new Namespace(host, this.#nodes);
    this.#locks = new ApplicationLocks(() => host.isPrimary());
    this.#runway = new WalRunway((message) => host.storeNow(message));
  }

  get entries(): ReadonlyMap<string, DatabaseEntry> {
    return this.#names.entries;
  }

  /** Shows a database in the mount. */
  add(db: Database): DatabaseEntry {
    const entry = this.#names.add(db);
    db.kernel = new EntryCache(entry, this.#outbox, this.#retrievals);
    return entry;
  }

  init(replies: FuseReplies): void {
    this.#replies = replies;
    this.#locks.replies = replies;
  }

  // Names.

  lookup(request: FuseRequest, name: string): void {
    const { uniqueLo, uniqueHi } = request;
    const node = this.#names.find(name);
    if (node === undefined) {
      const parsed = parseName(name);
      // Database files appear through the kernel or with a notification; the others just appear.
      const timeoutMs = parsed.kind === "file" ? FOREVER_MS : 0;
      this.#replies.replyNegativeEntry(uniqueLo, uniqueHi, timeoutMs);
      return;
    }
    this.#replies.replyEntry(uniqueLo, uniqueHi, this.#entryOf(node));
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
    const fh = this.#handles.open(node);
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
    this.#notHere(request);
  }
  rmdir(request: FuseRequest): void {
    this.#notHere(request);
  }
  symlink(request: FuseRequest): void {
    this.#notHere(request);
  }
  link(request: FuseRequest): void {
    this.#notHere(request);
  }
  mknod(request: FuseRequest): void {
    this.#notHere(request);
  }
  #notHere({ uniqueLo, uniqueHi }: FuseRequest): void {
    this.#replies.replyError(uniqueLo, uniqueHi, errno.EPERM);
  }

  forget(nodeId: number, lookupCount: number): void {
    this.#nodes.forget(nodeId, lookupCount);
  }

  // Attributes.

  getattr(request: FuseRequest): void {
    const { uniqueLo, uniqueHi, nodeId } = request;
    const node = this.#nodes.get(nodeId);
    if (node !== undefined) this.#replyAttributes(request, node);
    else if (nodeId !== FUSE_ROOT_ID) this.#replies.replyError(uniqueLo, uniqueHi, errno.ESTALE);
    else this.#replies.replyAttr(uniqueLo, uniqueHi, rootAttributes(this.#mountedAtMs), FOREVER_MS);
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
      if (node.kind === "database") this.#handles.markWritten(fields.fh);
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
      this.#replies.replyOpen(uniqueLo, uniqueHi, this.#handles.open(node), FOPEN_DIRECT_IO);
      return;
    }
    if (node.entry.db.status === "quarantined") {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EIO);
      return;
    }
    this.#replies.replyOpen(uniqueLo, uniqueHi, this.#handles.open(node), FOPEN_KEEP_CACHE);
  }

  read(request: FuseRequest, fh: number, offset: number, size: number): void {
    const { uniqueLo, uniqueHi } = request;
    const handle = this.#handles.get(fh);
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
      if (kind === "database") this.#handles.markWritten(fh);
      if (kind === "wal" && outcome === "ok") this.#runway.extend(node, offset + size);
    }
    if (outcome === "ok") this.#replies.replyWrite(uniqueLo, uniqueHi, size);
    else this.#replyOutcome(request, outcome);
    this.#host.afterReply();
  }

  fsync(request: FuseRequest): void {
    const node = this.#nodes.file(request.nodeId);
    let outcome: Outcome = "ok";
    if (node !== undefined && node.files !== node.entry.db.files) node.files.get(node.kind)?.sync();
    else if (node !== undefined) outcome = node.entry.db.sync(node.kind);
    this.#replyOutcome(request, outcome);
  }

  flush(request: FuseRequest, fh: number, ownerLo: number, ownerHi: number): void {
    const handle = this.#handles.get(fh);
    const node = handle?.node;
    if (node?.type !== "file") {
      this.#replies.replyEmpty(request.uniqueLo, request.uniqueHi);
      return;
    }
    const { entry, kind } = node;
    let outcome: Outcome = "ok";
    this.#locks.ownerCloses(node, ownerLo, ownerHi);
    if (handle?.wrote === true && kind === "database" && node.files === entry.db.files) {
      if (!this.#locks.isBeingWritten(node)) outcome = entry.db.endLooseWrites();
      if (outcome === "ok") handle.wrote = false;
    }
    this.#replyOutcome(request, outcome);
  }

  release(request: FuseRequest, fh: number): void {
    const node = this.#handles.close(fh)?.node;
    if (node?.type === "file") {
      this.#locks.handleCloses(node, fh);
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
    const node = this.#nodes.file(request.nodeId);
    if (node === undefined) {
      this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.ENOLCK);
      return;
    }
    this.#locks.set(request, node, fh, ownerLo, ownerHi, start, end, type, pid, wait);
    if (type === F_UNLCK) this.#host.afterReply();
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
    const node = this.#nodes.file(request.nodeId);
    this.#locks.get(request, node, ownerLo, ownerHi, start, end, type);
  }

  interrupt(targetLo: number, targetHi: number): void {
    this.#locks.interrupt(targetLo, targetHi);
  }

  // Directories.

  opendir(request: FuseRequest): void {
    const fh = this.#listings.open(this.#names.list());
    this.#replies.replyOpen(request.uniqueLo, request.uniqueHi, fh, 0);
  }

  readdir(request: FuseRequest, fh: number, offset: number, size: number): void {
    // A reader that goes back to the start wants to see what there is now.
    if (offset === 0) this.#listings.replace(fh, this.#names.list());
    this.#listings.fill(fh, offset, this.#replies.startDirectory(size));
    this.#replies.replyDirectory(request.uniqueLo, request.uniqueHi);
  }

  releasedir(request: FuseRequest, fh: number): void {
    this.#listings.close(fh);
    this.#replies.replyEmpty(request.uniqueLo, request.uniqueHi);
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

  /** A dropped database's files close with the last descriptor that was open on them. */
  closeIfUnused(files: DatabaseFiles): void {
    if (!this.#handles.isOpen(files)) files.closeAll();
  }

  #entryOf(node: Node): FuseEntry {
    node.lookups++;
    const isFile = node.type === "file";
    return {
      nodeId: node.id,
      generation: 0,
      attr: attributesOf(node, this.#mountedAtMs),
      // `.lag` is always there; positions and `.primary` change behind the kernel's back.
      entryTimeoutMs: isFile || node.id === LAG_NODE_ID ? FOREVER_MS : 0,
      attrTimeoutMs: isFile ? FOREVER_MS : 0,
    };
  }

  #replyAttributes(request: FuseRequest, node: Node): void {
    const timeoutMs = node.type === "file" ? FOREVER_MS : 0;
    const attr = attributesOf(node, this.#mountedAtMs);
    this.#replies.replyAttr(request.uniqueLo, request.uniqueHi, attr, timeoutMs);
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
