import * as fs from "node:fs";
import { errorCode } from "../lib/errors.ts";
import type { FileIdentity, Files, OpenFile } from "./files.ts";

/** What the rest of a process needs: sockets, the device, the readers of the log. */
const RESERVED_DESCRIPTORS = 128;
const MIN_DESCRIPTORS = 16;
/** More than so many files are never hot at once, and each one costs the kernel memory. */
const MAX_DESCRIPTORS = 4096;

const readLimits = (): string => fs.readFileSync("/proc/self/limits", "latin1");

/** How many files may be open at once under the limit of this process (`ulimit -n`). */
export function descriptorBudget(limits: string = readLimits()): number {
  const half = Math.floor((descriptorLimit(limits) - RESERVED_DESCRIPTORS) / 2);
  return Math.min(MAX_DESCRIPTORS, Math.max(MIN_DESCRIPTORS, half));
}

/** How many of the mount's own files this process may have open besides, to keep locks on them. */
export function lockDescriptorBudget(limits: string = readLimits()): number {
  const rest = descriptorLimit(limits) - RESERVED_DESCRIPTORS - descriptorBudget(limits);
  return Math.max(MIN_DESCRIPTORS, rest);
}

function descriptorLimit(limits: string): number {
  const match = /^Max open files\s+(\d+|unlimited)/m.exec(limits);
  return match?.[1] === "unlimited" ? Infinity : Number(match?.[1] ?? 1024);
}

/**
 * Files of which only so many have a descriptor at a time: those used last. Applications may hold
 * ten thousand databases open; a file that was not used for long gives its descriptor back and gets
 * a new one, by its name, with the next access. A file whose name goes keeps its descriptor.
 *
 * Nothing is lost on the way: what was written and not synced is synced before the descriptor goes,
 * because an error of the disk is told to those who have the file open, and to nobody else.
 */
export class FilePool implements Files {
  readonly #files: Files;
  readonly #maxOpen: number;
  /** Files with a descriptor, in no order; the hand goes round (second chance). */
  readonly #open: PooledFile[] = [];
  #hand = 0;
  /** Files that somebody holds, by name. */
  readonly #held = new Map<string, Set<PooledFile>>();

  constructor(files: Files, maxOpen: number = descriptorBudget()) {
    this.#files = files;
    this.#maxOpen = maxOpen;
  }

  /** Descriptors in use. */
  get openCount(): number {
    return this.#open.length;
  }

  open(path: string, options: { create?: boolean; readOnly?: boolean } = {}): OpenFile | undefined {
    const file = this.acquire(path, options);
    if (file === undefined) return undefined;
    const pooled = new PooledFile(this, path, options.readOnly === true, file);
    this.#open.push(pooled);
    this.#hold(pooled);
    return pooled;
  }

