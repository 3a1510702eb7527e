import type { ApplyResult, Engine } from "../../database/engine.ts";
import { assert, assertNever } from "../../lib/assert.ts";
import { errorCode } from "../../lib/errors.ts";
import type { Position } from "../../lib/position.ts";

/** Transactions handed to the engine in one call. */
const MAX_BATCH_BYTES = 8 * 1024 * 1024;

export type Item =
  | { readonly kind: "ltx"; readonly ltx: Uint8Array; readonly info: ItemInfo }
  | { readonly kind: "file"; readonly path: string; readonly info: ItemInfo };

export interface ItemInfo {
  readonly timestampMs: number;
  readonly receivedAtMs: number;
}

export interface ApplyQueueOptions {
  readonly engine: Engine;
  /** Whether the primary waits until transactions of a database are on the disk here. */
  isAwaited(database: string): boolean;
  /** The last transaction of a batch that readers of the mount can now see. */
  onApplied(database: string, last: Item, position: Position): void;
  /** The stream can go on: only this database is out of service. */
  onQuarantined(database: string, reason: string): void;
  /** The stream must end: what it brought does not continue what is here. */
  onMismatch(database: string, result: Extract<ApplyResult, { kind: "mismatch" }>): void;
  /** The engine itself failed. */
  onError(database: string, error: unknown): void;
}

interface Lane {
  readonly items: Item[];
  isRunning: boolean;
  /** When the oldest transaction of the batch under way was received. */
  runningSinceMs: number | undefined;
}

interface Batch {
  readonly items: readonly Item[];
  readonly last: Item;
  readonly sizeBytes: number;
}

/**
 * What was received and is not applied yet. Each database is one lane, in order; lanes run at the
 * same time. While a batch is being applied the next one collects behind it, so batches grow with
 * the load and cost no latency when there is none.
 */
export class ApplyQueue {
  readonly #options: ApplyQueueOptions;
  /** Only databases that have something to apply or are applying it. */
  readonly #lanes = new Map<string, Lane>();
  readonly #discarded = new Set<string>();
  readonly #waiters = new Set<() => void>();
  #bufferedBytes = 0;
  #batchCount = 0;
  #isClosed = false;

  constructor(options: ApplyQueueOptions) {
    this.#options = options;
  }

  /** Bytes of received transactions held in memory. */
  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  /** Grows with each batch that is done. */
  get batchCount(): number {
    return this.#batchCount;
  }

  /** When the oldest transaction that is not applied yet was received. */
  oldestPendingAtMs(): number | undefined {
    let oldest: number | undefined;
    for (const lane of this.#lanes.values()) {
      const atMs = lane.runningSinceMs ?? lane.items[0]?.info.receivedAtMs;
      if (atMs !== undefined && (oldest === undefined || atMs < oldest)) oldest = atMs;
    }
    return oldest;
  }

