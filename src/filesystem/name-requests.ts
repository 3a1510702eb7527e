import type { FinalOutcome } from "../database/outcome.ts";
import { O_EXCL, S_IFMT, S_IFREG } from "../fuse/constants.ts";
import * as errno from "../fuse/errno.ts";
import type { FuseReplies } from "../fuse/replies.ts";
import type { FuseRequest } from "../fuse/request.ts";
import type { FileKind } from "../database/database-files.ts";
import type { DeferredAnswers } from "./deferred-answers.ts";
import type { DatabaseEntry } from "./entry.ts";
import type { FileSystemHost } from "./file-system-host.ts";
import type { HandleTable } from "./handle-table.ts";
import { parseName } from "./names.ts";
import type { MountLocks } from "./mount-locks.ts";
import type { Name } from "./names.ts";
import type { Namespace } from "./namespace.ts";
import type { NodeTable } from "./node-table.ts";
import { entryOf, ERRNO, FOREVER_MS, isGone, openFlagsOf } from "./nodes.ts";
import type { PlainFiles } from "./plain-files.ts";
import type { PlainNode } from "./plain-node.ts";
import type { PlainRequests } from "./plain-requests.ts";
import type { Renames } from "./renames.ts";
import type { WalRunway } from "./wal-runway.ts";
import { atOnce } from "./when-final.ts";

type RequestId = Pick<FuseRequest, "uniqueLo" | "uniqueHi">;

export interface NameRequestsOptions {
  readonly host: FileSystemHost;
  readonly nodes: NodeTable;
  readonly handles: HandleTable;
  readonly names: Namespace;
  readonly plain: PlainFiles;
  readonly plainRequests: PlainRequests;
  readonly renames: Renames;
  readonly runway: WalRunway;
  readonly deferred: DeferredAnswers;
  readonly locks: MountLocks;
  /** Sends the notifications that have collected. */
  flush(): void;
}

/**
 * Answers the kernel's requests about names. In the root a name may stand for a file of a database
 * or for a virtual one; everywhere else there are only ordinary files.
 */
export class NameRequests {
  readonly #options: NameRequestsOptions;
  /** Set when the session begins. */
  replies!: FuseReplies;

  constructor(options: NameRequestsOptions) {
    this.#options = options;
  }

