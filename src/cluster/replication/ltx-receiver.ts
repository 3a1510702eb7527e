import type { Engine } from "../../database/engine.ts";
import { assert } from "../../lib/assert.ts";
import type { Clock } from "../../lib/clock.ts";
import { FormatError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { decodeHeader, isSnapshot, LTX_HEADER_SIZE } from "../../ltx/header.ts";
import type { LtxHeader } from "../../ltx/header.ts";
import type { Item, ItemInfo } from "./apply-queue.ts";
import { SnapshotSpool } from "./snapshot-spool.ts";

/** What is larger than this goes through a file. */
const MAX_BYTES_IN_MEMORY = 4 * 1024 * 1024;
/** How often one that takes long says how far it is. */
const PROGRESS_EVERY_MS = 5_000;

export interface LtxReceiverOptions {
  readonly engine: Pick<Engine, "snapshotPath">;
  readonly clock: Clock;
  readonly log: Logger;
  /** The previous snapshot of this database may still be read from the very file we need. */
  spoolIsFree(): Promise<void>;
}

/**
 * One LTX file while it arrives in pieces. Its header decides: a snapshot goes to a file piece by
 * piece, a transaction stays in memory unless it is large.
 */
export class LtxReceiver {
  readonly database: string;
  readonly startedAtMs: number;
  readonly #options: LtxReceiverOptions;
  #pieces: Uint8Array[] = [];
  #sizeBytes = 0;
  #header: LtxHeader | undefined;
  #spool: SnapshotSpool | undefined;
  #toldAtMs: number;

  constructor(database: string, options: LtxReceiverOptions) {
    this.database = database;
    this.#options = options;
    this.startedAtMs = this.#toldAtMs = options.clock.monotonicMs();
  }

  /** Resolves when more may come; undefined when at once. */
  push(bytes: Uint8Array): Promise<void> | undefined {
    this.#sizeBytes += bytes.length;
    if (this.#spool !== undefined) {
      this.#tell();
      return this.#spool.write(bytes);
    }
    this.#pieces.push(bytes);
    if (this.#sizeBytes < LTX_HEADER_SIZE) return undefined;
    this.#header ??= decodeHeader(this.#joined(), 0);
    const isLarge = this.#sizeBytes > MAX_BYTES_IN_MEMORY;
    return isLarge || isSnapshot(this.#header) ? this.#startSpool() : undefined;
  }

  /** False: it is a transaction, held in memory. */
  get isSpooled(): boolean {
    return this.#spool !== undefined;
  }

  takeTransaction(): Item {
    return { kind: "ltx", ltx: this.#joined(), info: this.#info() };
  }

  /** The complete file, safely on the disk. */
  async finishFile(): Promise<Item> {
    const spool = this.#spool;
    assert(spool !== undefined, "a transaction in memory has no snapshot file");
    await spool.finish();
    this.#spool = undefined;
    if (this.#toldAtMs !== this.startedAtMs) this.#say("received");
    return { kind: "file", path: spool.path, info: this.#info() };
  }

  async discard(): Promise<void> {
    this.#pieces = [];
    await this.#spool?.discard();
    this.#spool = undefined;
  }

  async #startSpool(): Promise<void> {
    const { engine } = this.#options;
    await this.#options.spoolIsFree();
    this.#spool = await SnapshotSpool.create(engine.snapshotPath(this.database));
    await this.#spool.write(this.#joined());
    this.#pieces = [];
  }

  #tell(): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs - this.#toldAtMs < PROGRESS_EVERY_MS) return;
    this.#toldAtMs = nowMs;
    this.#say("receiving");
  }

  /** What arrives is compressed, perhaps, so that its end is not known. */
  #say(state: "receiving" | "received"): void {
    const header = this.#header;
    if (header === undefined) return;
    const nowMs = this.#options.clock.monotonicMs();
    this.#options.log.info(isSnapshot(header) ? `${state} snapshot` : `${state} transaction`, {
      db: this.database,
      bytes: this.#sizeBytes,
      databaseBytes: header.commit * header.pageSize,
      seconds: Math.round((nowMs - this.startedAtMs) / 1000),
    });
  }

  #joined(): Uint8Array {
    const [first] = this.#pieces;
    if (first !== undefined && this.#pieces.length === 1) return first;
    const joined = Buffer.concat(this.#pieces);
    this.#pieces = [joined];
    return joined;
  }

  #info(): ItemInfo {
    if (this.#header === undefined) {
      throw new FormatError(
        "LTX_TRUNCATED",
        `the primary sent an LTX file of ${this.#sizeBytes} bytes for ${this.database}, shorter than its header`,
      );
    }
    return { timestampMs: this.#header.timestampMs, receivedAtMs: this.startedAtMs };
  }
}