  /** A descriptor for a file, after others have made room. */
  acquire(path: string, options: { create?: boolean; readOnly?: boolean }): OpenFile | undefined {
    while (this.#open.length >= this.#maxOpen && this.#evictOne()) continue;
    try {
      return this.#files.open(path, options);
    } catch (error) {
      const code = errorCode(error);
      // The others in this process need more than was left for them.
      if ((code !== "EMFILE" && code !== "ENFILE") || !this.#evictHalf()) throw error;
      return this.#files.open(path, options);
    }
  }

  /** A file that had given its descriptor back has one again. */
  reopened(file: PooledFile): void {
    this.#open.push(file);
  }

  closed(file: PooledFile): void {
    this.#dropOpen(file);
    const held = this.#held.get(file.path);
    held?.delete(file);
    if (held?.size === 0) this.#held.delete(file.path);
  }

  list(directory: string): string[] {
    return this.#files.list(directory);
  }
  size(file: string): number | undefined {
    return this.#files.size(file);
  }
  identify(file: string): FileIdentity | undefined {
    return this.#files.identify(file);
  }
  mkdir(directory: string): void {
    this.#files.mkdir(directory);
  }
  syncDirectory(directory: string): void {
    this.#files.syncDirectory(directory);
  }
  bootId(): string {
    return this.#files.bootId();
  }

  rename(from: string, to: string): void {
    pin(this.#heldBelow(to));
    const moved = this.#heldBelow(from);
    this.#files.rename(from, to);
    for (const file of moved) {
      this.#held.get(file.path)?.delete(file);
      file.path = `${to}${file.path.slice(from.length)}`;
      this.#hold(file);
    }
  }

  remove(file: string): void {
    pin(this.#held.get(file) ?? []);
    this.#files.remove(file);
  }

  removeDirectory(directory: string): void {
    pin(this.#heldBelow(directory));
    this.#files.removeDirectory(directory);
  }

  #hold(file: PooledFile): void {
    let held = this.#held.get(file.path);
    if (held === undefined) {
      held = new Set<PooledFile>();
      this.#held.set(file.path, held);
    }
    held.add(file);
  }

  /** Files of this name or, if it is a directory, below it. Renames are rare, so all are looked at. */
  #heldBelow(path: string): readonly PooledFile[] {
    const exact = this.#held.get(path);
    if (exact !== undefined) return [...exact];
    const below: PooledFile[] = [];
    for (const [name, files] of this.#held) if (name.startsWith(`${path}/`)) below.push(...files);
    return below;
  }

  #evictHalf(): boolean {
    const target = this.#open.length >> 1;
    const before = this.#open.length;
    while (this.#open.length > target && this.#evictOne()) continue;
    return this.#open.length < before;
  }

  /** Two rounds: the first forgives a use, and passes by what would have to be synced. */
  #evictOne(): boolean {
    const rounds = 2 * this.#open.length;
    for (let i = 0; i < rounds; i++) {
      this.#hand = (this.#hand + 1) % this.#open.length;
      const file = this.#open[this.#hand];
      if (file === undefined || file.isPinned) continue;
      const isFirstRound = i < this.#open.length;
      if (isFirstRound && (file.wasUsed || file.isDirty)) {
        file.wasUsed = false;
        continue;
      }
      if (!file.giveBack()) continue;
      this.#dropOpen(file);
      return true;
    }
    return false;
  }

  #dropOpen(file: PooledFile): void {
    const index = this.#open.indexOf(file);
    if (index < 0) return;
    const last = this.#open.pop();
    if (last !== undefined && last !== file) this.#open[index] = last;
  }
}

/** Those who hold what will have no name any more get a descriptor that stays. */
function pin(files: Iterable<PooledFile>): void {
  for (const file of files) file.pin();
}

/** One file that somebody holds, with a descriptor or without. */
class PooledFile implements OpenFile {
  readonly #pool: FilePool;
  readonly #readOnly: boolean;
  #file: OpenFile | undefined;
  #failure: unknown;
  path: string;
  /** Since the hand came by. */
  wasUsed = true;
  /** Written since it was synced. */
  isDirty = false;
  /** It has no name any more, so its descriptor is all there is. */
  isPinned = false;

  constructor(pool: FilePool, path: string, readOnly: boolean, file: OpenFile) {
    this.#pool = pool;
    this.path = path;
    this.#readOnly = readOnly;
    this.#file = file;
  }

  readAt(out: Uint8Array, outOffset: number, lengthBytes: number, offsetBytes: number): number {
    return this.#get().readAt(out, outOffset, lengthBytes, offsetBytes);
  }

  writeAt(data: Uint8Array, start: number, lengthBytes: number, offsetBytes: number): void {
    const file = this.#get();
    this.isDirty = true;
    file.writeAt(data, start, lengthBytes, offsetBytes);
  }

  truncate(sizeBytes: number): void {
    const file = this.#get();
    this.isDirty = true;
    file.truncate(sizeBytes);
  }

  sync(): void {
    const file = this.#get();
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure;
    file.sync();
    this.isDirty = false;
  }

  size(): number {
    return this.#get().size();
  }

  close(): void {
    this.#pool.closed(this);
    this.#file?.close();
    this.#file = undefined;
  }

  pin(): void {
    this.#get();
    this.isPinned = true;
  }

  /** Gives the descriptor back; false when it must be kept. */
  giveBack(): boolean {
    if (this.#failure !== undefined) return false;
    try {
      if (this.isDirty) this.#file?.sync();
    } catch (error) {
      // Whoever syncs next is told; until then nobody may think that all is well.
      this.#failure = error;
      return false;
    }
    this.isDirty = false;
    this.#file?.close();
    this.#file = undefined;
    return true;
  }

  #get(): OpenFile {
    this.wasUsed = true;
    if (this.#file !== undefined) return this.#file;
    const file = this.#pool.acquire(this.path, { readOnly: this.#readOnly });
    if (file === undefined) {
      const error = new Error(`EIO: ${this.path} was removed by somebody else while it was in use`);
      throw Object.assign(error, { code: "EIO", errno: -5, syscall: "open" });
    }
    this.#file = file;
    this.#pool.reopened(this);
    return file;
  }
}