  /** Takes one item. Nothing happens with it before `kick`. */
  add(database: string, item: Item): void {
    if (this.#isClosed || this.#discarded.has(database)) return;
    let lane = this.#lanes.get(database);
    if (lane === undefined) {
      lane = { items: [], isRunning: false, runningSinceMs: undefined };
      this.#lanes.set(database, lane);
    }
    lane.items.push(item);
    this.#bufferedBytes += itemBytes(item);
  }

  /** Starts applying. Called after a chunk of the stream, so that what came together stays so. */
  kick(): void {
    for (const [database, lane] of this.#lanes) {
      if (!lane.isRunning) void this.#run(database, lane);
    }
  }

  /** True once a database was quarantined: what still comes for it is of no use. */
  isDiscarding(database: string): boolean {
    return this.#discarded.has(database);
  }

  /** Resolves when nothing of this database is left, or the queue is closed. */
  laneIdle(database: string): Promise<void> {
    return this.#until(() => !this.#lanes.has(database));
  }

  /** Resolves when nothing at all is left, or the queue is closed. */
  idle(): Promise<void> {
    return this.#until(() => this.#lanes.size === 0);
  }

  belowBytes(limitBytes: number): Promise<void> {
    return this.#until(() => this.#bufferedBytes < limitBytes);
  }

  /** Drops what has not begun and takes nothing more. What has begun cannot be called back. */
  stop(): void {
    this.#isClosed = true;
    for (const [database, lane] of this.#lanes) this.#drop(database, lane);
    this.#notify();
  }

  /** Databases of which something is left. */
  get pending(): string[] {
    return [...this.#lanes.keys()].sort();
  }

  /** Stops; resolves when what has begun is done. An application that reads must not hold it up. */
  async close(): Promise<void> {
    this.stop();
    // Without an answer the engine is gone, and with it what was being applied.
    if (this.#lanes.size > 0) {
      await this.#options.engine.abandonReceived().catch((error: unknown) => {
        for (const database of this.#lanes.keys()) this.#options.onError(database, error);
      });
    }
    while (this.#lanes.size > 0) await this.#changed();
  }

  async #run(database: string, lane: Lane): Promise<void> {
    lane.isRunning = true;
    try {
      while (lane.items.length > 0 && !this.#isClosed) {
        const batch = takeBatch(lane.items);
        lane.runningSinceMs = batch.items[0]?.info.receivedAtMs;
        const result = await this.#apply(database, batch);
        this.#bufferedBytes -= batch.sizeBytes;
        this.#batchCount += 1;
        if (!this.#settle(database, batch, result)) break;
        this.#notify();
      }
    } catch (error) {
      if (errorCode(error) !== "APPLY_ABANDONED") this.#options.onError(database, error);
    } finally {
      lane.isRunning = false;
      this.#drop(database, lane);
      this.#notify();
    }
  }

  #apply(database: string, batch: Batch): Promise<ApplyResult> {
    const { engine } = this.#options;
    const isDurable = this.#options.isAwaited(database);
    if (batch.last.kind === "file") {
      return engine.applyLtxFile(database, batch.last.path, isDurable);
    }
    const ltx: Uint8Array[] = [];
    for (const item of batch.items) if (item.kind === "ltx") ltx.push(item.ltx);
    return engine.applyTransactions(database, ltx, isDurable);
  }

  /** False when nothing more of this database can be applied. */
  #settle(database: string, batch: Batch, result: ApplyResult): boolean {
    switch (result.kind) {
      case "applied":
        this.#options.onApplied(database, batch.last, result.position);
        return true;
      case "mismatch":
        this.#options.onMismatch(database, result);
        return false;
      case "quarantined":
        this.#discarded.add(database);
        this.#options.onQuarantined(database, result.reason);
        return false;
      default:
        return assertNever(result);
    }
  }

  #drop(database: string, lane: Lane): void {
    for (const item of lane.items) this.#bufferedBytes -= itemBytes(item);
    lane.items.length = 0;
    if (!lane.isRunning) this.#lanes.delete(database);
  }

  async #until(isDone: () => boolean): Promise<void> {
    while (!this.#isClosed && !isDone()) await this.#changed();
  }

  #changed(): Promise<void> {
    return new Promise((resolve) => this.#waiters.add(resolve));
  }

  #notify(): void {
    for (const resolve of this.#waiters) resolve();
    this.#waiters.clear();
  }
}

/** Either one snapshot, or as many transactions as follow each other up to the size limit. */
function takeBatch(items: Item[]): Batch {
  let count = 0;
  let sizeBytes = 0;
  for (const item of items) {
    const size = itemBytes(item);
    if (count > 0 && (item.kind === "file" || sizeBytes + size > MAX_BATCH_BYTES)) break;
    count += 1;
    sizeBytes += size;
    if (item.kind === "file") break;
  }
  const batch = items.splice(0, count);
  const last = batch.at(-1);
  assert(last !== undefined, "a batch is taken from a lane that has items");
  return { items: batch, last, sizeBytes };
}

function itemBytes(item: Item): number {
  return item.kind === "ltx" ? item.ltx.length : 0;
}
