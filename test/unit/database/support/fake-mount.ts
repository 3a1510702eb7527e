import type { FileKind } from "../../../../src/database/database-files.ts";
import type { DaemonLocks, IndexUse, Job, KernelCache } from "../../../../src/database/host.ts";
import { runJob } from "../../../../src/database/host.ts";
import { SHARED_FIRST, WAL_DMS_LOCK } from "../../../../src/sqlite/locks.ts";
import {
  encodeWalIndexHeader,
  WAL_INDEX_HEADER_SIZE,
} from "../../../../src/sqlite/wal-index-header.ts";
import { WAL_INDEX_BLOCK_SIZE } from "../../../../src/sqlite/wal-index.ts";

/** The kernel's cache of one database, as far as the engine writes to it. */
export class FakeKernel implements KernelCache {
  /** The wal-index as applications have it mapped; undefined when none has. */
  shm: Uint8Array | undefined;
  readonly stored: { kind: FileKind; offset: number; length: number }[] = [];
  /** Asked before `settled` calls back, while what was pushed is on its way. */
  onSettling: () => void = () => undefined;
  invalidate(): void {
    this.stored.length += 0;
  }
  invalidateName(): void {
    this.stored.length += 0;
  }
  store(kind: FileKind, offset: number, data: Uint8Array): void {
    this.stored.push({ kind, offset, length: data.length });
    if (kind !== "shm") return;
    const end = offset + data.length;
    if (this.shm === undefined || this.shm.length < end) {
      const grown = new Uint8Array(Math.ceil(end / 32768) * 32768);
      grown.set(this.shm ?? new Uint8Array(0));
      this.shm = grown;
    }
    this.shm.set(data, offset);
  }
  storeAhead(kind: FileKind, offset: number, data: Uint8Array): void {
    this.store(kind, offset, data);
  }
  retrieve(
    kind: FileKind,
    offset: number,
    length: number,
    then: (data: Uint8Array | undefined) => void,
  ): void {
    then(kind === "shm" ? this.shm?.slice(offset, offset + length) : undefined);
  }
  settled(then: () => void): void {
    this.onSettling();
    then();
  }
}

/** A wal-index as the first to open a database makes it from an empty WAL. */
export function emptyIndex(pageSize: number): Uint8Array {
  const shm = new Uint8Array(WAL_INDEX_BLOCK_SIZE);
  const header = {
    change: 1,
    bigEndianChecksum: false,
    pageSize,
    maxFrame: 0,
    pageCount: 0,
    frameChecksum1: 0,
    frameChecksum2: 0,
    salt1: 0,
    salt2: 0,
  };
  encodeWalIndexHeader(header, shm, 0);
  encodeWalIndexHeader(header, shm, WAL_INDEX_HEADER_SIZE);
  return shm;
}

/** Locks that the test may hold against the daemon. */
export class FakeLocks implements DaemonLocks {
  readonly held: Set<string> = new Set<string>();
  readonly #blocked = new Set<string>();
  readonly #waiting: (() => void)[] = [];
  opens: number = 0;
  /** Who else is at the wal-index. */
  index: IndexUse = "joined";

  block(kind: "database" | "shm", byte: number): void {
    this.#blocked.add(`${kind} ${byte}`);
  }
  release(): void {
    this.#blocked.clear();
    for (const then of this.#waiting.splice(0)) then();
  }
  tryLock(kind: "database" | "shm", first: number, last: number): boolean {
    for (let byte = first; byte <= last; byte++) {
      if (this.#blocked.has(`${kind} ${byte}`)) return false;
    }
    for (let byte = first; byte <= last; byte++) this.held.add(`${kind} ${byte}`);
    return true;
  }
  unlock(kind: "database" | "shm", first: number, last: number): void {
    for (let byte = first; byte <= last; byte++) this.held.delete(`${kind} ${byte}`);
  }
  isHeldExclusively(): boolean {
    return this.#blocked.has(`database ${SHARED_FIRST}`);
  }
  whenReleased(then: () => void): void {
    this.#waiting.push(then);
  }
  get waiting(): number {
    return this.#waiting.length;
  }
  joinIndex(): IndexUse {
    if (this.index !== "none") this.held.add(`shm ${WAL_DMS_LOCK}`);
    return this.index;
  }
  leaveIndex(): void {
    this.held.delete(`shm ${WAL_DMS_LOCK}`);
  }
  openCount(): number {
    return this.opens;
  }
}

/** Runs a job that does not have to wait for anybody. */
export function finish<T>(job: Job<T>): T {
  let result: { value: T } | undefined;
  let failure: { error: unknown } | undefined;
  runJob(
    job,
    (value) => (result = { value }),
    (error) => (failure = { error }),
  );
  if (failure !== undefined) throw failure.error;
  if (result === undefined) throw new Error("the job waits");
  return result.value;
}
