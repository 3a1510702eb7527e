import * as fs from "node:fs";
import * as path from "node:path";
import type {
  ApplyResult,
  DatabaseState,
  Engine,
  LogRead,
  NodeRole,
  SnapshotPages,
  SnapshotReader,
  VerifyResult,
} from "../../src/database/engine.ts";
import { type Position, positionsEqual } from "../../src/lib/position.ts";
import type { LtxPage } from "../../src/ltx/encode-ltx.ts";
import { checksumOf, FakeDatabase, fakeTransaction } from "./fake-database.ts";

export interface FakeEngineOptions {
  /** For snapshots that are being received. */
  readonly directory: string;
  readonly pagesPerPortion?: number;
}

/** The engine's port in memory: real LTX in and out, real checksums, no kernel and no disk. */
export class FakeEngine implements Engine {
  readonly #states = new Map<string, DatabaseState>();
  readonly #stored = new Map<string, FakeDatabase>();
  readonly #listeners = new Set<(databases: ReadonlySet<string>) => void>();
  readonly #options: FakeEngineOptions;
  #changed = new Set<string>();
  /** What a test wants to happen before every apply: delay it, count it, make it fail. */
  beforeApply: (database: string, count: number) => Promise<ApplyResult | undefined> = () =>
    Promise.resolve(undefined);
  /** What a test wants to happen when nobody wants any more what is being applied. */
  onAbandon: () => void = () => undefined;
  /** What a test wants to happen before every portion of a snapshot. */
  beforePortion: (database: string) => Promise<void> = () => Promise.resolve();
  readonly roles: NodeRole[] = [];
  commitDeadlineMs = 0;
  isPaused = false;
  /** What a test wants to happen before writers are quiet. */
  beforePause: () => Promise<void> = () => Promise.resolve();
  openSnapshots = 0;
  /** Calls that apply something, and those among them whose result must be on the disk. */
  applies = 0;
  durableApplies = 0;

  constructor(options: FakeEngineOptions) {
    this.#options = options;
  }

  get databases(): ReadonlyMap<string, DatabaseState> {
    return this.#states;
  }

  /** The database itself, to look into or to damage; call `touch` after a change. */
  database(name: string): FakeDatabase {
    let database = this.#stored.get(name);
    if (database === undefined) {
      database = new FakeDatabase(name);
      this.#stored.set(name, database);
      this.touch(name);
    }
    return database;
  }

  touch(name: string): void {
    const database = this.#stored.get(name);
    if (database !== undefined) this.#states.set(name, database.state());
    if (this.#changed.size === 0) setImmediate(() => this.#report());
    this.#changed.add(name);
  }

  /** Applies LTX files as they were recorded. */
  load(name: string, files: readonly Uint8Array[]): void {
    for (const file of files) {
      const problem = this.database(name).apply(fakeTransaction(file));
      if (problem !== undefined) throw new Error(problem);
    }
    this.touch(name);
  }

  commit(name: string, pages: readonly LtxPage[], pageCount: number, timestampMs = 1): void {
    const database = this.database(name);
    const pageSize = pages[0]?.data.length ?? database.pageSize;
    database.commit(pages, pageCount, pageSize, timestampMs);
    this.touch(name);
  }

  onChange(listener: (databases: ReadonlySet<string>) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async readLog(name: string, after: Position, maxBytes: number): Promise<LogRead> {
    await turn();
    const database = this.#stored.get(name);
    if (database === undefined) return { kind: "unavailable" };
    if (positionsEqual(after, database.position)) {
      return { kind: "transactions", ltx: [], end: after };
    }
    const ltx: Uint8Array[] = [];
    let end = after;
    let sizeBytes = 0;
    while (sizeBytes < maxBytes) {
      const next = database.log.get(end.txid + 1);
      if (next === undefined || next.header.preApplyChecksum !== end.checksum) break;
      ltx.push(next.ltx);
      sizeBytes += next.ltx.length;
      end = next.post;
    }
    return ltx.length === 0 ? { kind: "unavailable" } : { kind: "transactions", ltx, end };
  }

  async openSnapshot(name: string): Promise<SnapshotReader> {
    await turn();
    const database = this.#stored.get(name);
    if (database === undefined) throw new Error(`no database ${name}`);
    if (database.status === "quarantined") throw new Error(`${name} is quarantined`);
    const pages = database.sortedPages();
    const portionLength = this.#options.pagesPerPortion ?? 16;
    const { position, pageSize, pageCount, timestampMs } = database;
    this.openSnapshots += 1;
    return {
      position,
      pageSize,
      pageCount,
      timestampMs,
      next: async () => {
        await this.beforePortion(name);
        return portionOf(pages.splice(0, portionLength));
      },
      close: () => {
        this.openSnapshots -= 1;
        return Promise.resolve();
      },
    };
  }

  async applyTransactions(
    name: string,
    ltx: readonly Uint8Array[],
    isDurable = false,
  ): Promise<ApplyResult> {
    this.#countApply(isDurable);
    const decided = await this.beforeApply(name, ltx.length);
    if (decided !== undefined) return decided;
    await turn();
    const database = this.database(name);
    for (const bytes of ltx) {
      const reason = database.apply(fakeTransaction(bytes));
      if (reason !== undefined) return { kind: "mismatch", position: database.position, reason };
    }
    this.touch(name);
    return { kind: "applied", position: database.position };
  }

  abandonReceived(): Promise<void> {
    this.onAbandon();
    return turn();
  }

  #countApply(isDurable: boolean): void {
    this.applies += 1;
    if (isDurable) this.durableApplies += 1;
  }

  async applyLtxFile(name: string, file: string, isDurable = false): Promise<ApplyResult> {
    this.#countApply(isDurable);
    const decided = await this.beforeApply(name, 1);
    if (decided !== undefined) return decided;
    await turn();
    const bytes = fs.readFileSync(file);
    fs.rmSync(file);
    const database = this.database(name);
    const reason = database.apply(fakeTransaction(bytes));
    if (reason !== undefined) return { kind: "mismatch", position: database.position, reason };
    this.touch(name);
    return { kind: "applied", position: database.position };
  }

  snapshotPath(name: string): string {
    return path.join(this.#options.directory, `${name}.snapshot`);
  }

  async verify(name: string): Promise<VerifyResult> {
    await turn();
    const database = this.#stored.get(name);
    if (database === undefined) return { kind: "failed", reason: `no database ${name}` };
    const computed = checksumOf(database.pages);
    const { position } = database;
    return computed === position.checksum
      ? { kind: "ok", position }
      : { kind: "mismatch", position, computed };
  }

  setRole(role: NodeRole): Promise<void> {
    this.roles.push(role);
    return turn();
  }

  setCommitDeadline(deadlineMonotonicMs: number): void {
    this.commitDeadlineMs = deadlineMonotonicMs;
  }

  async pauseWrites(): Promise<void> {
    this.isPaused = true;
    await this.beforePause();
    await turn();
  }

  resumeWrites(): Promise<void> {
    this.isPaused = false;
    return turn();
  }

  #report(): void {
    const changed = this.#changed;
    this.#changed = new Set();
    for (const listener of this.#listeners) listener(changed);
  }
}

function portionOf(pages: readonly LtxPage[]): SnapshotPages | undefined {
  if (pages.length === 0) return undefined;
  return {
    pgnos: Uint32Array.from(pages, ({ pgno }) => pgno),
    data: Buffer.concat(pages.map(({ data }) => data)),
  };
}

/** Every answer of the real engine comes from another thread. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
