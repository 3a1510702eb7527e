import { writeFileSync } from "node:fs";
import {
  S_IFDIR,
  S_IFREG,
  FATTR_SIZE,
  FOPEN_KEEP_CACHE,
  F_UNLCK,
  F_WRLCK,
} from "../../../src/fuse/constants.ts";
import { EAGAIN, EINTR, EEXIST, ENOENT, EINVAL } from "../../../src/fuse/errno.ts";
import type { FileAttributes, FuseEntry } from "../../../src/fuse/attributes.ts";
import type { FuseHandler, SetattrFields } from "../../../src/fuse/handler.ts";
import { type FuseReplies, OUT_HEADER_BYTES } from "../../../src/fuse/replies.ts";
import type { FuseRequest } from "../../../src/fuse/request.ts";

const TIMEOUT_MS = 3_600_000;
export const PIN_NODE_ID = 2;

interface Node {
  readonly id: number;
  readonly name: string;
  data: Buffer;
  size: number;
  mtimeMs: number;
  readonly locks: Lock[];
}

interface Lock {
  readonly ownerLo: number;
  readonly ownerHi: number;
  readonly start: number;
  readonly end: number;
  readonly type: number;
  readonly pid: number;
}

interface WaitingLock {
  readonly uniqueLo: number;
  readonly uniqueHi: number;
  readonly node: Node;
  readonly lock: Lock;
}

/** A flat directory of files in memory, with fcntl locks that can wait. */
export class MemoryFileSystem implements FuseHandler {
  readonly #nodes = new Map<number, Node>();
  readonly #names = new Map<string, Node>();
  readonly #report: (event: unknown) => void;
  readonly #onWake: () => void;
  #waiting: WaitingLock[] = [];
  #replies: FuseReplies | undefined;
  #nextId = PIN_NODE_ID;

  constructor(report: (event: unknown) => void, onWake: () => void) {
    this.#report = report;
    this.#onWake = onWake;
    this.#add("pin");
  }

