import * as fs from "node:fs/promises";
import { assertNever } from "../../lib/assert.ts";
import { FormatError, LitefsError } from "../../lib/errors.ts";
import type { StreamFrame } from "../../wire/frames.ts";
import type { Position } from "../../lib/position.ts";
import { StreamParser } from "../../wire/stream-parser.ts";
import type { AckSender } from "../sync/ack-sender.ts";
import { ApplyQueue } from "./apply-queue.ts";
import type { Item } from "./apply-queue.ts";
import { LtxReceiver } from "./ltx-receiver.ts";
import { QuarantineHealer } from "./quarantine-healer.ts";
import type { HealingDelays } from "./quarantine-healer.ts";
import type { SnapshotNeeds } from "./snapshot-needs.ts";
import type { StreamClientOptions, StreamObserver } from "./stream-client.ts";
import type { OpenedStream } from "./stream-transport.ts";

/** How long what has arrived may wait for applications that read, when no more can come. */
const READERS_GRACE_MS = 10_000;
/** The same when there is another primary, which has it or has decided against it. */
const SUCCEEDED_GRACE_MS = 1_000;

/** How one connection to the primary ended without an error. */
export interface StreamEnd {
  /** The primary said so, as at its shutdown; otherwise the connection just closed. */
  readonly announced: boolean;
  /** It was left because there is another primary by now. */
  readonly isSucceeded?: true;
  /** The primary hands its lease to this node, which has applied all it was sent. */
  readonly handoffLeaseId?: string;
}

export interface ReceptionParts {
  readonly connection: OpenedStream;
  readonly observer: StreamObserver;
  readonly needs: SnapshotNeeds;
  readonly healingDelays: HealingDelays;
  /** Undefined when the primary does not wait for this node. */
  readonly acks: AckSender | undefined;
  readonly signal: AbortSignal;
  /** Ends the stream as if the connection had: what has arrived is applied first. */
  readonly leave: AbortSignal;
}

/**
 * One open stream: bytes in, applied transactions out. Reading and applying run side by side; when
 * applying falls behind by `maxBufferedBytes`, reading stops and HTTP/2 flow control holds the
 * primary back.
 */
export class StreamReception {
  readonly #options: StreamClientOptions;
  readonly #connection: OpenedStream;
  readonly #observer: StreamObserver;
  readonly #needs: SnapshotNeeds;
  readonly #acks: AckSender | undefined;
  readonly #signal: AbortSignal;
  readonly #leave: AbortSignal;
  readonly #queue: ApplyQueue;
  readonly #healer: QuarantineHealer;
  readonly #parser = new StreamParser();
  readonly #spooled = new Set<string>();
  #receiver: LtxReceiver | undefined;
  #failure: Error | undefined;
  /** Why nothing more can come; what has come is good. */
  #cut: Error | undefined;
  #isEnded = false;
  #handoffLeaseId: string | undefined;
  /** Since when the primary owes us bytes; undefined while we are busy with those it sent. */
  #waitingSinceMs: number | undefined;

