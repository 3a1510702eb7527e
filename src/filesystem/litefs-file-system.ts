import type { Database } from "../database/database.ts";
import type { DatabaseFiles } from "../database/database-files.ts";
import type { FinalOutcome, Outcome } from "../database/outcome.ts";
import {
  F_UNLCK,
  FATTR_GID,
  FATTR_MODE,
  FATTR_SIZE,
  FATTR_UID,
  FUSE_ROOT_ID,
} from "../fuse/constants.ts";
import * as errno from "../fuse/errno.ts";
import type { FuseHandler, SetattrFields } from "../fuse/handler.ts";
import { OUT_HEADER_BYTES } from "../fuse/replies.ts";
import type { FuseReplies } from "../fuse/replies.ts";
import type { FuseRequest } from "../fuse/request.ts";
import { foldAbandonedWal } from "./abandoned-changes.ts";
import { ApplicationLocks } from "./application-locks.ts";
import { Conversion, startsLikeDatabase } from "./conversion.ts";
import type { DatabaseTable } from "./database-table.ts";
import { DeferredAnswers } from "./deferred-answers.ts";
import { DirectoryListings } from "./directory-listings.ts";
import type { DirectoryEntry } from "./directory-listings.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import type { FileSystemHost } from "./file-system-host.ts";
import { HandleTable } from "./handle-table.ts";
import { KernelLocks } from "./kernel-locks.ts";
import type { LockLink } from "./lock-link.ts";
import type { MountLocks } from "./mount-locks.ts";
import { NameRequests } from "./name-requests.ts";
import { Namespace } from "./namespace.ts";
import { NodeTable } from "./node-table.ts";
import { attributesOf, ERRNO, FOREVER_MS, isGone, rootAttributes } from "./nodes.ts";
import type { Node, TextNode } from "./nodes.ts";
import { EntryCache } from "./notifier.ts";
import type { Outbox, Retrievals } from "./notifier.ts";
import { OpenRequests } from "./open-requests.ts";
import { PlainFiles } from "./plain-files.ts";
import type { PlainNode } from "./plain-node.ts";
import { PlainRequests } from "./plain-requests.ts";
import { Renames } from "./renames.ts";
import { changeAccess } from "./shown-access.ts";
import { TextRequests } from "./text-requests.ts";
import { atOnce } from "./when-final.ts";
import { WalRunway } from "./wal-runway.ts";
import type { WriteTurnsHost } from "./write-turn-kinds.ts";

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
  readonly #plain: PlainFiles;
  readonly #plainRequests: PlainRequests;
  readonly #names: Namespace;
  readonly #nameRequests: NameRequests;
  readonly #conversion: Conversion;
  readonly #opens: OpenRequests;
  readonly #locks: MountLocks;
  readonly #texts: TextRequests;
  readonly #runway: WalRunway;
  readonly #deferred = new DeferredAnswers();
  #replies!: FuseReplies;

  /** Ordinary files are kept in a directory of their own. With `link` the kernel keeps the locks. */
  constructor(
    host: FileSystemHost,
    outbox: Outbox,
    retrievals: Retrievals,
    plainDirectory: string,
    link?: LockLink,
  ) {
    this.#host = host;
    this.#outbox = outbox;
    this.#retrievals = retrievals;
    const nodes = this.#nodes;
    const handles = this.#handles;
    const plain = new PlainFiles(plainDirectory, nodes);
    const policy = {
      isPrimary: () => host.isPrimary(),
      mayCommit: () => host.mayCommit(),
      isAnyoneWriting: () => this.#isAnyoneWriting(),
    };
    const asked = new ApplicationLocks(policy);
    const kept =
      link === undefined
        ? undefined
        : new KernelLocks({ link, nodes, logger: host.logger, ...policy });
    const locks = kept ?? asked;
    this.#locks = locks;
    const turnsHost: WriteTurnsHost = {
      isHeldBack: () => locks.isHoldingBack,
      isPrimary: () => host.isPrimary(),
      answer: (lock, answer) => asked.answer(lock, answer),
      unlocked: (node) => asked.serveWaiters(node),
      tell: (event) => host.tell(event),
    };
    const show = (db: Database): DatabaseEntry => this.#show(db);
    const makeParts = kept === undefined ? undefined : kept.partsOf.bind(kept);
    const names = new Namespace(host, nodes, plain, show, turnsHost, makeParts);
    this.#conversion = new Conversion({
      host,
      nodes,
      handles,
      plain,
      entryFor: (name) => names.entryFor(name),
      closeIfUnused: (files) => this.closeIfUnused(files),
    });
    names.conversion = this.#conversion;
    const plainRequests = new PlainRequests(plain, handles);
    this.#runway = new WalRunway((message) => host.storeNow(message));
    const renames = new Renames(host, names, plain, this.#conversion);
    const deferred = this.#deferred;
    outbox.isWriteHeld = () => !deferred.isEmpty;
    this.#texts = new TextRequests(handles, kept && host.logger);
    const files = {
      nodes,
      handles,
      names,
      plain,
      plainRequests,
      renames,
      runway: this.#runway,
      texts: this.#texts,
    };
    const all = { host, ...files, deferred, flush: () => outbox.flush(), locks };
    this.#nameRequests = new NameRequests(all);
    this.#opens = new OpenRequests({ ...all, conversion: this.#conversion });
    this.#plain = plain;
    this.#plainRequests = plainRequests;
    this.#names = names;
  }

  get entries(): DatabaseTable {
    return this.#names.entries;
  }

  /** Shows a database in the mount. */
  add(db: Database): DatabaseEntry {
    const entry = this.#show(db);
    // An ordinary file had the name until now.
    const known = this.#plain.root.children.get(db.name);
    if (known !== undefined && !this.#conversion.giveWay(known, entry)) {
      db.kernel.invalidateName("database");
    }
    return entry;
  }

  #show(db: Database): DatabaseEntry {
    const entry = this.#names.add(db);
    db.kernel = new EntryCache(entry, this.#outbox, this.#retrievals);
    return entry;
  }

  pauseWrites(whenQuiet: () => void): void {
    this.#locks.pauseWrites(whenQuiet);
  }
  resumeWrites(): void {
    this.#locks.resumeWrites();
    for (const { turns } of this.entries.awake()) turns.serve();
  }
  /** Somebody may have ended what he was writing. */
  checkQuiet(): void {
    this.#locks.checkQuiet();
  }

  #isAnyoneWriting(): boolean {
    let isAny = false;
    // All of them, also where the answer is known: each may have to be kept from writing.
    for (const entry of this.entries.awake()) {
      const isWriting = this.#locks.isWriting(entry) || entry.turns.loan !== undefined;
      // A file that is overwritten as a whole, without locks.
      const isLoose = entry.db.hasOpenChanges && (entry.nodes.get("database")?.opens ?? 0) > 0;
      isAny ||= isWriting || isLoose;
    }
    return isAny;
  }

  init(replies: FuseReplies): void {
    this.#replies = replies;
    this.#locks.replies = replies;
    this.#texts.replies = replies;
    this.#opens.replies = replies;
    this.#nameRequests.replies = replies;
    this.#plainRequests.replies = replies;
  }

  // Names.

  lookup(request: FuseRequest, name: string): void {
    if (!this.#locks.lookup(request, name)) this.#nameRequests.lookup(request, name);
  }
  create(request: FuseRequest, name: string, flags: number, mode: number): void {
    this.#nameRequests.create(request, name, flags, mode);
  }
  unlink(request: FuseRequest, name: string): void {
    this.#nameRequests.unlink(request, name);
  }
  rename(r: FuseRequest, name: string, newParentId: number, newName: string, flags: number): void {
    this.#nameRequests.rename(r, name, newParentId, newName, flags);
  }
  mkdir(request: FuseRequest, name: string, mode: number): void {
    this.#nameRequests.mkdir(request, name, mode);
  }
  rmdir(request: FuseRequest, name: string): void {
    this.#nameRequests.rmdir(request, name);
  }
  symlink(request: FuseRequest, name: string, target: string): void {
    this.#nameRequests.symlink(request, name, target);
  }
  mknod(request: FuseRequest, name: string, mode: number): void {
    this.#nameRequests.mknod(request, name, mode);
  }
  /** Two names for one file: of a database they could not be replicated. */
  link(request: FuseRequest): void {
    this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.EPERM);
  }
  readlink(request: FuseRequest): void {
    const node = this.#nodes.get(request.nodeId);
    if (node?.type === "plain") this.#plainRequests.readlink(request, node);
    else this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.EINVAL);
  }

  forget(nodeId: number, lookupCount: number): void {
    this.#nodes.forget(nodeId, lookupCount);
  }

  // Attributes.

  getattr(request: FuseRequest): void {
    const { uniqueLo, uniqueHi, nodeId } = request;
    const node = this.#nodes.get(nodeId);
    if (nodeId === FUSE_ROOT_ID) {
      this.#replies.replyAttr(uniqueLo, uniqueHi, rootAttributes(), FOREVER_MS);
    } else if (node === undefined) this.#replies.replyError(uniqueLo, uniqueHi, errno.ESTALE);
    else if (node.type === "plain") this.#plainRequests.getattr(request, node);
    else if (node.type === "file" && isGivenUp(node)) {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EIO);
    } else this.#replyAttributes(request, node);
  }

  setattr(request: FuseRequest, valid: number, fields: SetattrFields): void {
    const node = this.#nodes.get(request.nodeId);
    if (request.nodeId === FUSE_ROOT_ID) {
      this.getattr(request);
      return;
    }
    if (node?.type === "plain") {
      this.#plainRequests.setattr(request, node, valid, fields);
      return;
    }
    if (node === undefined || node.type === "text") {
      this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.EACCES);
      return;
    }
    const isOfDatabase = node.kind === "database" && node.files === node.entry.db.files;
    if (isOfDatabase && (valid & (FATTR_MODE | FATTR_UID | FATTR_GID)) !== 0) {
      changeAccess(node.files.pathOf("database"), valid, fields);
      node.entry.forgetAccess();
    }
    if ((valid & FATTR_SIZE) === 0) {
      this.#replyAttributes(request, node);
      return;
    }
    const { uniqueLo, uniqueHi } = request;
    if (node.kind === "database") this.#handles.markWritten(fields.fh);
    this.#deferred.whenFinal(request, node.entry.db, this.#truncate(node, fields.size), (final) => {
      if (final === "ok") this.#replyAttributes({ uniqueLo, uniqueHi }, node);
      else this.#replyOutcome(uniqueLo, uniqueHi, final);
      this.#locks.changed(node);
    });
  }

  #truncate(node: FileNode, sizeBytes: number): Outcome {
    if (node.isUnlinked) return "ok";
    if (node.files.isRevoked) return "io";
    if (node.files !== node.entry.db.files) {
      node.files.get(node.kind)?.truncate(sizeBytes);
      return "ok";
    }
    if (node.kind === "shm") node.entry.forgetIndex();
    if (node.kind === "wal") this.#runway.forget(node);
    // Whoever copies a file over a database empties it first. No checkpoint does.
    const folded = sizeBytes === 0 ? foldAbandonedWal(node) : "ok";
    return folded === "ok" ? node.entry.db.truncate(node.kind, sizeBytes) : folded;
  }

  access(request: FuseRequest): void {
    const { uniqueLo, uniqueHi } = request;
    if (isGone(this.#nodes.get(request.nodeId))) {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.ESTALE);
    } else this.#replies.replyEmpty(uniqueLo, uniqueHi);
  }

  statfs(request: FuseRequest): void {
    this.#replies.replyStatfs(request.uniqueLo, request.uniqueHi, this.#host.statistics());
  }

  // Files.

  open(request: FuseRequest, flags: number): void {
    this.#opens.open(request, flags);
  }
  flush(request: FuseRequest, fh: number, ownerLo: number, ownerHi: number): void {
    this.#opens.flush(request, fh, ownerLo, ownerHi);
  }
  release(request: FuseRequest, fh: number): void {
    this.#opens.release(request, fh);
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
      this.#texts.read(request, handle, offset, size);
      return;
    }
    if (node.type === "plain") {
      this.#plainRequests.read(request, node, offset, size);
      return;
    }
    // Never wrong data. (A wal-index that is mapped and cannot be read would kill whoever has it.)
    if (node.files.isRevoked && node.kind !== "shm") {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EIO);
      return;
    }
    if (node.kind === "shm") node.entry.indexIsRead(offset);
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
    let node = this.#nodes.get(request.nodeId);
    if (this.#isUndecided(node)) {
      const decided = this.#decide(node, offset, data, dataStart, size);
      if (typeof decided === "number") {
        this.#replies.replyError(uniqueLo, uniqueHi, decided);
        return;
      }
      node = decided;
    }
    if (node?.type === "plain") {
      this.#plainRequests.write(request, node, offset, data, dataStart, size);
      this.#host.afterReply();
      return;
    }
    if (node === undefined || node.type === "text") {
      this.#texts.write(request, node, fh, offset, size);
      return;
    }
    try {
      this.#writeFile(request, node, fh, offset, data, dataStart, size);
    } finally {
      this.#locks.changed(node);
    }
  }

  #writeFile(
    request: FuseRequest,
    node: FileNode,
    fh: number,
    offset: number,
    data: Uint8Array,
    dataStart: number,
    size: number,
  ): void {
    const { uniqueLo, uniqueHi, pid } = request;
    const { entry, kind } = node;
    let outcome: Outcome = "ok";
    if (node.isUnlinked) {
      // SQLite removes -shm before it unmaps it, and the kernel writes the mapping back after.
    } else if (node.files.isRevoked) {
      outcome = "io";
    } else if (node.files !== entry.db.files) {
      node.files.get(kind)?.writeAt(data, dataStart, size, offset);
    } else {
      outcome = entry.db.write(kind, offset, data, dataStart, size);
      if (kind === "database") this.#handles.markWritten(fh);
      if (kind === "wal" && outcome === "ok") this.#runway.extend(node, offset + size);
    }
    if (outcome === "ok" && !entry.db.owesKernel) {
      this.#replies.replyWrite(uniqueLo, uniqueHi, size);
      this.#host.afterReply();
      return;
    }
    this.#deferred.whenFinal({ uniqueLo, uniqueHi, pid }, entry.db, outcome, (final) => {
      if (final !== "ok") {
        this.#replyOutcome(uniqueLo, uniqueHi, final);
        return;
      }
      if (kind === "wal") this.#runway.extend(node, offset + size);
      this.#replies.replyWrite(uniqueLo, uniqueHi, size);
      this.#host.afterReply();
      this.#locks.changed(node);
    });
  }

  /** Whether what is about to be written decides if a file is, or still is, a database. */
  #isUndecided(node: Node | undefined): node is FileNode | PlainNode {
    if (node?.type === "plain") return true;
    return node?.type === "file" && node.kind === "database" && node.entry.db.isEmptied;
  }

  /** The node after that decision, or the error to answer with. */
  #decide(
    node: FileNode | PlainNode,
    offset: number,
    data: Uint8Array,
    start: number,
    size: number,
  ): FileNode | PlainNode | number {
    if (node.type === "plain") {
      if (!this.#conversion.becomesDatabase(node, offset, data, start, size)) return node;
      if (!this.#host.isPrimary()) return errno.EROFS;
      const file = this.#conversion.promote(node);
      if (file === undefined) return errno.EIO;
      this.#locks.adopted(file);
      return file;
    }
    if (node.files !== node.entry.db.files || offset > 0) return node;
    if (startsLikeDatabase(data, start, size)) return node;
    if (!this.#opens.mayDrop(node)) return errno.EROFS;
    return this.#conversion.demote(node, this.#plain.root, node.entry.db.name);
  }

  fsync(request: FuseRequest): void {
    const node = this.#nodes.get(request.nodeId);
    if (node?.type === "plain") this.#plainRequests.fsync(request, node);
    else if (node?.type === "file") {
      const { uniqueLo, uniqueHi } = request;
      const { db } = node.entry;
      const answer = (final: FinalOutcome): void => this.#replyOutcome(uniqueLo, uniqueHi, final);
      const whenSynced = (then: typeof answer): void => db.whenSynced(then);
      try {
        this.#deferred.whenFinal(request, db, sync(node), answer, whenSynced);
      } finally {
        this.#locks.changed(node);
      }
    } else this.#replyFinal(request, "ok");
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
    const node = this.#nodes.lockable(request.nodeId);
    if (node === undefined) {
      const owner = { ownerLo, ownerHi, fh, pid };
      const text = this.#nodes.get(request.nodeId);
      this.#texts.setlk(request, text, owner, start, end, type, wait);
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
    const text = this.#nodes.get(request.nodeId);
    if (this.#texts.getlk(request, text, { ownerLo, ownerHi }, start, end)) return;
    const node = this.#nodes.lockable(request.nodeId);
    this.#locks.get(request, node, ownerLo, ownerHi, start, end, type);
  }

  interrupt(targetLo: number, targetHi: number): void {
    this.#deferred.interrupt(targetLo, targetHi);
    this.#locks.interrupt(targetLo, targetHi);
    this.#texts.interrupt(targetLo, targetHi);
  }

  // Directories.

  opendir(request: FuseRequest): void {
    const directory = this.#nodes.get(request.nodeId);
    if (directory?.type === "plain") this.#plain.syncNames(directory);
    // SQLite opens the directory only to sync it: what is in it is asked for by READDIR.
    const fh = this.#listings.open();
    this.#replies.replyOpen(request.uniqueLo, request.uniqueHi, fh, 0);
  }

  readdir(request: FuseRequest, fh: number, offset: number, size: number): void {
    // A reader that goes back to the start wants to see what there is now.
    if (offset === 0 || !this.#listings.isListed(fh))
      this.#listings.replace(fh, this.#list(request.nodeId));
    this.#listings.fill(fh, offset, this.#replies.startDirectory(size));
    this.#replies.replyDirectory(request.uniqueLo, request.uniqueHi);
  }

  #list(nodeId: number): DirectoryEntry[] {
    const node = this.#nodes.get(nodeId);
    if (node?.type !== "plain") return [];
    return node === this.#plain.root ? this.#names.list() : this.#plain.list(node);
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
    this.#locks.woken();
    this.#host.afterReply();
  }

  /** The mount is about to end; calls back when nothing of this process is in the way. */
  releaseLocks(then: () => void): void {
    this.#locks.release(then);
  }

  // Nodes and handles.

  closeIfUnused(files: DatabaseFiles): void {
    this.#opens.closeIfUnused(files);
  }

  #replyAttributes(
    request: Pick<FuseRequest, "uniqueLo" | "uniqueHi">,
    node: FileNode | TextNode,
  ): void {
    const timeoutMs = node.type === "file" ? FOREVER_MS : 0;
    this.#replies.replyAttr(request.uniqueLo, request.uniqueHi, attributesOf(node), timeoutMs);
  }

  #replyFinal({ uniqueLo, uniqueHi }: FuseRequest, outcome: Outcome): void {
    this.#replyOutcome(uniqueLo, uniqueHi, atOnce(outcome));
  }

  #replyOutcome(uniqueLo: number, uniqueHi: number, outcome: FinalOutcome): void {
    if (outcome === "ok") this.#replies.replyEmpty(uniqueLo, uniqueHi);
    else this.#replies.replyError(uniqueLo, uniqueHi, ERRNO[outcome]);
    this.#host.afterReply();
  }
}

function sync(node: FileNode): Outcome {
  const { entry, files, kind } = node;
  if (files.isRevoked) return "io";
  if (files === entry.db.files) return entry.db.sync(kind);
  files.get(kind)?.sync();
  return "ok";
}

/** Its file has been moved away: a size of nothing would let SQLite read an empty database. */
function isGivenUp({ files, kind, entry }: FileNode): boolean {
  return files.isRevoked && files !== entry.db.files && kind !== "shm";
}