  get replies(): FuseReplies {
    if (this.#replies === undefined) throw new Error("no session yet");
    return this.#replies;
  }

  init(replies: FuseReplies, result: unknown): void {
    this.#replies = replies;
    this.#report({ kind: "init", result });
  }

  lookup(r: FuseRequest, name: string): void {
    if (name === "throw-enospc") writeFileSync("/dev/full", "x");
    if (name === "throw-bug") throw new Error("a bug");
    const node = this.#names.get(name);
    if (node === undefined) this.replies.replyNegativeEntry(r.uniqueLo, r.uniqueHi, TIMEOUT_MS);
    else this.replies.replyEntry(r.uniqueLo, r.uniqueHi, this.#entry(node));
  }

  forget(nodeId: number, lookupCount: number): void {
    this.#report({ kind: "forget", nodeId, lookupCount });
  }

  create(r: FuseRequest, name: string, _flags: number, _mode: number): void {
    if (this.#names.has(name)) return this.replies.replyError(r.uniqueLo, r.uniqueHi, EEXIST);
    const node = this.#add(name);
    const entry = this.#entry(node);
    this.replies.replyCreate(r.uniqueLo, r.uniqueHi, entry, node.id, FOPEN_KEEP_CACHE);
  }

  unlink(r: FuseRequest, name: string): void {
    if (!this.#names.delete(name)) return this.replies.replyError(r.uniqueLo, r.uniqueHi, ENOENT);
    this.replies.replyEmpty(r.uniqueLo, r.uniqueHi);
  }

  rename(r: FuseRequest, name: string, _parent: number, newName: string, flags: number): void {
    const node = this.#names.get(name);
    if (node === undefined) return this.replies.replyError(r.uniqueLo, r.uniqueHi, ENOENT);
    if (flags !== 0) return this.replies.replyError(r.uniqueLo, r.uniqueHi, EINVAL);
    this.#names.delete(name);
    this.#names.set(newName, node);
    this.replies.replyEmpty(r.uniqueLo, r.uniqueHi);
  }

  getattr(r: FuseRequest, _fh: number): void {
    this.#report({ kind: "getattr", nodeId: r.nodeId });
    this.replies.replyAttr(r.uniqueLo, r.uniqueHi, this.#attr(r.nodeId), TIMEOUT_MS);
  }

  setattr(r: FuseRequest, valid: number, fields: SetattrFields): void {
    const node = this.#nodes.get(r.nodeId);
    if (node !== undefined && (valid & FATTR_SIZE) !== 0) this.#resize(node, fields.size);
    this.#report({ kind: "setattr", valid, size: fields.size, mtimeMs: fields.mtimeMs });
    this.getattr(r, -1);
  }

  access(r: FuseRequest, _mask: number): void {
    this.replies.replyEmpty(r.uniqueLo, r.uniqueHi);
  }

  statfs(r: FuseRequest): void {
    this.replies.replyStatfs(r.uniqueLo, r.uniqueHi, {
      blocks: 1000,
      bfree: 500,
      bavail: 400,
      files: 30,
      ffree: 20,
      bsize: 4096,
      namelen: 255,
      frsize: 4096,
    });
  }

  open(r: FuseRequest, _flags: number): void {
    this.replies.replyOpen(r.uniqueLo, r.uniqueHi, r.nodeId, FOPEN_KEEP_CACHE);
  }

  read(r: FuseRequest, fh: number, offset: number, size: number): void {
    const node = this.#node(fh);
    const end = Math.min(node.size, offset + size);
    const length = Math.max(0, end - offset);
    node.data.copy(this.replies.replyBuffer, OUT_HEADER_BYTES, offset, offset + length);
    this.replies.replyReadFromReplyBuffer(r.uniqueLo, r.uniqueHi, length);
  }

  write(
    r: FuseRequest,
    fh: number,
    offset: number,
    data: Uint8Array,
    dataStart: number,
    size: number,
    writeFlags: number,
  ): void {
    const node = this.#node(fh);
    if (offset + size > node.size) this.#resize(node, offset + size);
    node.data.set(data.subarray(dataStart, dataStart + size), offset);
    this.#report({ kind: "write", name: node.name, offset, size, writeFlags });
    this.replies.replyWrite(r.uniqueLo, r.uniqueHi, size);
  }

  fsync(r: FuseRequest, fh: number, dataOnly: boolean): void {
    this.#report({ kind: "fsync", name: this.#node(fh).name, dataOnly });
    this.replies.replyEmpty(r.uniqueLo, r.uniqueHi);
  }

  flush(r: FuseRequest, fh: number, ownerLo: number, ownerHi: number): void {
    const whole = { start: 0, end: Number.MAX_SAFE_INTEGER, type: F_UNLCK, pid: 0 };
    this.#unlock(this.#node(fh), { ownerLo, ownerHi, ...whole });
    this.#report({ kind: "flush", name: this.#node(fh).name });
    this.replies.replyEmpty(r.uniqueLo, r.uniqueHi);
  }

  release(r: FuseRequest, fh: number): void {
    this.#report({ kind: "release", name: this.#node(fh).name });
    this.replies.replyEmpty(r.uniqueLo, r.uniqueHi);
  }

  setlk(
    r: FuseRequest,
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
    const node = this.#node(fh);
    const lock: Lock = { ownerLo, ownerHi, start, end, type, pid };
    if (type === F_UNLCK) {
      this.#unlock(node, lock);
      this.replies.replyEmpty(r.uniqueLo, r.uniqueHi);
    } else if (this.#conflict(node, lock) === undefined) {
      node.locks.push(lock);
      this.replies.replyEmpty(r.uniqueLo, r.uniqueHi);
    } else if (wait) {
      this.#waiting.push({ uniqueLo: r.uniqueLo, uniqueHi: r.uniqueHi, node, lock });
      this.#report({ kind: "lock-waits", name: node.name });
    } else {
      this.replies.replyError(r.uniqueLo, r.uniqueHi, EAGAIN);
    }
  }

  getlk(
    r: FuseRequest,
    fh: number,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    type: number,
    pid: number,
  ): void {
    const wanted: Lock = { ownerLo, ownerHi, start, end, type, pid };
    const found = this.#conflict(this.#node(fh), wanted) ?? { ...wanted, type: F_UNLCK };
    const { uniqueLo, uniqueHi } = r;
    this.replies.replyLock(uniqueLo, uniqueHi, found.type, found.start, found.end, found.pid);
  }

  opendir(r: FuseRequest, _flags: number): void {
    this.replies.replyOpen(r.uniqueLo, r.uniqueHi, 1, 0);
  }

  readdir(r: FuseRequest, _fh: number, offset: number, size: number): void {
    const writer = this.replies.startDirectory(size);
    const names = [".", "..", ...this.#names.keys()];
    for (let i = offset; i < names.length; i++) {
      const name = names[i] ?? "";
      const node = this.#names.get(name);
      if (!writer.add(name, node?.id ?? 1, node === undefined ? S_IFDIR : S_IFREG, i + 1)) break;
    }
    this.replies.replyDirectory(r.uniqueLo, r.uniqueHi);
  }

  releasedir(r: FuseRequest): void {
    this.replies.replyEmpty(r.uniqueLo, r.uniqueHi);
  }

  interrupt(targetUniqueLo: number, targetUniqueHi: number): void {
    const index = this.#waiting.findIndex(
      (w) => w.uniqueLo === targetUniqueLo && w.uniqueHi === targetUniqueHi,
    );
    this.#report({ kind: "interrupt", found: index >= 0 });
    if (index < 0) return;
    this.#waiting.splice(index, 1);
    this.replies.replyError(targetUniqueLo, targetUniqueHi, EINTR);
  }

  notifyReply(
    r: FuseRequest,
    notifyUnique: number,
    offset: number,
    data: Uint8Array,
    dataStart: number,
    size: number,
  ): void {
    const text = Buffer.from(data.subarray(dataStart, dataStart + size)).toString("latin1");
    this.#report({ kind: "retrieved", nodeId: r.nodeId, notifyUnique, offset, text });
  }

  wake(): void {
    this.#onWake();
  }

  #add(name: string): Node {
    const id = this.#nextId++;
    const node: Node = { id, name, data: Buffer.alloc(4096), size: 0, mtimeMs: 0, locks: [] };
    this.#nodes.set(id, node);
    this.#names.set(name, node);
    return node;
  }

  #node(id: number): Node {
    const node = this.#nodes.get(id);
    if (node === undefined) throw new Error(`no node ${id}`);
    return node;
  }

  #resize(node: Node, size: number): void {
    if (size > node.data.length) {
      const data = Buffer.alloc(Math.max(size, node.data.length * 2));
      node.data.copy(data, 0, 0, node.size);
      node.data = data;
    } else if (size < node.size) {
      node.data.fill(0, size, node.size);
    }
    node.size = size;
    node.mtimeMs = 1_700_000_000_123.5;
  }

  #entry(node: Node): FuseEntry {
    return {
      nodeId: node.id,
      generation: 0,
      attr: this.#attr(node.id),
      entryTimeoutMs: TIMEOUT_MS,
      attrTimeoutMs: TIMEOUT_MS,
    };
  }

  #attr(id: number): FileAttributes {
    const node = this.#nodes.get(id);
    return {
      ino: id,
      size: node?.size ?? 0,
      blocks: Math.ceil((node?.size ?? 0) / 512),
      atimeMs: 0,
      mtimeMs: node?.mtimeMs ?? 0,
      ctimeMs: 0,
      mode: node === undefined ? S_IFDIR | 0o777 : S_IFREG | 0o666,
      nlink: 1,
      uid: 0,
      gid: 0,
      rdev: 0,
      blksize: 4096,
    };
  }

  #conflict(node: Node, wanted: Lock): Lock | undefined {
    return node.locks.find(
      (held) =>
        !(held.ownerLo === wanted.ownerLo && held.ownerHi === wanted.ownerHi) &&
        held.start <= wanted.end &&
        wanted.start <= held.end &&
        (held.type === F_WRLCK || wanted.type === F_WRLCK),
    );
  }

  /** Good enough for tests: only releases locks that lie within the range. */
  #unlock(node: Node, range: Lock): void {
    for (let i = node.locks.length - 1; i >= 0; i--) {
      const held = node.locks[i];
      if (held === undefined || held.ownerLo !== range.ownerLo) continue;
      if (held.ownerHi !== range.ownerHi) continue;
      if (held.start >= range.start && held.end <= range.end) node.locks.splice(i, 1);
    }
    this.#waiting = this.#waiting.filter((waiting) => {
      if (this.#conflict(waiting.node, waiting.lock) !== undefined) return true;
      waiting.node.locks.push(waiting.lock);
      this.replies.replyEmpty(waiting.uniqueLo, waiting.uniqueHi);
      return false;
    });
  }
}