  constructor(options: StreamClientOptions, parts: ReceptionParts) {
    const { needs } = parts;
    this.#options = options;
    this.#connection = parts.connection;
    this.#observer = parts.observer;
    this.#needs = needs;
    this.#acks = parts.acks;
    this.#signal = parts.signal;
    this.#leave = parts.leave;
    this.#queue = new ApplyQueue({
      engine: options.engine,
      isAwaited: (database) => this.#acks?.isAwaited(database) === true,
      onApplied: (database, item, position) => this.#applied(database, item, position),
      onQuarantined: (database, reason) => {
        options.log.error("database is quarantined", { db: database, reason });
        this.#healer.quarantined(database);
      },
      onMismatch: (database, result) => {
        needs.mismatch(database, result.position);
        this.#fail(mismatchError(database, result.reason));
      },
      onError: (database, error) => this.#fail(applyError(database, error)),
    });
    const { engine, clock, log, filter } = options;
    this.#healer = new QuarantineHealer({
      engine,
      clock,
      log,
      filter,
      delays: parts.healingDelays,
      isDiscarding: (database) => this.#queue.isDiscarding(database),
      reconnect: (database) => this.#fail(healingError(database)),
    });
  }

  async run(): Promise<StreamEnd> {
    const { lag } = this.#options;
    const watch = new AbortController();
    const watching = this.#watch(watch.signal);
    const onAbort = (): void => this.#stopApplying();
    this.#signal.addEventListener("abort", onAbort, { once: true });
    lag.connected(() => this.#oldestPendingAtMs());
    try {
      await this.#readToEnd();
      this.#throwIfBroken();
      // What arrived whole is worth having, whatever became of the connection: if the primary is
      // dead, it may be nowhere else.
      this.#queue.kick();
      await this.#appliedAll();
      this.#throwIfBroken();
      const isOver = this.#isEnded || this.#leave.aborted;
      if (this.#cut !== undefined && !isOver) throw this.#cut;
      if (!isOver) this.#parser.end();
      return {
        announced: isOver,
        ...(this.#handoffLeaseId === undefined ? {} : { handoffLeaseId: this.#handoffLeaseId }),
      };
    } catch (error) {
      // Tearing down the connection makes reading fail too; the first failure is the reason.
      throw this.#failure ?? error;
    } finally {
      this.#signal.removeEventListener("abort", onAbort);
      this.#stopApplying();
      this.#healer.close();
      watch.abort();
      await watching;
      await this.#queue.close();
      await this.#receiver?.discard();
      for (const path of this.#spooled) await fs.rm(path, { force: true });
    }
  }

  /**
   * An application that reads in a rollback mode keeps what was received from being applied for as long as
   * its transaction is open. That must not keep this node from following the next primary, or from being it:
   * nothing of it was acknowledged by this node, and the next primary decides what there is.
   */
  async #appliedAll(): Promise<void> {
    for (;;) {
      const before = this.#queue.batchCount;
      const isLeaving = this.#leave.aborted;
      if (await this.#idleWithin(isLeaving ? SUCCEEDED_GRACE_MS : READERS_GRACE_MS)) return;
      if (this.#queue.batchCount !== before || this.#leave.aborted !== isLeaving) continue;
      const names = this.#queue.pending.join(", ");
      this.#fail(
        new LitefsError(
          "READERS_IN_THE_WAY",
          `applications that read ${names} keep what was received last from being applied; going on without`,
        ),
      );
      return;
    }
  }

  /** False when it takes longer, or when there is a successor by now. */
  async #idleWithin(graceMs: number): Promise<boolean> {
    let isIdle = false;
    const idle = this.#queue.idle().then(() => {
      isIdle = true;
    });
    const over = new AbortController();
    const signal = this.#leave.aborted ? over.signal : AbortSignal.any([over.signal, this.#leave]);
    const slept = this.#options.clock.sleep(graceMs, signal).catch(() => undefined);
    await Promise.race([idle, slept]);
    over.abort();
    return isIdle;
  }

  async #readToEnd(): Promise<void> {
    try {
      await this.#read();
    } catch (error) {
      this.#throwIfBroken();
      if (error instanceof FormatError) throw error;
      this.#cut ??= error instanceof Error ? error : new Error(String(error));
    }
  }

  async #read(): Promise<void> {
    const { clock, lag, maxBufferedBytes } = this.#options;
    this.#waitingSinceMs = clock.monotonicMs();
    for await (const chunk of this.#connection.body) {
      this.#waitingSinceMs = undefined;
      lag.frameReceived();
      for (const frame of this.#parser.push(chunk)) {
        const busy = this.#handle(frame);
        if (busy !== undefined) await busy;
        if (this.#isBroken() || this.#isEnded) return;
      }
      this.#queue.kick();
      if (this.#queue.bufferedBytes >= maxBufferedBytes) {
        await this.#queue.belowBytes(maxBufferedBytes / 2);
      }
      if (this.#isBroken()) return;
      this.#waitingSinceMs = clock.monotonicMs();
    }
  }

  #handle(frame: StreamFrame): Promise<void> | undefined {
    switch (frame.type) {
      case "ltx-begin":
        return this.#beginLtx(frame.name);
      case "ltx-data":
        return this.#pushLtx(frame.bytes);
      case "ltx-end":
        return this.#endLtx();
      case "ready":
        return this.#ready();
      case "heartbeat":
        // It says nothing about transactions that arrived before it and are not applied yet.
        if (this.#oldestPendingAtMs() === undefined) {
          this.#options.lag.primaryTimestamp(frame.timestampMs);
        }
        return undefined;
      case "end":
        this.#isEnded = true;
        return undefined;
      case "drop-database":
        // A database is deleted by a transaction, never by the absence of one elsewhere.
        this.#options.log.warn("the primary does not know this database; it is kept", {
          db: frame.name,
        });
        return undefined;
      case "hwm":
        return undefined;
      case "handoff":
        this.#handoffLeaseId = frame.leaseId;
        return undefined;
      default:
        return assertNever(frame);
    }
  }

  #beginLtx(database: string): undefined {
    const { clock, engine, log } = this.#options;
    const spoolIsFree = (): Promise<void> => {
      this.#queue.kick();
      return this.#queue.laneIdle(database);
    };
    this.#receiver = new LtxReceiver(database, { clock, engine, log, spoolIsFree });
    return undefined;
  }

  #pushLtx(bytes: Uint8Array): Promise<void> | undefined {
    const receiver = this.#receiver;
    if (receiver === undefined || this.#queue.isDiscarding(receiver.database)) return undefined;
    return receiver.push(bytes);
  }

  #endLtx(): Promise<void> | undefined {
    const receiver = this.#receiver;
    this.#receiver = undefined;
    if (receiver === undefined) return undefined;
    if (this.#queue.isDiscarding(receiver.database)) return receiver.discard();
    if (!receiver.isSpooled) {
      this.#queue.add(receiver.database, receiver.takeTransaction());
      return undefined;
    }
    return this.#addSnapshot(receiver);
  }

  async #addSnapshot(receiver: LtxReceiver): Promise<void> {
    const item = await receiver.finishFile();
    if (item.kind === "file") this.#spooled.add(item.path);
    this.#queue.add(receiver.database, item);
  }

  /** Ready counts when everything that came before it is applied. */
  async #ready(): Promise<void> {
    this.#queue.kick();
    await this.#queue.idle();
    if (this.#isBroken()) return;
    this.#options.lag.caughtUp();
    this.#observer.onReady();
    // Beside what goes on: it may have many databases to sync.
    void this.#acks?.open();
  }

  #applied(database: string, item: Item, position: Position): void {
    const { clock, lag } = this.#options;
    this.#acks?.applied(database, position);
    if (item.kind === "file") this.#spooled.delete(item.path);
    this.#needs.applied(database);
    this.#healer.applied(database);
    lag.primaryTimestamp(item.info.timestampMs);
    this.#observer.onApplied(database, Math.max(0, clock.nowMs() - item.info.timestampMs));
  }

  /** Including one that has begun to arrive. */
  #oldestPendingAtMs(): number | undefined {
    const queued = this.#queue.oldestPendingAtMs();
    const arriving = this.#receiver?.startedAtMs;
    if (queued === undefined || arriving === undefined) return queued ?? arriving;
    return Math.min(queued, arriving);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#stopApplying();
    this.#connection.destroy();
  }

  /** The lag must see what was pending before it is dropped. */
  #stopApplying(): void {
    this.#options.lag.disconnected();
    this.#queue.stop();
  }

  #isBroken(): boolean {
    return this.#failure !== undefined || this.#signal.aborted;
  }

  #throwIfBroken(): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#signal.throwIfAborted();
  }

  /** Ends a connection on which the primary has gone silent. */
  async #watch(signal: AbortSignal): Promise<void> {
    const { clock, readTimeoutMs } = this.#options;
    while (!signal.aborted) {
      // Rejects only when aborted, which the loop condition sees.
      await clock.sleep(readTimeoutMs / 4, signal).catch(() => undefined);
      const since = this.#waitingSinceMs;
      if (since === undefined || clock.monotonicMs() - since < readTimeoutMs) continue;
      const problem = `the primary sent nothing for ${readTimeoutMs} ms`;
      this.#cut = new LitefsError("PRIMARY_SILENT", problem);
      this.#connection.destroy();
      return;
    }
  }
}

function mismatchError(database: string, reason: string): LitefsError {
  return new LitefsError(
    "REPLICA_MISMATCH",
    `${database} cannot continue from the primary's transactions: ${reason}; reconnecting`,
  );
}

function healingError(database: string): LitefsError {
  return new LitefsError(
    "REPLICA_QUARANTINED",
    `${database} is quarantined here; reconnecting for a new copy of it`,
  );
}

function applyError(database: string, cause: unknown): LitefsError {
  return new LitefsError(
    "APPLY_FAILED",
    `applying transactions to ${database} failed; reconnecting`,
    { cause },
  );
}
