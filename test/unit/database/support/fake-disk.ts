import * as path from "node:path";
import type { FileIdentity, Files, OpenFile } from "../../../../src/database/files.ts";

const CHUNK = 4096;
const SECTOR = 512;
const ERRNO: Readonly<Record<string, number>> = {
  ENOSPC: 28,
  EIO: 5,
  EROFS: 30,
  EISDIR: 21,
  ENOENT: 2,
};

export function systemError(code: string, what: string): Error {
  const errno = -(ERRNO[code] ?? 5);
  return Object.assign(new Error(`${code}: ${what}`), { code, errno });
}

/** Thrown by the operation at which the power goes, and by every one after it. */
export class PowerCut extends Error {
  override readonly name = "PowerCut";
}

/** A small seeded generator (mulberry32): the same seed gives the same run. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  /** 0 <= result < limit. */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }
  chance(probability: number): boolean {
    return this.next() < probability;
  }
}

/** Sparse bytes: what was never written is zero and costs nothing. */
class Bytes {
  #chunks: Map<number, Uint8Array>;
  size: number;

  constructor(from?: Bytes) {
    this.#chunks = new Map();
    this.size = from?.size ?? 0;
    if (from !== undefined) for (const [i, c] of from.#chunks) this.#chunks.set(i, c.slice());
  }

  copyFrom(other: Bytes): void {
    this.#chunks = new Map();
    this.size = other.size;
    for (const [i, c] of other.#chunks) this.#chunks.set(i, c.slice());
  }

  read(out: Uint8Array, at: number, length: number, offset: number): number {
    const count = Math.max(0, Math.min(length, this.size - offset));
    for (let done = 0; done < count;) {
      const position = offset + done;
      const inChunk = position % CHUNK;
      const n = Math.min(count - done, CHUNK - inChunk);
      const chunk = this.#chunks.get((position - inChunk) / CHUNK);
      if (chunk === undefined) out.fill(0, at + done, at + done + n);
      else out.set(chunk.subarray(inChunk, inChunk + n), at + done);
      done += n;
    }
    return count;
  }

  write(data: Uint8Array, offset: number): void {
    for (let done = 0; done < data.length;) {
      const position = offset + done;
      const inChunk = position % CHUNK;
      const n = Math.min(data.length - done, CHUNK - inChunk);
      const index = (position - inChunk) / CHUNK;
      let chunk = this.#chunks.get(index);
      if (chunk === undefined) {
        chunk = new Uint8Array(CHUNK);
        this.#chunks.set(index, chunk);
      }
      chunk.set(data.subarray(done, done + n), inChunk);
      done += n;
    }
    this.size = Math.max(this.size, offset + data.length);
  }

  truncate(size: number): void {
    if (size < this.size) {
      for (const [index, chunk] of this.#chunks) {
        const start = index * CHUNK;
        if (start >= size) this.#chunks.delete(index);
        else if (start + CHUNK > size) chunk.fill(0, size - start);
      }
    }
    this.size = size;
  }
}

type ContentChange =
  | { readonly kind: "write"; readonly data: Uint8Array; readonly offset: number }
  | { readonly kind: "truncate"; readonly size: number };

let nextInode = 1;

class Inode {
  readonly live: Bytes;
  readonly durable: Bytes;
  readonly id: number;
  pending: ContentChange[] = [];
  /** Stands for the time of the last change. */
  changeCount: number;

  /** A file that has been through a power cut looks as if nothing had happened to it. */
  constructor(content?: Bytes, survived?: Inode) {
    this.live = new Bytes(content);
    this.durable = new Bytes(content);
    this.id = survived?.id ?? nextInode++;
    this.changeCount = survived?.changeCount ?? 0;
  }

  change(change: ContentChange): void {
    this.changeCount++;
    if (change.kind === "write") this.live.write(change.data, change.offset);
    else this.live.truncate(change.size);
    this.pending.push(change);
  }

  sync(): void {
    if (this.pending.length === 0) return;
    for (const change of this.pending) {
      if (change.kind === "write") this.durable.write(change.data, change.offset);
      else this.durable.truncate(change.size);
    }
    this.pending = [];
  }

  /** Linux takes the pages for written, or even reads the old ones again; it does not try twice. */
  failSync(isEvicted: boolean): void {
    this.pending = [];
    if (isEvicted) this.live.copyFrom(this.durable);
  }

  /** What a power cut may leave: any sectors of the writes that were not synced, in any order. */
  survive(random: Random): Bytes {
    const bytes = new Bytes(this.durable);
    // Often everything or nothing survives, which random sectors alone would hardly ever give.
    const share = random.chance(0.3) ? 0 : random.chance(0.3) ? 1 : random.next();
    for (const change of this.pending) {
      if (change.kind === "truncate") {
        if (random.chance(share)) bytes.truncate(change.size);
        continue;
      }
      for (let at = 0; at < change.data.length;) {
        const n = Math.min(change.data.length - at, SECTOR - ((change.offset + at) % SECTOR));
        if (random.chance(share)) {
          bytes.write(change.data.subarray(at, at + n), change.offset + at);
        }
        at += n;
      }
    }
    return bytes;
  }
}

/**
 * How much of a write is there that has failed in its middle. What is written over changes page by
 * page, as in the kernel's cache; at the end of a file any byte may be the last.
 */
function halfOf(offset: number, length: number, sizeBytes: number): number {
  const half = length >> 1;
  if (offset >= sizeBytes) return half;
  return Math.max(0, offset + half - ((offset + half) % CHUNK) - offset);
}

type Node = Inode | Directory;
interface NameChange {
  readonly set: readonly (readonly [name: string, node: Node | undefined])[];
  /** The other half of a rename between two directories: both survive or none. */
  readonly with?: readonly [Directory, NameChange];
}

class Directory {
  readonly live: Map<string, Node> = new Map<string, Node>();
  durable: Map<string, Node> = new Map<string, Node>();
  pending: NameChange[] = [];

  change(change: NameChange): void {
    apply(this.live, change);
    this.pending.push(change);
  }
  sync(): void {
    for (const { with: other } of this.pending) {
      const [directory, change] = other ?? [];
      if (directory === undefined || change === undefined) continue;
      const upTo = directory.pending.indexOf(change) + 1;
      for (const done of directory.pending.splice(0, upTo)) apply(directory.durable, done);
    }
    this.durable = new Map(this.live);
    this.pending = [];
  }
}

function apply(names: Map<string, Node>, change: NameChange): void {
  for (const [name, node] of change.set) {
    if (node === undefined) names.delete(name);
    else names.set(name, node);
  }
}

export type OperationKind =
  | "open"
  | "read"
  | "write"
  | "truncate"
  | "sync"
  | "mkdir"
  | "rename"
  | "remove"
  | "syncDirectory";

/**
 * A disk in memory. What was written is lost at a power cut unless it was synced, and so are names
 * unless their directory was synced. Any operation can be made to fail.
 */
export class FakeDisk implements Files {
  readonly #root: Directory;
  /** Operations that change something so far. */
  operations: number = 0;
  /** Called before every operation; what it throws, the operation throws. */
  onOperation: (kind: OperationKind, file: string, index: number) => void = () => undefined;
  /** A disk that lies: it does not sync what this says. */
  ignoresSync: (file: string) => boolean = () => false;
  /** Called after a file was made durable. */
  onSynced: (file: string) => void = () => undefined;
  isDead: boolean = false;
  /** After a failed sync, reading gives what was there before, as on file systems that drop the pages. */
  evictsFailedPages: boolean = false;
  openHandles: number = 0;

  readonly #boot: number;

  constructor(root: Directory = new Directory(), boot = 1) {
    this.#root = root;
    this.#boot = boot;
  }

  /** One on which the data directory is there to stay, and no database yet. */
  static prepared(): FakeDisk {
    const disk = new FakeDisk();
    disk.mkdir("/data/dbs");
    disk.syncAll();
    return disk;
  }

  bootId(): string {
    return `boot-${this.#boot}`;
  }

  /** Fails one operation from now on, counting changes only (1: the next). */
  failAt(
    nth: number,
    code: "ENOSPC" | "EIO" | "EROFS",
    matches: (file: string, kind: OperationKind) => boolean = () => true,
  ): void {
    this.#fail(nth, nth, code, matches);
  }

  /** Fails that operation and every later one: `recover` ends it. */
  failFrom(
    nth: number,
    code: "ENOSPC" | "EIO" | "EROFS",
    matches: (file: string, kind: OperationKind) => boolean = () => true,
  ): void {
    this.#fail(nth, Infinity, code, matches);
  }

  /** The disk works again. */
  recover(): void {
    this.onOperation = () => undefined;
  }

  #fail(
    first: number,
    last: number,
    code: string,
    matches: (file: string, kind: OperationKind) => boolean,
  ): void {
    let count = 0;
    this.onOperation = (kind, file) => {
      if (kind === "read" || kind === "open" || !matches(file, kind)) return;
      count++;
      if (count >= first && count <= last) throw systemError(code, `${kind} ${file}`);
    };
  }

  cutAt(nth: number): void {
    let left = nth;
    this.onOperation = (kind) => {
      if (kind !== "read" && kind !== "open" && --left === 0) {
        this.isDead = true;
        throw new PowerCut("the power is gone");
      }
    };
  }

  /** The disk after the power came back. */
  powerCut(random: Random): FakeDisk {
    this.isDead = true;
    const inodes = new Map<Inode, Inode>();
    const directories = new Map<Directory, Map<string, Node>>();
    const collect = (directory: Directory): void => {
      if (directories.has(directory)) return;
      const names = new Map(directory.durable);
      directories.set(directory, names);
      for (const change of directory.pending.slice(0, random.below(directory.pending.length + 1))) {
        apply(names, change);
        const [other, half] = change.with ?? [];
        if (other === undefined || half === undefined) continue;
        collect(other);
        const theirs = directories.get(other);
        if (theirs !== undefined) apply(theirs, half);
      }
      for (const node of names.values()) if (node instanceof Directory) collect(node);
    };
    collect(this.#root);
    const copy = (directory: Directory): Directory => {
      collect(directory);
      const result = new Directory();
      for (const [name, node] of directories.get(directory) ?? []) {
        if (node instanceof Directory) result.live.set(name, copy(node));
        else {
          const inode = inodes.get(node) ?? new Inode(node.survive(random), node);
          inodes.set(node, inode);
          result.live.set(name, inode);
        }
      }
      result.durable = new Map(result.live);
      return result;
    };
    return this.#next(copy(this.#root), this.#boot + 1);
  }

  /** The disk as another process finds it after this one was killed: nothing is lost. */
  kill(): FakeDisk {
    this.isDead = true;
    return this.#next(this.#root, this.#boot);
  }

  #next(root: Directory, boot: number): FakeDisk {
    const next = new FakeDisk(root, boot);
    next.ignoresSync = this.ignoresSync;
    return next;
  }

  #begin(kind: OperationKind, file: string): void {
    if (this.isDead) throw new PowerCut(`the power is gone: ${kind} ${file}`);
    if (kind !== "read" && kind !== "open") this.operations++;
    this.onOperation(kind, file, this.operations);
  }

