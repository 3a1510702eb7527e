import type { DatabaseFiles } from "../database/database-files.ts";
import type { Outcome } from "../database/outcome.ts";
import { FOPEN_KEEP_CACHE, FOPEN_NOFLUSH } from "../fuse/constants.ts";
import * as errno from "../fuse/errno.ts";
import type { FuseReplies } from "../fuse/replies.ts";
import type { FuseRequest } from "../fuse/request.ts";
import type { Conversion } from "./conversion.ts";
import type { FileNode } from "./entry.ts";
import type { FileSystemHost } from "./file-system-host.ts";
import type { HandleTable } from "./handle-table.ts";
import type { MountLocks } from "./mount-locks.ts";
import type { NodeTable } from "./node-table.ts";
import { ERRNO, isGone, openFlagsOf } from "./nodes.ts";
import type { PlainFiles } from "./plain-files.ts";
import type { PlainRequests } from "./plain-requests.ts";
import type { TextRequests } from "./text-requests.ts";
import { atOnce } from "./when-final.ts";

export interface OpenRequestsOptions {
  readonly host: FileSystemHost;
  readonly nodes: NodeTable;
  readonly handles: HandleTable;
  readonly plain: PlainFiles;
  readonly plainRequests: PlainRequests;
  readonly conversion: Conversion;
  readonly locks: MountLocks;
  readonly texts: TextRequests;
}

/** Answers the kernel's requests that open and close files. */
export class OpenRequests {
  readonly #options: OpenRequestsOptions;
  /** Set when the session begins. */
  replies!: FuseReplies;

  constructor(options: OpenRequestsOptions) {
    this.#options = options;
  }

  open(request: FuseRequest, flags: number): void {
    const { handles, locks, nodes, plainRequests, texts } = this.#options;
    const { uniqueLo, uniqueHi } = request;
    const node = nodes.get(request.nodeId);
    if (node === undefined || (isGone(node) && !locks.isOwn(request))) {
      this.replies.replyError(uniqueLo, uniqueHi, errno.ESTALE);
    } else if (node.type === "text") texts.open(request, node, flags);
    else if (node.type === "plain") plainRequests.open(request, node);
    else if (locks.isOwn(request)) {
      // Without FLUSH: nobody would be left to answer that if this process is killed.
      const fh = handles.open(node, true);
      this.replies.replyOpen(uniqueLo, uniqueHi, fh, FOPEN_KEEP_CACHE | FOPEN_NOFLUSH);
    } else this.#openFile({ uniqueLo, uniqueHi }, node);
  }

  #openFile(request: Pick<FuseRequest, "uniqueLo" | "uniqueHi">, node: FileNode): void {
    const { uniqueLo, uniqueHi } = request;
    this.#options.locks.opens(request, node, (refusal) => {
      if (refusal !== 0 || node.entry.db.status === "quarantined") {
        this.replies.replyError(uniqueLo, uniqueHi, refusal === 0 ? errno.EIO : refusal);
      } else if (isGone(node)) this.replies.replyError(uniqueLo, uniqueHi, errno.ESTALE);
      else {
        const fh = this.#options.handles.open(node);
        this.replies.replyOpen(uniqueLo, uniqueHi, fh, openFlagsOf(node.kind));
      }
    });
  }

  flush(request: FuseRequest, fh: number, ownerLo: number, ownerHi: number): void {
    const { handles, locks, texts } = this.#options;
    const { uniqueLo, uniqueHi } = request;
    const handle = handles.get(fh);
    const node = handle?.node;
    if (handle === undefined || node === undefined || node.type === "text") {
      const text = node?.type === "text" ? node : undefined;
      texts.flush(request, text, ownerLo, ownerHi);
      return;
    }
    let outcome: Outcome = "ok";
    const answer = (): void => {
      const final = atOnce(outcome);
      if (final === "ok") this.replies.replyEmpty(uniqueLo, uniqueHi);
      else this.replies.replyError(uniqueLo, uniqueHi, ERRNO[final]);
      this.#options.host.afterReply();
      locks.checkQuiet();
    };
    if (node.type !== "file" || node.kind !== "database") {
      locks.ownerCloses(request, node, ownerLo, ownerHi, answer);
      return;
    }
    locks.ownerCloses(request, node, ownerLo, ownerHi, () => {
      const { db } = node.entry;
      // The SETATTR of an open(2) with O_TRUNC does not name the descriptor.
      const mayBeLoose = (handle.wrote || db.isEmptied) && node.files === db.files;
      if (mayBeLoose && !locks.isBeingWritten(node, request)) outcome = this.#endLooseWrites(node);
      if (outcome === "ok") handle.wrote = false;
      answer();
    });
  }

  #endLooseWrites(node: FileNode): Outcome {
    const { db } = node.entry;
    if (!db.isEmptied) return db.endLooseWrites();
    if (!this.mayDrop(node)) return "read-only";
    this.#options.conversion.demote(node, this.#options.plain.root, db.name);
    return "ok";
  }

  /** A drop is a commit: it needs the lease, and that nobody else has the right to write. */
  mayDrop({ entry }: FileNode): boolean {
    return this.#options.host.mayCommit() && !entry.db.isLent && !entry.db.isFenced;
  }

  release(request: FuseRequest, fh: number): void {
    const { handles, host, locks, plain, texts } = this.#options;
    const handle = handles.close(fh);
    const node = handle?.node;
    if (node?.type === "file") {
      if (handle?.isOwn !== true) locks.handleCloses(node, fh);
      if (node.files !== node.entry.db.files) this.closeIfUnused(node.files);
      else if (node.entry.openCount("any") === 0) host.closed(node.entry);
    } else if (node?.type === "plain") {
      if (handle?.isOwn !== true) locks.handleCloses(node, fh);
      plain.closeIfUnused(node);
    } else if (node !== undefined) texts.release(node, fh);
    this.replies.replyEmpty(request.uniqueLo, request.uniqueHi);
    host.afterReply();
  }

  /** A dropped database's files close with the last descriptor that was open on them. */
  closeIfUnused(files: DatabaseFiles): void {
    if (!this.#options.handles.isOpen(files)) files.closeAll();
  }
}
