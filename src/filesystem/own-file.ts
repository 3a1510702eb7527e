import type { LockType, SystemCalls } from "../fuse/system-calls.ts";
import {
  PENDING_BYTE,
  RESERVED_BYTE,
  SHARED_FIRST,
  SHARED_LAST,
  WAL_CKPT_LOCK,
  WAL_DMS_LOCK,
  WAL_WRITE_LOCK,
} from "../sqlite/locks.ts";
import type { FileNode } from "./entry.ts";

/** A byte, or the range that SQLite uses as one. */
export interface LockUnit {
  readonly first: number;
  readonly last: number;
}

export const PENDING: LockUnit = { first: PENDING_BYTE, last: PENDING_BYTE };
export const RESERVED: LockUnit = { first: RESERVED_BYTE, last: RESERVED_BYTE };
export const SHARED_RANGE: LockUnit = { first: SHARED_FIRST, last: SHARED_LAST };
export const WRITE: LockUnit = { first: WAL_WRITE_LOCK, last: WAL_WRITE_LOCK };
export const DEAD_MAN: LockUnit = { first: WAL_DMS_LOCK, last: WAL_DMS_LOCK };

const DATABASE_UNITS = [PENDING, RESERVED, SHARED_RANGE];
const INDEX_UNITS: readonly LockUnit[] = [
  WRITE,
  ...Array.from({ length: WAL_DMS_LOCK - WAL_CKPT_LOCK }, (_, i) => ({
    first: WAL_CKPT_LOCK + i,
    last: WAL_CKPT_LOCK + i,
  })),
  DEAD_MAN,
];

/**
 * A file of a database that applications have open, as one more process sees it that takes part in
 * its locks: this one, with a descriptor of its own. It holds locks for two reasons. What a job needs
 * is noted in the node's table and is exclusive; besides, a guard keeps applications from writing
 * while they may not.
 */
export class OwnFile {
  node: FileNode;
  fd = -1;
  /** The descriptor is on its way. */
  isAsked = false;
  /** It is there, and what whoever opens the file will find is being made. */
  isPreparing = false;
  readonly #calls: SystemCalls;
  readonly #guard = new Map<LockUnit, LockType>();

  constructor(node: FileNode, calls: SystemCalls) {
    this.node = node;
    this.#calls = calls;
  }

  get isOpen(): boolean {
    return this.fd >= 0;
  }

  /**
   * The descriptor has come. Nobody else has the file open, or what was locked without it would not
   * have been: only a guard may have to be taken later.
   */
  attach(fd: number): void {
    this.fd = fd;
    for (const unit of this.#units) {
      if (this.#isJob(unit)) this.#calls.setLock(fd, "write", unit.first, unit.last);
    }
  }

  detach(): number {
    const { fd } = this;
    this.fd = -1;
    this.#guard.clear();
    return fd;
  }

  /** Takes an exclusive lock for a job; false when an application is in the way. */
  tryLock(first: number, last: number): boolean {
    return this.#calls.setLock(this.fd, "write", first, last);
  }

  /** A job has given up these bytes; of the guard stays what there was. */
  restore(first: number, last: number): void {
    if (!this.isOpen) return;
    for (const unit of this.#units) {
      if (unit.first > last || unit.last < first || this.#isJob(unit)) continue;
      this.#calls.setLock(this.fd, this.#guard.get(unit) ?? "none", unit.first, unit.last);
    }
  }

  guards(unit: LockUnit): boolean {
    return this.#guard.has(unit);
  }

  /** Part of the guard; false when an application is in the way. */
  guard(unit: LockUnit, type: "read" | "write"): boolean {
    if (this.#guard.has(unit)) return true;
    const isTaken = this.#isJob(unit) || this.#calls.setLock(this.fd, type, unit.first, unit.last);
    if (isTaken) this.#guard.set(unit, type);
    return isTaken;
  }

  unguard(unit: LockUnit): void {
    if (!this.#guard.delete(unit) || this.#isJob(unit)) return;
    this.#calls.setLock(this.fd, "none", unit.first, unit.last);
  }

  unguardAll(): void {
    for (const unit of this.#units) this.unguard(unit);
  }

  /** The process of an application that has written or is about to: it holds an exclusive lock. */
  writer(first: number, last: number): { readonly pid: number } | undefined {
    return this.isOpen ? this.#calls.foreignLock(this.fd, "read", first, last) : undefined;
  }

  /** Whether an application holds any lock there. */
  isShared({ first, last }: LockUnit): boolean {
    return this.isOpen && this.#calls.foreignLock(this.fd, "write", first, last) !== undefined;
  }

  get #units(): readonly LockUnit[] {
    return this.node.kind === "shm" ? INDEX_UNITS : DATABASE_UNITS;
  }

  #isJob(unit: LockUnit): boolean {
    return this.node.locks.isHeldByDaemon(unit.first, unit.last);
  }
}