  #directory(name: string): Directory | undefined {
    let node: Node | undefined = this.#root;
    for (const part of name.split("/")) {
      if (part === "") continue;
      if (!(node instanceof Directory)) return undefined;
      node = node.live.get(part);
    }
    return node instanceof Directory ? node : undefined;
  }

  #parent(file: string): Directory {
    const parent = this.#directory(path.dirname(file));
    if (parent === undefined) throw systemError("ENOENT", file);
    return parent;
  }

  #inode(file: string): Inode | undefined {
    const node = this.#directory(path.dirname(file))?.live.get(path.basename(file));
    return node instanceof Inode ? node : undefined;
  }

  open(file: string, options: { create?: boolean; readOnly?: boolean } = {}): OpenFile | undefined {
    let inode = this.#inode(file);
    if (this.isDirectory(file)) throw systemError("EISDIR", `open ${file}`);
    if (inode === undefined) {
      this.#begin("open", file);
      if (options.create !== true) return undefined;
      this.#begin("write", file);
      inode = new Inode();
      this.#parent(file).change({ set: [[path.basename(file), inode]] });
    } else this.#begin("open", file);
    return this.#handle(file, inode, options.readOnly === true);
  }

  #handle(file: string, inode: Inode, readOnly: boolean): OpenFile {
    this.openHandles++;
    let isOpen = true;
    const begin = (kind: OperationKind): void => {
      if (!isOpen) throw systemError("EIO", `${kind} of a closed file ${file}`);
      if (readOnly && kind !== "read") throw systemError("EIO", `${kind} of read-only ${file}`);
      this.#begin(kind, file);
    };
    return {
      readAt: (out, at, length, offset) => {
        begin("read");
        return inode.live.read(out, at, length, offset);
      },
      writeAt: (data, start, length, offset) => {
        const bytes = data.slice(start, start + length);
        if (bytes.length !== length) throw new RangeError("write past the buffer");
        const wasDead = this.isDead;
        try {
          begin("write");
        } catch (error) {
          // Some of it may be there all the same.
          if (wasDead) throw error;
          const lengthBytes = halfOf(offset, length, inode.live.size);
          inode.change({ kind: "write", data: bytes.subarray(0, lengthBytes), offset });
          throw error;
        }
        inode.change({ kind: "write", data: bytes, offset });
      },
      truncate: (size) => {
        begin("truncate");
        inode.change({ kind: "truncate", size });
      },
      sync: () => {
        try {
          begin("sync");
        } catch (error) {
          if (!this.isDead) inode.failSync(this.evictsFailedPages);
          throw error;
        }
        if (this.ignoresSync(file)) return;
        inode.sync();
        this.onSynced(file);
      },
      size: () => inode.live.size,
      close: () => {
        if (!isOpen) throw systemError("EIO", `close of a closed file ${file}`);
        isOpen = false;
        this.openHandles--;
      },
    };
  }

  list(directory: string): string[] {
    return [...(this.#directory(directory)?.live.keys() ?? [])];
  }

  size(file: string): number | undefined {
    if (this.#directory(file) !== undefined) return 0;
    return this.#inode(file)?.live.size;
  }

  identify(file: string): FileIdentity | undefined {
    const inode = this.#inode(file);
    if (inode === undefined) return undefined;
    return { inode: inode.id, sizeBytes: inode.live.size, modifiedMs: inode.changeCount };
  }

  mkdir(directory: string): void {
    let at = this.#root;
    for (const part of directory.split("/")) {
      if (part === "") continue;
      let next = at.live.get(part);
      if (next === undefined) {
        this.#begin("mkdir", directory);
        next = new Directory();
        at.change({ set: [[part, next]] });
      }
      if (!(next instanceof Directory)) throw systemError("EISDIR", directory);
      at = next;
    }
  }

  rename(from: string, to: string): void {
    this.#begin("rename", from);
    const source = this.#parent(from);
    const target = this.#parent(to);
    const node = source.live.get(path.basename(from));
    if (node === undefined) throw systemError("ENOENT", from);
    const old = target.live.get(path.basename(to));
    if (old instanceof Directory && old.live.size > 0) throw systemError("EISDIR", to);
    const gone = [path.basename(from), undefined] as const;
    const there = [path.basename(to), node] as const;
    if (source === target) {
      source.change({ set: [gone, there] });
      return;
    }
    const arrival: NameChange = { set: [there] };
    source.change({ set: [gone], with: [target, arrival] });
    target.change(arrival);
  }

  remove(file: string): void {
    this.#begin("remove", file);
    if (this.isDirectory(file)) throw systemError("EISDIR", `remove ${file}`);
    if (this.#inode(file) === undefined) return;
    this.#parent(file).change({ set: [[path.basename(file), undefined]] });
  }

  removeDirectory(directory: string): void {
    this.#begin("remove", directory);
    if (this.#directory(directory) === undefined) return;
    this.#parent(directory).change({ set: [[path.basename(directory), undefined]] });
  }

  syncDirectory(directory: string): void {
    this.#begin("syncDirectory", directory);
    const node = this.#directory(directory);
    if (node === undefined) throw systemError("ENOENT", directory);
    if (!this.ignoresSync(directory)) node.sync();
  }

  isDirectory(file: string): boolean {
    return this.#directory(file) !== undefined;
  }

  /** Everything a file holds now; for the eyes of tests. */
  content(file: string): Uint8Array {
    const inode = this.#inode(file);
    if (inode === undefined) throw systemError("ENOENT", file);
    const bytes = new Uint8Array(inode.live.size);
    inode.live.read(bytes, 0, bytes.length, 0);
    return bytes;
  }

  put(file: string, content: Uint8Array): void {
    this.mkdir(path.dirname(file));
    const inode = new Inode();
    inode.change({ kind: "write", data: content.slice(), offset: 0 });
    inode.sync();
    const parent = this.#parent(file);
    parent.change({ set: [[path.basename(file), inode]] });
    this.syncAll();
  }

  /** Everything so far survives. */
  syncAll(): void {
    const visit = (directory: Directory): void => {
      directory.sync();
      for (const node of directory.live.values()) {
        if (node instanceof Directory) visit(node);
        else node.sync();
      }
    };
    visit(this.#root);
  }
}
