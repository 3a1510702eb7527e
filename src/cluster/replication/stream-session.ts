import { CHUNK_END, encodeChunks, MAX_CHUNK_BYTES } from "../../wire/chunk.ts";
import type { DatabaseState, LargeLtx, LogRead } from "../../database/engine.ts";
import { errorText, LitefsError } from "../../lib/errors.ts";
import { positionsEqual, ZERO_POSITION } from "../../lib/position.ts";
import type { Position } from "../../lib/position.ts";
import {
  encodeDropDatabase,
  encodeEnd,
  encodeHandoff,
  encodeHeartbeat,
  encodeHwm,
  encodeLtxBegin,
  encodeLtxFrame,
  encodeReady,
} from "../../wire/stream-encoder.ts";
import type { FrameSink } from "./frame-sink.ts";
import { sendSnapshot, SnapshotDamagedError } from "./snapshot-sender.ts";
import type { SentFrameType, StreamRequest, StreamServerOptions } from "./stream-server.ts";

/** Log bytes asked for at once: many small transactions, or one that may be larger. */
const LOG_READ_BYTES = 1024 * 1024;
/** A multiple of the largest chunk. */
const LARGE_PIECE_BYTES = 16 * MAX_CHUNK_BYTES;
const LOG_UNAVAILABLE: LogRead = { kind: "unavailable" };

/** The lease on its way to the replica of a session. */
interface Handoff {
  readonly leaseId: string;
  /** Called when the replica has been sent everything, right before the lease. */
  beforeSend(): Promise<void>;
  readonly done: PromiseWithResolvers<void>;
}

export interface SessionControl {
  /** End cleanly. */
  readonly stop: AbortSignal;
  /** The replica has left; nothing more can be written. */
  readonly replicaGone: AbortSignal;
  /** Where snapshots failed by their checksum, shared by all sessions: not to be tried again. */
  readonly damagedAt: Map<string, Position>;
  onFramesSent(database: string, type: SentFrameType, count: number): void;
}

/**
 * Everything one replica is sent. It knows what the replica has, by its position map and by what
 * was sent since, and works off the set of databases that may have moved on.
 */
export class StreamSession {
  readonly #options: StreamServerOptions;
  readonly #request: StreamRequest;
  readonly #sink: FrameSink;
  readonly #control: SessionControl;
  readonly #interrupted: AbortSignal;
  /** What the replica has. */
  readonly #positions: Map<string, Position>;
  readonly #dirty = new Set<string>();
  /** Could not be sent; tried again at the next heartbeat. */
  readonly #failed = new Set<string>();
  #wake: () => void = () => undefined;
  #lastSentAtMs: number;
  #isHeartbeatDue = true;
  #isWakeDue = false;
  #handoff: Handoff | undefined;

  constructor(
    options: StreamServerOptions,
    request: StreamRequest,
    sink: FrameSink,
    control: SessionControl,
  ) {
    this.#options = options;
    this.#request = request;
    this.#sink = sink;
    this.#control = control;
    this.#interrupted = AbortSignal.any([control.stop, control.replicaGone]);
    this.#positions = new Map(request.positions);
    this.#lastSentAtMs = options.clock.monotonicMs();
  }

