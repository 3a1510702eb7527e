import type { FuseEntry } from "../fuse/attributes.ts";
import { FATTR_SIZE, FOPEN_KEEP_CACHE } from "../fuse/constants.ts";
import * as errno from "../fuse/errno.ts";
import type { SetattrFields } from "../fuse/handler.ts";
import { OUT_HEADER_BYTES } from "../fuse/replies.ts";
import type { FuseReplies } from "../fuse/replies.ts";
import type { FuseRequest } from "../fuse/request.ts";
import type { HandleTable } from "./handle-table.ts";
import { companionSuffix } from "./names.ts";
import { FOREVER_MS } from "./nodes.ts";
import type { PlainFiles } from "./plain-files.ts";
import type { PlainNode } from "./plain-node.ts";

/** Answers the kernel's requests for ordinary files and directories. */
export class PlainRequests {
  readonly #plain: PlainFiles;
  readonly #handles: HandleTable;
  /** Set when the session begins. */
  replies!: FuseReplies;

  constructor(plain: PlainFiles, handles: HandleTable) {
    this.#plain = plain;
    this.#handles = handles;
  }

  lookup(request: FuseRequest, parent: PlainNode, name: string): void {
    const node = this.#plain.find(parent, name);
    if (node !== undefined) this.replyEntry(request, node);
    else this.replies.replyNegativeEntry(request.uniqueLo, request.uniqueHi, FOREVER_MS);
  }

  create(
    request: FuseRequest,
    parent: PlainNode,
    name: string,
    mode: number,
    exclusive: boolean,
  ): void {
    const node = this.#plain.create(parent, name, mode, request, exclusive);
    this.#plain.open(node);
    const fh = this.#handles.open(node);
    const entry = this.#entryOf(node);
    this.replies.replyCreate(request.uniqueLo, request.uniqueHi, entry, fh, FOPEN_KEEP_CACHE);
  }

  mknod(request: FuseRequest, parent: PlainNode, name: string, mode: number): void {
    this.replyEntry(request, this.#plain.create(parent, name, mode, request, true));
  }
  mkdir(request: FuseRequest, parent: PlainNode, name: string, mode: number): void {
    this.replyEntry(request, this.#plain.mkdir(parent, name, mode, request));
  }
  symlink(request: FuseRequest, parent: PlainNode, name: string, target: string): void {
    this.replyEntry(request, this.#plain.symlink(parent, name, target, request));
  }
  readlink(request: FuseRequest, node: PlainNode): void {
    this.replies.replyBytes(request.uniqueLo, request.uniqueHi, this.#plain.readlink(node));
  }

  unlink(request: FuseRequest, parent: PlainNode, name: string): void {
    this.#plain.unlink(parent, name);
    this.#replyEmpty(request);
  }
  rmdir(request: FuseRequest, parent: PlainNode, name: string): void {
    this.#plain.rmdir(parent, name);
    this.#replyEmpty(request);
  }

  getattr(request: FuseRequest, node: PlainNode): void {
    const attr = this.#plain.attributes(node);
    this.replies.replyAttr(request.uniqueLo, request.uniqueHi, attr, FOREVER_MS);
  }

  setattr(request: FuseRequest, node: PlainNode, valid: number, fields: SetattrFields): void {
    if ((valid & FATTR_SIZE) !== 0 && node.kind !== "file") {
      this.replies.replyError(request.uniqueLo, request.uniqueHi, errno.EINVAL);
      return;
    }
    this.#plain.setAttributes(node, valid, fields);
    this.getattr(request, node);
  }

  open(request: FuseRequest, node: PlainNode): void {
    this.#plain.open(node);
    const fh = this.#handles.open(node);
    this.replies.replyOpen(request.uniqueLo, request.uniqueHi, fh, FOPEN_KEEP_CACHE);
  }

  read(request: FuseRequest, node: PlainNode, offset: number, size: number): void {
    const out = this.replies.replyBuffer;
    const count = this.#plain.read(node, out, OUT_HEADER_BYTES, size, offset);
    this.replies.replyReadFromReplyBuffer(request.uniqueLo, request.uniqueHi, count);
  }

  write(
    request: FuseRequest,
    node: PlainNode,
    offset: number,
    data: Uint8Array,
    dataStart: number,
    size: number,
  ): void {
    this.#plain.write(node, data, dataStart, size, offset);
    this.replies.replyWrite(request.uniqueLo, request.uniqueHi, size);
  }

  fsync(request: FuseRequest, node: PlainNode): void {
    this.#plain.sync(node);
    this.#replyEmpty(request);
  }

  replyEntry(request: FuseRequest, node: PlainNode): void {
    this.replies.replyEntry(request.uniqueLo, request.uniqueHi, this.#entryOf(node));
  }

  #entryOf(node: PlainNode): FuseEntry {
    const attr = this.#plain.attributes(node);
    node.lookups++;
    // The journal or WAL of a database that is yet to come will be the database's.
    const mayChangeSides = node.isInRoot && companionSuffix(node.name) !== undefined;
    const entryTimeoutMs = mayChangeSides ? 0 : FOREVER_MS;
    return { nodeId: node.id, generation: 0, attr, entryTimeoutMs, attrTimeoutMs: FOREVER_MS };
  }

  #replyEmpty(request: FuseRequest): void {
    this.replies.replyEmpty(request.uniqueLo, request.uniqueHi);
  }
}
