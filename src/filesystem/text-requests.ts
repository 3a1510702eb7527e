import { FOPEN_DIRECT_IO, O_ACCMODE, O_RDONLY, O_RDWR } from "../fuse/constants.ts";
import * as errno from "../fuse/errno.ts";
import type { FuseReplies } from "../fuse/replies.ts";
import type { FuseRequest } from "../fuse/request.ts";
import type { Logger } from "../lib/log.ts";
import { HaltLocks } from "./halt-locks.ts";
import type { Owner } from "./halt-locks.ts";
import type { Handle, HandleTable } from "./handle-table.ts";
import type { Node, TextNode } from "./nodes.ts";

/**
 * Answers the kernel's requests about virtual files, of which one can be locked: `DB-lock`.
 *
 * Where the kernel keeps the locks it grants one of `DB-lock` by itself, and that would mean nothing.
 * Whoever comes for one, as programs made for LiteFS do, opens the file for reading and writing: he is
 * refused there. Opened for writing only it takes a write of one byte, see HaltLocks.
 */
export class TextRequests {
  readonly #handles: HandleTable;
  /** Told of programs that are refused; there where the kernel keeps the locks. */
  readonly #logger: Logger | undefined;
  readonly #halts = new HaltLocks();
  #replies!: FuseReplies;

  constructor(handles: HandleTable, logger: Logger | undefined) {
    this.#handles = handles;
    this.#logger = logger;
  }

  /** Set when the session begins. */
  set replies(replies: FuseReplies) {
    this.#replies = replies;
    this.#halts.replies = replies;
  }

  open({ uniqueLo, uniqueHi }: FuseRequest, node: TextNode, flags: number): void {
    const access = flags & O_ACCMODE;
    // Who wants a write lock must have the file open for writing.
    if (access !== O_RDONLY && node.haltLockOf === undefined) {
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EACCES);
    } else if (access === O_RDWR && this.#logger !== undefined) {
      this.#logger.warn("refused a halt lock by fcntl, the kernel keeps the locks", {
        db: node.haltLockOf?.db.name,
        remedy: "open the file for writing only, and write one byte at offset 72",
      });
      this.#replies.replyError(uniqueLo, uniqueHi, errno.EOPNOTSUPP);
    } else {
      this.#replies.replyOpen(uniqueLo, uniqueHi, this.#handles.open(node), FOPEN_DIRECT_IO);
    }
  }

  read(request: FuseRequest, handle: Handle, offset: number, size: number): void {
    const text = handle.text ?? new Uint8Array(0);
    const bytes = text.subarray(offset, offset + size);
    this.#replies.replyBytes(request.uniqueLo, request.uniqueHi, bytes);
  }

  write(
    request: FuseRequest,
    node: TextNode | undefined,
    fh: number,
    offset: number,
    size: number,
  ): void {
    const entry = node?.haltLockOf;
    if (entry !== undefined) this.#halts.write(request, entry, fh, offset, size, request.pid);
    else this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.EBADF);
  }

  flush(request: FuseRequest, node: TextNode | undefined, ownerLo: number, ownerHi: number): void {
    const entry = node?.haltLockOf;
    if (entry !== undefined) this.#halts.ownerCloses(entry, { ownerLo, ownerHi });
    this.#replies.replyEmpty(request.uniqueLo, request.uniqueHi);
  }

  release(node: TextNode, fh: number): void {
    if (node.haltLockOf !== undefined) this.#halts.handleCloses(node.haltLockOf, fh);
  }

  setlk(
    request: FuseRequest,
    node: Node | undefined,
    owner: Owner,
    start: number,
    end: number,
    type: number,
    wait: boolean,
  ): void {
    const entry = node?.type === "text" ? node.haltLockOf : undefined;
    if (entry !== undefined) this.#halts.set(request, entry, owner, start, end, type, wait);
    else this.#replies.replyError(request.uniqueLo, request.uniqueHi, errno.ENOLCK);
  }

  /** False when this is no file that is locked here. */
  getlk(
    request: FuseRequest,
    node: Node | undefined,
    owner: Pick<Owner, "ownerLo" | "ownerHi">,
    start: number,
    end: number,
  ): boolean {
    const entry = node?.type === "text" ? node.haltLockOf : undefined;
    if (entry !== undefined) this.#halts.get(request, entry, owner, start, end);
    return entry !== undefined;
  }

  interrupt(targetLo: number, targetHi: number): void {
    this.#halts.interrupt(targetLo, targetHi);
  }
}