  async run(): Promise<void> {
    const { engine, log } = this.#options;
    const unsubscribe = engine.onChange((databases) => {
      for (const name of databases) this.#markDirty(name);
      if (this.#dirty.size > 0) this.#wakeSoon();
    });
    const onInterrupt = (): void => this.#wake();
    this.#interrupted.addEventListener("abort", onInterrupt);
    const ticker = new AbortController();
    const ticking = this.#tick(ticker.signal);
    try {
      for (const name of this.#positions.keys()) this.#markDirty(name);
      for (const name of engine.databases.keys()) this.#markDirty(name);
      await this.#rounds();
      // Every frame is complete here, so the replica gets a clean end, not a broken one.
      if (!this.#control.replicaGone.aborted) this.#sink.write(encodeEnd());
      log.debug("stream ended", { replica: this.#request.clientNodeId });
    } finally {
      unsubscribe();
      this.#handoff?.done.reject(handoffRefusal("its stream has ended"));
      this.#interrupted.removeEventListener("abort", onInterrupt);
      ticker.abort();
      await ticking;
    }
  }

  /**
   * After what has arrived together with the change: the answer to who has forwarded a transaction comes
   * right behind it, and he waits for that, not for the stream.
   */
  #wakeSoon(): void {
    if (this.#isWakeDue) return;
    this.#isWakeDue = true;
    setImmediate(() => {
      this.#isWakeDue = false;
      this.#wake();
    });
  }

  /** What the replica has been sent of a database. */
  sentPosition(database: string): Position {
    return this.#positions.get(database) ?? ZERO_POSITION;
  }

  /**
   * Gives the lease to this replica once it has been sent everything, and ends the stream. Writers
   * must be held back meanwhile. When this rejects the lease was not sent.
   */
  handOff(leaseId: string, beforeSend: () => Promise<void>): Promise<void> {
    const done = Promise.withResolvers<void>();
    if (this.#handoff !== undefined || this.#interrupted.aborted) {
      done.reject(handoffRefusal("its stream is ending"));
    } else {
      this.#handoff = { leaseId, beforeSend, done };
      this.#wake();
    }
    return done.promise;
  }

  /** Whether the stream ends here, with the lease as its last word. */
  async #finishHandoff(): Promise<boolean> {
    const handoff = this.#handoff;
    if (handoff === undefined || this.#dirty.size > 0) return false;
    this.#handoff = undefined;
    try {
      const missing = this.#missingDatabase();
      if (missing !== undefined) throw handoffRefusal(`${missing} cannot be sent to it`);
      await handoff.beforeSend();
      if (this.#control.replicaGone.aborted) throw handoffRefusal("it has gone");
    } catch (error) {
      handoff.done.reject(error);
      return false;
    }
    this.#sink.write(encodeHandoff(handoff.leaseId));
    handoff.done.resolve();
    return true;
  }

  #missingDatabase(): string | undefined {
    for (const [name, { status, position }] of this.#options.engine.databases) {
      if (status === "quarantined" || positionsEqual(this.sentPosition(name), position)) continue;
      return name;
    }
    return undefined;
  }

  async #rounds(): Promise<void> {
    let isReady = false;
    while (!this.#interrupted.aborted) {
      const round = [...this.#dirty].sort();
      this.#dirty.clear();
      for (const name of round) {
        if (this.#interrupted.aborted) return;
        await this.#sendDatabase(name);
      }
      if (this.#interrupted.aborted) return;
      // What could not be sent yet the replica does not have, and must not count as one that has all.
      if (!isReady && this.#failed.size === 0) {
        isReady = true;
        this.#sink.write(encodeReady());
      }
      if (this.#request.isCatchUp === true) return;
      if (this.#isHeartbeatDue) await this.#send(encodeHeartbeat(this.#options.clock.nowMs()));
      this.#isHeartbeatDue = false;
      if (await this.#finishHandoff()) return;
      if (this.#dirty.size === 0 && !this.#interrupted.aborted) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  /** Asks for a heartbeat when nothing was sent for one interval. A busy stream needs none. */
  async #tick(signal: AbortSignal): Promise<void> {
    const { clock, heartbeatIntervalMs } = this.#options;
    let dueInMs = heartbeatIntervalMs;
    while (!signal.aborted) {
      // Rejects only when aborted, which the loop condition sees.
      await clock.sleep(dueInMs, signal).catch(() => undefined);
      dueInMs = this.#lastSentAtMs + heartbeatIntervalMs - clock.monotonicMs();
      if (dueInMs > 0) continue;
      for (const name of this.#failed) this.#markDirty(name);
      this.#failed.clear();
      this.#isHeartbeatDue = true;
      this.#wake();
      dueInMs = heartbeatIntervalMs;
    }
  }

  #markDirty(name: string): void {
    const { filter } = this.#request;
    if (filter === undefined || filter.has(name)) this.#dirty.add(name);
  }

  /** Sends until the replica has what the database had when this was called. */
  async #sendDatabase(name: string): Promise<void> {
    const state = this.#options.engine.databases.get(name);
    // Only what comes on top: the other node may be ahead of this one elsewhere.
    if (this.#request.isCatchUp === true && !this.#isAhead(name, state)) return;
    if (state === undefined) {
      this.#positions.delete(name);
      await this.#send(encodeDropDatabase(name));
      return;
    }
    if (state.status === "quarantined") {
      this.#options.log.warn("database is quarantined and not replicated", {
        db: name,
        reason: state.reason,
      });
      return;
    }
    await this.#catchUp(name, state);
  }

  #isAhead(name: string, state: DatabaseState | undefined): boolean {
    if (state === undefined || state.status === "quarantined") return false;
    return state.position.txid > this.sentPosition(name).txid;
  }

  async #catchUp(name: string, state: DatabaseState): Promise<void> {
    const target = state.position;
    let client = this.#positions.get(name) ?? ZERO_POSITION;
    if (positionsEqual(client, target)) return;
    while (!this.#interrupted.aborted) {
      // Whether the log can continue what the replica has is the engine's word, not a comparison
      // with the live view, which may be a moment older than what was already sent.
      const read = client.txid === 0 ? LOG_UNAVAILABLE : await this.#readLog(name, client);
      if (read === undefined) return;
      if (read.kind === "transactions") {
        if (read.ltx.length === 0 && client.txid < target.txid) {
          // The log is behind its own live view, which only time can mend.
          this.#failed.add(name);
          return;
        }
        await this.#sendLog(name, read.ltx);
        client = read.end;
      } else if (read.kind === "large") {
        await this.#sendLarge(name, read.ltx);
        client = read.end;
      } else {
        if (target.txid === 0) return;
        const copied = await this.#sendSnapshot(name);
        if (copied === undefined) return;
        client = copied;
      }
      this.#positions.set(name, client);
      if (client.txid >= target.txid) return;
    }
  }

  /** Undefined when it failed, which delays only this database. */
  async #readLog(name: string, after: Position): Promise<LogRead | undefined> {
    try {
      return await this.#options.engine.readLog(name, after, LOG_READ_BYTES);
    } catch (error) {
      this.#retryLater(name, "cannot read log for replica", error);
      return undefined;
    }
  }

  async #sendLog(name: string, batch: readonly Uint8Array[]): Promise<void> {
    if (batch.length === 0) return;
    // Backups are not kept by this node, so nothing below is safe to forget: high-water mark 0.
    const hwm = encodeHwm(name, 0);
    const frames: Uint8Array[] = [];
    for (const ltx of batch) frames.push(encodeLtxFrame(name, ltx), hwm);
    this.#control.onFramesSent(name, "ltx", batch.length);
    await this.#send(Buffer.concat(frames));
  }

  /** In pieces, each after the one before is on its way: a transaction of any size takes no memory. */
  async #sendLarge(name: string, ltx: LargeLtx): Promise<void> {
    await this.#send(encodeLtxBegin(name));
    for (let at = 0; at < ltx.lengthBytes; at += LARGE_PIECE_BYTES) {
      await this.#send(encodeChunks(ltx.read(at, LARGE_PIECE_BYTES)));
      // The frame is open, so the stream cannot end here as if all were well.
      this.#interrupted.throwIfAborted();
    }
    this.#control.onFramesSent(name, "ltx", 1);
    await this.#send(Buffer.concat([CHUNK_END, encodeHwm(name, 0)]));
  }

  /** The position of the copy; undefined when it could not be made, which only delays this one. */
  async #sendSnapshot(name: string): Promise<Position | undefined> {
    const { engine, log } = this.#options;
    let reader;
    try {
      reader = await engine.openSnapshot(name);
    } catch (error) {
      this.#retryLater(name, "cannot open snapshot for replica", error);
      return undefined;
    }
    try {
      if (reader.position.txid === 0 || this.#isDamaged(name, reader.position)) return undefined;
      await sendSnapshot(this.#options, name, reader, this.#sink, this.#interrupted);
      this.#control.onFramesSent(name, "ltx:snapshot", 1);
      log.info("snapshot sent", {
        db: name,
        replica: this.#request.clientNodeId,
        txid: reader.position.txid,
        pages: reader.pageCount,
      });
      return reader.position;
    } catch (error) {
      if (error instanceof SnapshotDamagedError) {
        this.#control.damagedAt.set(name, reader.position);
        this.#verify(name);
      }
      throw error;
    } finally {
      await reader.close();
    }
  }

  /** All of it is read once more; if it is so, the engine serves it no longer. */
  #verify(name: string): void {
    const { engine, log } = this.#options;
    engine.verify(name).catch((error: unknown) => {
      log.error("cannot verify a database", { db: name, error: errorText(error) });
    });
  }

  /** Breaking the stream again for it would only keep the other databases from this replica. */
  #isDamaged(name: string, position: Position): boolean {
    const damagedAt = this.#control.damagedAt.get(name);
    if (damagedAt === undefined || !positionsEqual(damagedAt, position)) return false;
    this.#options.log.error("database is damaged and not replicated, run 'litefs check'", {
      db: name,
    });
    return true;
  }

  #retryLater(name: string, message: string, error: unknown): void {
    this.#options.log.error(message, { db: name, error: errorText(error) });
    this.#failed.add(name);
  }

  async #send(bytes: Uint8Array): Promise<void> {
    this.#lastSentAtMs = this.#options.clock.monotonicMs();
    if (this.#sink.write(bytes)) return;
    try {
      await this.#sink.drained(this.#interrupted);
    } catch (error) {
      // The bytes taken are whole frames, so a requested stop is still a clean end.
      if (!this.#interrupted.aborted) throw error;
    }
  }
}

function handoffRefusal(reason: string): LitefsError {
  return new LitefsError("HANDOFF_FAILED", `the lease cannot be handed to the replica: ${reason}`);
}