  lookup(request: FuseRequest, name: string): void {
    const { plain, plainRequests } = this.#options;
    const parent = this.#directory(request.nodeId);
    this.#guard(request, () => {
      if (parent === plain.root) this.#lookupInRoot(request, name);
      else plainRequests.lookup(request, parent, name);
    });
  }

  #lookupInRoot(request: FuseRequest, name: string): void {
    const { uniqueLo, uniqueHi } = request;
    const { names } = this.#options;
    const node = names.findSleeping(name) ?? names.find(name);
    if (node === undefined) {
      const { kind } = parseName(name);
      // Files appear through the kernel or with a notification; the virtual ones just appear.
      const appears = kind === "file" || kind === "invalid";
      this.replies.replyNegativeEntry(uniqueLo, uniqueHi, appears ? FOREVER_MS : 0);
    } else if (node.type === "plain") this.#options.plainRequests.replyEntry(request, node);
    else this.replies.replyEntry(uniqueLo, uniqueHi, entryOf(node));
  }

  create(request: FuseRequest, name: string, flags: number, mode: number): void {
    const { names, plainRequests } = this.#options;
    const parent = this.#directory(request.nodeId);
    const parsed = this.#parse(parent, name);
    const refusal = this.#refuseNew(parsed, name);
    if (refusal !== undefined) {
      this.#replyError(request, refusal);
      return;
    }
    const entry = names.liveEntry(parsed);
    if (parsed.kind === "file" && entry !== undefined) {
      this.#createFile(request, entry, parsed.file, flags);
      return;
    }
    const exclusive = (flags & O_EXCL) !== 0;
    this.#guard(request, () => plainRequests.create(request, parent, name, mode, exclusive));
  }

  /** A file of a database that is there. */
  #createFile(request: FuseRequest, entry: DatabaseEntry, kind: FileKind, flags: number): void {
    const { uniqueLo, uniqueHi } = request;
    const { db } = entry;
    if (db.status === "quarantined") {
      this.#replyError(request, errno.EIO);
      return;
    }
    if ((flags & O_EXCL) !== 0 && db.files.exists(kind)) {
      this.#replyError(request, errno.EEXIST);
      return;
    }
    db.files.getOrCreate(kind);
    const node = entry.node(kind);
    if (kind === "wal") this.#options.runway.forget(node);
    const id = { uniqueLo, uniqueHi };
    this.#options.locks.opens(id, node, (refusal) => {
      if (refusal !== 0 || isGone(node)) {
        this.#replyError(id, refusal === 0 ? errno.ESTALE : refusal);
        return;
      }
      const fh = this.#options.handles.open(node);
      this.replies.replyCreate(uniqueLo, uniqueHi, entryOf(node), fh, openFlagsOf(kind));
    });
  }

  unlink(request: FuseRequest, name: string): void {
    const { host, names, plain, plainRequests } = this.#options;
    const parent = this.#directory(request.nodeId);
    const node = parent === plain.root ? names.find(name) : undefined;
    if (node?.type === "text") {
      // Of a database that is gone it is not listed, and whoever removes all that is finds it gone.
      const isDropped = this.#options.names.isOfDropped(name);
      this.#replyError(request, isDropped ? errno.ENOENT : errno.EPERM);
    } else if (node?.type === "file") {
      const { entry, kind } = node;
      const { uniqueLo, uniqueHi } = request;
      this.#options.deferred.whenFinal(request, entry.db, entry.db.unlink(kind), (outcome) => {
        // Also when nobody knows whether the commit counts that the journal was for.
        const hasGone = kind === "journal" && !entry.db.files.exists(kind);
        if (outcome === "ok" || hasGone) this.#unlinked(entry, kind);
        this.#replyOutcome({ uniqueLo, uniqueHi }, outcome);
        // The drop was one more transaction, after the last file was closed.
        if (entry.openCount("any") === 0) host.closed(entry);
        host.afterReply();
      });
    } else if (node === undefined && parent === plain.root && names.isOfDatabase(name)) {
      // It went with its database, of which the kernel has not heard yet; it waits for this answer.
      // SQLite takes it for an I/O error if a WAL that it has just seen is not there.
      this.replies.replyEmpty(request.uniqueLo, request.uniqueHi);
    } else this.#guard(request, () => plainRequests.unlink(request, parent, name));
  }

  #unlinked(entry: DatabaseEntry, kind: FileKind): void {
    if (kind !== "database") entry.unlinked(kind);
    else {
      for (const other of ["journal", "wal", "shm"] as const) {
        entry.db.kernel.invalidateName(other);
      }
      this.#options.flush();
    }
  }

  rename(
    request: FuseRequest,
    name: string,
    newParentId: number,
    newName: string,
    flags: number,
  ): void {
    const { host, renames } = this.#options;
    const from = this.#directory(request.nodeId);
    const to = this.#directory(newParentId);
    this.#guard(request, () => {
      const result = renames.rename(from, name, to, newName, flags);
      if (typeof result === "number") this.#replyError(request, result);
      else this.#replyOutcome(request, atOnce(result));
    });
    this.#options.flush();
    host.afterReply();
  }

  mkdir(request: FuseRequest, name: string, mode: number): void {
    const { plainRequests } = this.#options;
    this.#makeNew(request, name, (parent) => plainRequests.mkdir(request, parent, name, mode));
  }

  symlink(request: FuseRequest, name: string, target: string): void {
    const { plainRequests } = this.#options;
    this.#makeNew(request, name, (parent) => plainRequests.symlink(request, parent, name, target));
  }

  mknod(request: FuseRequest, name: string, mode: number): void {
    const { plainRequests } = this.#options;
    // Sockets, pipes and devices are nobody's data.
    if ((mode & S_IFMT) !== S_IFREG) this.#replyError(request, errno.EPERM);
    else {
      this.#makeNew(request, name, (parent) => plainRequests.mknod(request, parent, name, mode));
    }
  }

  rmdir(request: FuseRequest, name: string): void {
    const { plainRequests } = this.#options;
    const parent = this.#directory(request.nodeId);
    this.#guard(request, () => plainRequests.rmdir(request, parent, name));
  }

  #makeNew(request: FuseRequest, name: string, make: (parent: PlainNode) => void): void {
    const parent = this.#directory(request.nodeId);
    const parsed = this.#parse(parent, name);
    const isTaken = this.#options.names.liveEntry(parsed) !== undefined;
    const refusal = isTaken ? errno.EEXIST : this.#refuseNew(parsed, name);
    if (refusal !== undefined) this.#replyError(request, refusal);
    else this.#guard(request, () => make(parent));
  }

  /** Names that nothing new may have, or cannot at the moment. */
  #refuseNew(parsed: Name, name: string): number | undefined {
    const { host, names } = this.#options;
    switch (parsed.kind) {
      case "lag":
      case "role":
      case "primary":
        return errno.EACCES;
      case "position":
      case "lock":
        return names.find(name)?.type === "text" ? errno.EACCES : undefined;
      case "file": {
        const db = names.entries.get(parsed.database)?.db;
        if (db?.status === "quarantined") return errno.EIO;
        // Without the right to write, a journal could only be of a database that is made here.
        const isWritable = db === undefined ? host.isPrimary() : db.isWritable;
        return parsed.file === "journal" && !isWritable ? errno.EROFS : undefined;
      }
      case "invalid":
        return undefined;
    }
  }

  #parse(parent: PlainNode, name: string): Name {
    return parent === this.#options.plain.root ? parseName(name) : { kind: "invalid" };
  }

  #directory(nodeId: number): PlainNode {
    const { nodes, plain } = this.#options;
    const node = nodes.get(nodeId);
    return node?.type === "plain" ? node : plain.root;
  }

  /** What the system says of an ordinary file is the answer, and nothing to report. */
  #guard(request: FuseRequest, answer: () => void): void {
    try {
      answer();
    } catch (error) {
      const number = errno.systemErrno(error);
      if (number === undefined || number === errno.EIO || number === errno.ENOSPC) throw error;
      this.#replyError(request, number);
    }
  }

  #replyError({ uniqueLo, uniqueHi }: RequestId, number: number): void {
    this.replies.replyError(uniqueLo, uniqueHi, number);
  }

  #replyOutcome(request: RequestId, outcome: FinalOutcome): void {
    if (outcome === "ok") this.replies.replyEmpty(request.uniqueLo, request.uniqueHi);
    else this.#replyError(request, ERRNO[outcome]);
  }
}
