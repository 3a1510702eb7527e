import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import type {
  ApplyResult,
  Engine,
  LogRead,
  NodeRole,
  ScrubStep,
  SnapshotReader,
  VerifyResult,
} from "../database/engine.ts";
import type {
  ForwardedTransaction,
  ForwardResult,
  LoanResult,
  WriteEngine,
  WriteEvent,
} from "../database/write-engine.ts";
import type { KeepAsideLimits } from "../database/keep-aside.ts";
import type { SyncEngine, WaitSettlement } from "../database/sync-engine.ts";
import type { SyncPolicy } from "../database/sync-policy.ts";
import { KeptFiles } from "../database/log/kept-files.ts";
import { LogReader } from "../database/log/log-reader.ts";
import { errorCode, LitefsError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { Numbered } from "../lib/numbered.ts";
import { positionsEqual } from "../lib/position.ts";
import type { Position } from "../lib/position.ts";
import { positionAfter } from "../ltx/position-after.ts";
import { writeNotification } from "../fuse/notify.ts";
import { openIdlePolling } from "../fuse/idle-polling.ts";
import type { IdlePolling, IdlePollingMode } from "../fuse/idle-polling.ts";
import { RequestCounts } from "../fuse/request-counts.ts";
import { wakeMessage } from "../fuse/wake.ts";
import { ChangeTurn } from "./change-turn.ts";
import type { LockLinkData } from "./lock-messages.ts";
import { NotificationWriter } from "./notification-writer.ts";
import { LockThread } from "./lock-thread-client.ts";
import { LAG_NODE_ID } from "./nodes.ts";
import {
  SHARED,
  SHARED_BYTES,
  SHARED_COMMIT_DEADLINE_OFFSET_BYTES,
  SHARED_REQUEST_COUNTS_OFFSET_BYTES,
} from "./messages.ts";
import type {
  DatabaseUpdate,
  MountEvent,
  MountRequest,
  MountResult,
  MountThreadData,
  SnapshotInfo,
  SnapshotPagesMessage,
} from "./messages.ts";
import { LAG_NAME } from "./names.ts";

/** How often, and how long in between, a copy is tried that a transaction is in the way of. */
const SNAPSHOT_TRIES = 100;
const SNAPSHOT_RETRY_MS = 20;
const STOPPING_TEXT = "the node is stopping";

export interface MountClientOptions {
  readonly dataDirectory: string;
  /** The last run ended in order. */
  readonly wasClean: boolean;
  readonly nodeId: bigint;
  readonly role: NodeRole;
  /** How long the mount thread may look for a request before it sleeps; 0: not at all. */
  readonly spinMs: number;
  readonly idlePolling: IdlePollingMode;
  /** Who keeps SQLite's locks: the mount thread ("daemon"), or the kernel where it can. */
  readonly locks: "auto" | "kernel" | "daemon";
  readonly logger: Logger;
  readonly log: { format: "text" | "json"; timestamp: boolean; debug: boolean };
  readonly keepAside: KeepAsideLimits;
  /** Undefined when no commit ever waits for replicas. */
  readonly sync?: SyncPolicy | undefined;
  /** The mount thread is gone although nobody stopped it: the node must end. */
  readonly onFatal: (error: Error) => void;
}

// A distributive Omit, so that each request keeps its own fields.
type WithoutId<T> = T extends { id: number } ? Omit<T, "id"> : never;
type Call = WithoutId<MountRequest>;

/**
 * Of open(2), missing in Node: holds the file without opening it. A real descriptor would be
 * flushed when the process is killed, by a request that nobody is left to answer, and the process
 * would stay half dead with its mount and its locks.
 */
const O_PATH = 0o10000000;

/**
 * The mount thread, as the main thread uses it. Messages wait in a port; a wake-up through the
 * kernel brings the mount thread out of its blocking read to look at them.
 */
export class MountClient implements Engine, WriteEngine, SyncEngine {
  readonly databases: Map<string, DatabaseUpdate> = new Map<string, DatabaseUpdate>();
  /** Of a session that has ended in order: the digest of the shelf that it has left, if it has. */
  end: { readonly shelf: string | undefined } | undefined;
  readonly #options: MountClientOptions;
  readonly #words = new Int32Array(new SharedArrayBuffer(SHARED_BYTES));
  readonly #requestCounts = new RequestCounts(
    this.#words.buffer,
    SHARED_REQUEST_COUNTS_OFFSET_BYTES,
  );
  readonly #commitDeadline = new Float64Array(
    this.#words.buffer,
    SHARED_COMMIT_DEADLINE_OFFSET_BYTES,
    1,
  );
  readonly #turn = new ChangeTurn(this.#words);
  readonly #wakeMessage = wakeMessage(LAG_NODE_ID);
  readonly #calls = new Numbered<{ resolve(r: MountResult): void; reject(e: Error): void }>();
  /** Calls from before the session, whose first message must be its own; undefined since then. */
  #early: MountRequest[] | undefined = [];
  readonly #listeners = new Set<(databases: ReadonlySet<string>) => void>();
  readonly #writeListeners: ((event: WriteEvent) => void)[] = [];
  #onCommitWaits: (database: string, position: Position) => void = () => undefined;
  readonly #readers = new Map<string, LogReader>();
  readonly #logFiles = new KeptFiles();
  /** Commits of applications here, by database, whose outcome is known and not carried out yet. */
  readonly #deciding = new Map<string, Promise<unknown>>();
  readonly #ended = Promise.withResolvers<"unmounted" | "stopped">();
  #worker: Worker | undefined;
  #lockThread: LockThread | undefined;
  #idlePolling: IdlePolling | undefined;
  /** Wake-ups work: the kernel knows the inode they go through. */
  #deviceFd = -1;
  #pin: fs.promises.FileHandle | undefined;
  readonly #notifications = new NotificationWriter(
    (batch) => {
      Atomics.store(this.#words, SHARED.settledBatch, batch);
      this.#wake();
    },
    (error) => this.#cannotNotify(error),
    () => !this.#stopping && !this.#dead,
  );
  #stopping = false;
  #dead = false;

  constructor(options: MountClientOptions) {
    this.#options = options;
    // Whoever starts as the primary has no lease that ends, until he is told otherwise.
    this.#commitDeadline[0] = options.role.isPrimary ? Infinity : -Infinity;
  }

  /** Resolves when the session has ended, for whatever reason. */
  get ended(): Promise<"unmounted" | "stopped"> {
    return this.#ended.promise;
  }

  /** The kernel's requests since the start, by name. */
  requestCounts(): Record<string, number> {
    return this.#requestCounts.toObject();
  }

  /** Starts the threads and opens all databases. Rejects when the data directory is unusable. */
  async open(): Promise<void> {
    const shared = this.#words.buffer;
    const { role, log, idlePolling, logger } = this.#options;
    this.#idlePolling = openIdlePolling(idlePolling, this.#words, SHARED.idlePolling, logger);
    const data: MountThreadData = {
      dataDirectory: this.#options.dataDirectory,
      wasClean: this.#options.wasClean,
      nodeId: this.#options.nodeId,
      isPrimary: role.isPrimary,
      primaryHostname: role.primaryHostname,
      phase: role.phase,
      shared,
      spinMs: this.#options.spinMs,
      idlePollingFd: this.#idlePolling?.fd,
      lockLink: await this.#startLockThread(),
      debug: log.debug,
      logFormat: log.format,
      logTimestamp: log.timestamp,
      keepAside: this.#options.keepAside,
      sync: this.#options.sync,
    };
    // It may have been told to stop in the meantime.
    this.#worker = startMountThread(data);
    const opened = Promise.withResolvers<void>();
    this.#worker.on("message", (event: MountEvent) => {
      if (event.type === "opened") opened.resolve();
      this.#receive(event);
    });
    this.#worker.on("error", (error) => {
      opened.reject(error);
      this.#fatal(error);
    });
    this.#worker.on("exit", () => {
      if (!this.#stopping) this.#fatal(new Error("the mount thread ended unexpectedly"));
      this.#ended.resolve("stopped");
    });
    await opened.promise;
  }

  /** To be called regularly, every so many milliseconds. */
  restIfIdle(elapsedMs: number): void {
    if (this.#idlePolling?.isOn === true)
      this.#idlePolling.rest(this.#requestCounts.total, elapsedMs);
  }

  async #startLockThread(): Promise<LockLinkData | undefined> {
    const { dataDirectory, locks, logger } = this.#options;
    if (locks === "daemon") return undefined;
    fs.mkdirSync(dataDirectory, { recursive: true });
    const started = await LockThread.start(dataDirectory, this.#words.buffer, (error) =>
      this.#fatal(error),
    );
    if (!(started instanceof LockThread)) {
      const level = locks === "auto" ? "info" : "warn";
      logger[level]("litefs keeps SQLite's locks itself, the kernel cannot here", started);
      return undefined;
    }
    logger.info("the kernel keeps SQLite's locks");
    this.#lockThread = started;
    return started.link;
  }

  /** Nobody answers the kernel any more: whatever touches the mount hangs until it is aborted. */
  get isDead(): boolean {
    return this.#dead;
  }

  #fatal(error: unknown): void {
    if (this.#dead) return;
    this.#dead = true;
    const failure = error instanceof Error ? error : new Error(String(error));
    this.#rejectAll(failure);
    if (!this.#stopping) this.#options.onFatal(failure);
  }

  /** Begins to serve a mount. Messages flow once one file of it is held open. */
  async serve(deviceFd: number, mountPoint: string): Promise<void> {
    this.#notifications.serve(deviceFd);
    this.#worker?.postMessage({ type: "serve", fd: deviceFd } satisfies MountRequest);
    for (const request of this.#early ?? []) this.#worker?.postMessage(request);
    this.#early = undefined;
    this.#pin = await fs.promises.open(path.join(mountPoint, LAG_NAME), O_PATH);
    this.#deviceFd = deviceFd;
    this.#wake();
    await this.#lockThread?.serve(deviceFd, mountPoint);
  }

  /** Lets go of the mount, so that it can be unmounted. */
  async unpin(): Promise<void> {
    await this.#stopLockThread();
    await this.#pin?.close();
    this.#pin = undefined;
  }

  async #stopLockThread(): Promise<void> {
    const lockThread = this.#lockThread;
    this.#lockThread = undefined;
    if (lockThread === undefined) return;
    // The mount thread must know that it has no descriptors any more.
    if (!this.#stopping && !this.#dead) await this.#call({ type: "release-locks" });
    await lockThread.stop();
  }

  /** Works in any state, also from an exit handler: the thread leaves its loop. */
  requestStop(): void {
    this.#stopping = true;
    this.#lockThread?.requestStop();
    Atomics.store(this.#words, SHARED.stop, 1);
    if (this.#deviceFd >= 0) this.#wake();
    // There is no session whose end would do it.
    if (this.#early !== undefined) this.#rejectAll(new LitefsError("STOPPING", STOPPING_TEXT));
  }

  #rejectAll(error: Error): void {
    for (const call of this.#calls.takeAll()) call.reject(error);
  }

  /** After the session has ended, or when it was never started. */
  async close(): Promise<void> {
    this.#stopping = true;
    this.#deviceFd = -1;
    this.#logFiles.close();
    await this.#stopLockThread();
    await this.#worker?.terminate();
    this.#idlePolling?.close();
    this.#idlePolling = undefined;
  }

  set lagMs(value: number) {
    Atomics.store(this.#words, SHARED.lagMs, Math.min(2147483647, Math.max(0, value)) | 0);
  }

  onChange(listener: (databases: ReadonlySet<string>) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  readLog(database: string, after: Position, maxBytes: number): Promise<LogRead> {
    const state = this.databases.get(database);
    if (state === undefined) return Promise.resolve({ kind: "unavailable" });
    let reader = this.#readers.get(database);
    if (reader === undefined) {
      reader = new LogReader(this.#logFiles, this.#directoryOf(database));
      this.#readers.set(database, reader);
    }
    const { logSegment: segment, logOffsetBytes: offsetBytes, position } = state;
    try {
      // Synchronous on purpose: what is read was written a moment ago and is in the page cache,
      // and a trip through the thread pool would cost more than the read.
      return Promise.resolve(reader.read(after, { segment, offsetBytes, position }, maxBytes));
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)));
    }
  }

  async openSnapshot(database: string): Promise<SnapshotReader> {
    const info = await this.#openSnapshot(database);
    this.#update([info.state]);
    const { snapshot, txid, checksum, pageSize, pageCount, timestampMs } = info;
    return {
      position: { txid, checksum },
      pageSize,
      pageCount,
      timestampMs,
      next: async () =>
        (await this.#call({ type: "next-pages", snapshot })) as SnapshotPagesMessage | undefined,
      close: async () => {
        await this.#call({ type: "close-snapshot", snapshot });
      },
    };
  }

  /** A transaction in a rollback mode changes the pages that are to be copied: it must end first. */
  async #openSnapshot(database: string): Promise<SnapshotInfo> {
    for (let tries = 1; ; tries++) {
      try {
        return (await this.#call({ type: "open-snapshot", database })) as SnapshotInfo;
      } catch (error) {
        if (errorCode(error) !== "DATABASE_BUSY" || tries === SNAPSHOT_TRIES) throw error;
        await sleep(SNAPSHOT_RETRY_MS);
      }
    }
  }

  async applyTransactions(
    database: string,
    ltx: readonly Uint8Array[],
    isDurable = false,
  ): Promise<ApplyResult> {
    if (!isDurable) {
      const deciding = this.#deciding.get(database);
      if (deciding !== undefined) await deciding.catch(() => undefined);
      const position = this.#positionIfThere(database, ltx);
      if (position !== undefined) return { kind: "applied", position };
    }
    return (await this.#call({ type: "apply", database, ltx, isDurable })) as ApplyResult;
  }

  /**
   * What an application here has committed comes by the stream as well, an instant later. The mount
   * thread need not be woken for it.
   */
  #positionIfThere(database: string, ltx: readonly Uint8Array[]): Position | undefined {
    const state = this.databases.get(database);
    const last = ltx.at(-1);
    if (state?.status !== "ok" || last === undefined) return undefined;
    const after = positionAfter(last);
    if (after === undefined || !positionsEqual(after, state.position)) return undefined;
    return state.position;
  }

  async applyLtxFile(database: string, file: string, isDurable = false): Promise<ApplyResult> {
    const call: Call = { type: "apply-file", database, path: file, isDurable };
    return (await this.#call(call)) as ApplyResult;
  }

  async abandonReceived(): Promise<void> {
    await this.#call({ type: "abandon-received" });
  }

  snapshotPath(database: string): string {
    const directory = this.#directoryOf(database);
    fs.mkdirSync(directory, { recursive: true });
    return path.join(directory, "snapshot.ltx.tmp");
  }

  async verify(database: string): Promise<VerifyResult> {
    return (await this.#call({ type: "verify", database })) as VerifyResult;
  }

  async setRole(role: NodeRole): Promise<void> {
    const { isPrimary, primaryHostname, phase } = role;
    await this.#call({ type: "set-role", isPrimary, primaryHostname, phase });
  }

  setCommitDeadline(deadlineMonotonicMs: number): void {
    this.#commitDeadline[0] = deadlineMonotonicMs;
  }

  async pauseWrites(): Promise<void> {
    this.#update((await this.#call({ type: "pause-writes" })) as readonly DatabaseUpdate[]);
  }

  async resumeWrites(): Promise<void> {
    await this.#call({ type: "resume-writes" });
  }

  /** Reads the next pages of a database, from its beginning if `isFirst`, and compares them. */
  async scrub(database: string, isFirst: boolean, maxBytes: number): Promise<ScrubStep> {
    return (await this.#call({ type: "scrub", database, isFirst, maxBytes })) as ScrubStep;
  }

  /** Opens those quarantined databases again that only the disk has failed. */
  async retryQuarantined(): Promise<void> {
    await this.#call({ type: "retry-quarantined" });
  }

  // WriteEngine.

  async lend(database: string, loan: string): Promise<LoanResult> {
    return (await this.#call({ type: "lend", database, loan })) as LoanResult;
  }
  async endLoan(database: string, loan: string): Promise<void> {
    await this.#call({ type: "end-loan", database, loan });
  }
  async applyForwarded(forwarded: ForwardedTransaction): Promise<ForwardResult> {
    return (await this.#call({ type: "apply-forwarded", forwarded })) as ForwardResult;
  }
  async grantRight(database: string, position: Position): Promise<boolean> {
    return (await this.#call({ type: "grant-right", database, position })) as boolean;
  }
  async recallRight(database: string): Promise<boolean> {
    return (await this.#call({ type: "recall-right", database })) as boolean;
  }
  async loseRight(database: string): Promise<void> {
    await this.#call({ type: "lose-right", database });
  }
  async denyWriters(database: string, waitedMs: number): Promise<void> {
    await this.#call({ type: "deny-writers", database, waitedMs });
  }
  async endReservation(database: string): Promise<void> {
    await this.#call({ type: "end-reservation", database });
  }
  async hasPosition(database: string, position: Position): Promise<boolean> {
    return (await this.#call({ type: "has-position", database, position })) as boolean;
  }
  async decideCommit(database: string, commit: number, isCommitted: boolean): Promise<void> {
    const deciding = this.#call({ type: "decide-commit", database, commit, isCommitted });
    this.#deciding.set(database, deciding);
    try {
      await deciding;
    } finally {
      if (this.#deciding.get(database) === deciding) this.#deciding.delete(database);
    }
  }
  async decideSync(database: string, sync: number, isDurable: boolean): Promise<void> {
    await this.#call({ type: "decide-sync", database, sync, isDurable });
  }
  onWriteEvent(listener: (event: WriteEvent) => void): void {
    this.#writeListeners.push(listener);
  }

  // SyncEngine.

  setReplicaCount(count: number): void {
    Atomics.store(this.#words, SHARED.replicas, count);
    this.#wake();
  }
  onCommitWaits(listener: (database: string, position: Position) => void): void {
    this.#onCommitWaits = listener;
  }
  async settleWaits(database: string, settlement: WaitSettlement): Promise<void> {
    await this.#call({ type: "settle-waits", database, settlement });
  }
  async makeDurable(database: string): Promise<Position | undefined> {
    return (await this.#call({ type: "make-durable", database })) as Position | undefined;
  }

  async enforceRetention(olderThanMs: number): Promise<void> {
    await this.#call({ type: "enforce-retention", olderThanMs });
  }

  #directoryOf(database: string): string {
    return path.join(this.#options.dataDirectory, "dbs", database);
  }

  #call(call: Call): Promise<MountResult> {
    if (this.#stopping || this.#worker === undefined) {
      return Promise.reject(new LitefsError("STOPPING", STOPPING_TEXT));
    }
    const { promise, resolve, reject } = Promise.withResolvers<MountResult>();
    const id = this.#calls.add({ resolve, reject });
    const request: MountRequest = { ...call, id };
    if (this.#early !== undefined) this.#early.push(request);
    else this.#worker.postMessage(request);
    this.#wake();
    return promise;
  }

  #wake(): void {
    if (this.#deviceFd < 0) return;
    if (Atomics.exchange(this.#words, SHARED.wakePending, 1) === 1) return;
    try {
      writeNotification(this.#deviceFd, this.#wakeMessage);
    } catch (error) {
      // The mount is gone; `ended` tells.
      this.#options.logger.debug("cannot wake the mount thread", { error: String(error) });
    }
  }

  #receive(event: MountEvent): void {
    switch (event.type) {
      case "opened":
        for (const state of event.databases) this.databases.set(state.name, state);
        return;
      case "changed":
        this.#changed(event.databases);
        return;
      case "state":
        this.#update([event.state]);
        return;
      case "write":
        for (const listener of this.#writeListeners) listener(event.event);
        return;
      case "commit-waits":
        this.#update([event.state]);
        this.#onCommitWaits(event.state.name, event.state.position);
        return;
      case "result":
        this.#calls.take(event.id)?.resolve(event.result);
        return;
      case "failure":
        this.#calls.take(event.id)?.reject(new LitefsError(event.code, event.text));
        return;
      case "notify":
        this.#notifications.add(event);
        return;
      case "failed":
        this.#fatal(event.error);
        return;
      case "ended":
        this.end = { shelf: event.shelf };
        this.#stopping = true;
        this.#ended.resolve(event.how);
        this.#rejectAll(new LitefsError("STOPPING", "the mount has ended"));
    }
  }

  #acceptChanges(): void {
    if (this.#turn.release()) this.#wake();
  }

  /** A cache that may be stale is worse than no service. */
  #cannotNotify(error: unknown): void {
    if (!this.#stopping) this.#fatal(new Error("cannot notify the kernel", { cause: error }));
  }

  #changed(databases: readonly DatabaseUpdate[]): void {
    const isBusy = this.#countCommits(databases) > 1;
    this.#update(databases);
    setTimeout(() => this.#acceptChanges(), isBusy ? BUSY_INTERVAL_MS : CHANGE_INTERVAL_MS);
  }

  #countCommits(databases: readonly DatabaseUpdate[]): number {
    let count = 0;
    for (const { name, counters } of databases) {
      count += counters.commits - (this.databases.get(name)?.counters.commits ?? 0);
    }
    return count;
  }

  #update(databases: readonly DatabaseUpdate[]): void {
    const names = new Set<string>();
    for (const state of databases) {
      this.databases.set(state.name, state);
      names.add(state.name);
    }
    for (const listener of this.#listeners) listener(names);
  }
}

/**
 * The first commit after a pause is told at once, those of the next millisecond together: on a
 * machine of two cores, streaming each of 5,000 commits a second on its own takes from the writer
 * the time that it needs.
 */
const CHANGE_INTERVAL_MS = 1;
/** When several came together already: what a burst costs is the number of its portions. */
const BUSY_INTERVAL_MS = 3;

function startMountThread(data: MountThreadData): Worker {
  const extension = import.meta.url.endsWith(".ts") ? ".ts" : ".js";
  return new Worker(new URL(`./mount-thread${extension}`, import.meta.url), {
    workerData: data,
    transferList: data.lockLink === undefined ? [] : [data.lockLink.port],
    name: "mount-thread",
    // A small heap: pages live outside of it.
    resourceLimits: { maxYoungGenerationSizeMb: 8 },
  });
}
