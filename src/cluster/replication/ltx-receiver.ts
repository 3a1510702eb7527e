import type { Engine } from "../../database/engine.ts";
import { assert } from "../../lib/assert.ts";
import { FormatError } from "../../lib/errors.ts";
import { decodeHeader, isSnapshot, LTX_HEADER_SIZE } from "../../ltx/header.ts";
import type { LtxHeader } from "../../ltx/header.ts";
import type { Item, ItemInfo } from "./apply-queue.ts";
import { SnapshotSpool } from "./snapshot-spool.ts";

/** What is larger than this goes through a file. */
const MAX_BYTES_IN_MEMORY = 4 * 1024 * 1024;

/**
 * One LTX file while it arrives in pieces. Its header decides: a snapshot goes to a file piece by
 * piece, a transaction stays in memory unless it is large.
 */
export class LtxReceiver {
  readonly database: string;
  readonly startedAtMs: number;
  readonly #engine: Engine;
  /** The previous snapshot of this database may still be read from the very file we need. */
  readonly #spoolIsFree: () => Promise<void>;
  #pieces: Uint8Array[] = [];
  #sizeBytes = 0;
  #header: LtxHeader | undefined;
  #spool: SnapshotSpool | undefined;

  constructor(
    database: string,
    startedAtMs: number,
    engine: Engine,
    spoolIsFree: () => Promise<void>,
  ) {
    this.database = database;
    this.startedAtMs = startedAtMs;
    this.#engine = engine;
    this.#spoolIsFree = spoolIsFree;
  }

  /** Resolves when more may come; undefined when at once. */
  push(bytes: Uint8Array): Promise<void> | undefined {
    this.#sizeBytes += bytes.length;
    if (this.#spool !== undefined) return this.#spool.write(bytes);
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
    return { kind: "file", path: spool.path, info: this.#info() };
  }

  async discard(): Promise<void> {
    this.#pieces = [];
    await this.#spool?.discard();
    this.#spool = undefined;
  }

  async #startSpool(): Promise<void> {
    await this.#spoolIsFree();
    this.#spool = await SnapshotSpool.create(this.#engine.snapshotPath(this.database));
    await this.#spool.write(this.#joined());
    this.#pieces = [];
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
