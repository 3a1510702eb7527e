import * as path from "node:path";
import { assert, assertNever } from "../lib/assert.ts";
import { errorCode, errorText, LitefsError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { monotonicMs } from "../lib/monotonic.ts";
import { halvesToBigint } from "../ltx/crc64.ts";
import type { FileSystemStatistics } from "../fuse/replies.ts";
import { applyTransactions } from "../database/apply.ts";
import { CHECKPOINT_FRAMES, checkpointLocalWal } from "../database/checkpoint.ts";
import type { Database } from "../database/database.ts";
import type { DatabaseFiles } from "../database/database-files.ts";
import type { NodePhase, ScrubStep } from "../database/engine.ts";
import type { WriteEvent } from "../database/write-engine.ts";
import { FilePool } from "../database/file-pool.ts";
import { nodeFiles } from "../database/files.ts";
import type { Files } from "../database/files.ts";
import type { DatabaseHost } from "../database/host.ts";
import type { SyncHost } from "../database/replica-waits.ts";
import { Scrub } from "../database/scrub.ts";
import { rollBackAbandoned, settleAfterDemotion } from "../database/demote.ts";
import type { KeepAsideLimits } from "../database/keep-aside.ts";
import { reopenDatabase } from "../database/recover.ts";
import { applyLtxFile } from "../database/apply-file.ts";
import { Snapshot } from "../database/snapshot.ts";
import { condemnMismatch, verifySnapshot } from "./verify-snapshot.ts";
import { ChangeTurn } from "./change-turn.ts";
import { DatabaseDirectory } from "./database-directory.ts";
import { updateOf, updateOfShelved } from "./database-update.ts";
import { durably } from "./durably.ts";
import type { DatabaseEntry } from "./entry.ts";
import { LitefsFileSystem } from "./litefs-file-system.ts";
import type { FileSystemHost } from "./file-system-host.ts";
import type { LockLink } from "./lock-link.ts";
import { SHARED, SHARED_COMMIT_DEADLINE_OFFSET_BYTES } from "./messages.ts";
import type {
  DatabaseUpdate,
  MountEvent,
  MountRequest,
  MountResult,
  MountThreadData,
} from "./messages.ts";
import type { ShelvedLook } from "./nodes.ts";
import { Outbox, Retrievals } from "./notifier.ts";
import type { NotificationBatch } from "./notifier.ts";
import { Retention } from "./retention.ts";
import { Resting } from "./resting.ts";
import { SyncService } from "./sync-service.ts";
import { WriteService } from "./write-service.ts";

export interface ServiceOptions {
  readonly data: MountThreadData;
  /** The kernel keeps the locks. */
  readonly lockLink?: LockLink | undefined;
  readonly words: Int32Array;
  readonly logger: Logger;
  post(event: MountEvent, transfer: ArrayBuffer[]): void;
  sendNotifications(batch: NotificationBatch): void;
  /** Writes a notification that cannot block; false when the kernel does not know the inode. */
  writeNotification(message: Uint8Array): boolean;
  /** Makes the kernel call `wake` after the requests that are already waiting. */
  wakeSelf(): void;
  statistics(): FileSystemStatistics;
  /** Hands over every message of the main thread that has arrived. */
  drain(handle: (request: MountRequest) => void): void;
}

/** Of the mount thread, which answers nobody meanwhile. */
const RETENTION_SLICE_MS = 5;

type RequestWithId = Exclude<MountRequest, { type: "serve" }>;

/**
 * All databases of the node, on the mount thread: serves the kernel through the file system, and
 * the main thread by messages. Long work runs as jobs in slices between kernel requests.
 */
export class DatabaseService implements FileSystemHost, DatabaseHost {
  readonly fileSystem: LitefsFileSystem;
  readonly logger: Logger;
  readonly nodeId: bigint;
  readonly keepAside: KeepAsideLimits;
  readonly sync: SyncHost | undefined;
  onStop: () => void = () => undefined;
  readonly #options: ServiceOptions;
  readonly #writes: WriteService;
  readonly #replicas: SyncService;
  readonly #retention: Retention;
  readonly #words: Int32Array;
  readonly #turn: ChangeTurn;
  readonly #outbox: Outbox;
  /** Of all databases together, so that their number does not matter. */
  readonly #files: Files = new FilePool(nodeFiles);
  readonly #directory: DatabaseDirectory;
  readonly #snapshots = new Map<number, Snapshot>();
  readonly #resting = new Resting();
  readonly #scrubs = new Map<string, Scrub>();
  readonly #changed = new Set<string>();
  readonly #soon: (() => void)[] = [];
  #nextSnapshot = 1;
  readonly #commitDeadline: Float64Array;
  #isPrimary: boolean;
  #primaryHostname: string | undefined;
  #phase: NodePhase;
  /** Nobody writes, and nobody may. */
  #isPaused = false;
  #historyEpoch = 0;

  constructor(options: ServiceOptions) {
    this.#options = options;
    this.#words = options.words;
    this.#turn = new ChangeTurn(options.words);
    this.logger = options.logger;
    this.nodeId = options.data.nodeId;
    this.keepAside = options.data.keepAside;
    const { sync, dataDirectory } = options.data;
    this.#directory = new DatabaseDirectory(this, this.#files, dataDirectory);
    this.#replicas = new SyncService({
      find: (name) => this.fileSystem.entries.get(name),
      entries: () => this.fileSystem.entries.awake(),
      post: (entry) => {
        this.#changed.delete(entry.db.name);
        options.post({ type: "commit-waits", state: updateOf(entry) }, []);
      },
      replicaCount: () => Atomics.load(this.#words, SHARED.replicas),
      rest: (entry) => this.#releaseFiles(entry),
    });
    this.sync = sync && this.#replicas.hostFor(sync);
    this.#isPrimary = options.data.isPrimary;
    this.#primaryHostname = options.data.primaryHostname;
    this.#phase = options.data.phase;
    const at = SHARED_COMMIT_DEADLINE_OFFSET_BYTES;
    this.#commitDeadline = new Float64Array(options.words.buffer, at, 1);
    this.#outbox = new Outbox((batch) => options.sendNotifications(batch));
    const retrievals = new Retrievals((message) => options.writeNotification(message));
    const plainDirectory = path.join(dataDirectory, "files");
    this.fileSystem = new LitefsFileSystem(
      this,
      this.#outbox,
      retrievals,
      plainDirectory,
      options.lockLink,
    );
    this.#retention = new Retention({
      logger: this.logger,
      entries: this.fileSystem.entries,
      changed: (name) => this.changed(name),
      release: (entry) => this.#releaseFiles(entry),
    });
    this.#writes = new WriteService({
      isPrimary: () => this.#isPrimary,
      mayCommit: () => this.mayCommit(),
      entry: (name) => this.#entry(name),
      find: (name) => this.fileSystem.entries.get(name),
      applied: (entry) => this.#applied(entry),
      publish: (entry) => {
        this.#changed.delete(entry.db.name);
        options.post({ type: "state", state: updateOf(entry) }, []);
      },
      reply: (id, result) => this.#reply(id, result),
      fail: (id, error) => this.#fail(id, error),
    });
  }

  /** Opens and recovers every database that is not at rest. */
  openAll(): void {
    const { entries } = this.fileSystem;
    const databases: DatabaseUpdate[] = [];
    for (const found of this.#directory.find(this.#options.data.wasClean)) {
      if ("db" in found) databases.push(updateOf(this.fileSystem.add(found.db)));
      else {
        entries.shelve(found.shelved.name, found.line);
        this.#retention.noteShelved(found.shelved);
        databases.push(updateOfShelved(found.shelved));
      }
    }
    this.#changed.clear();
    this.#options.post({ type: "opened", databases }, []);
  }

  /** The digest of the shelf that was left for the next start, if one was. */
  close(): string | undefined {
    return this.#directory.close(this.fileSystem.entries);
  }

  // DatabaseHost and FileSystemHost.

  isPrimary(): boolean {
    return this.#isPrimary;
  }
  mayCommit(): boolean {
    return this.#isPrimary && !this.#isPaused && monotonicMs() < this.#commitDeadline[0]!;
  }
  historyEpoch(): number {
    return this.#historyEpoch;
  }
  primaryHostname(): string | undefined {
    return this.#primaryHostname;
  }
  phase(): NodePhase {
    return this.#phase;
  }
  nowMs(): number {
    return Date.now();
  }
  lagMs(): number {
    return Atomics.load(this.#words, SHARED.lagMs);
  }
  statistics(): FileSystemStatistics {
    return this.#options.statistics();
  }
  changed(name: string): void {
    this.#changed.add(name);
  }
  retired(files: DatabaseFiles): void {
    this.fileSystem.closeIfUnused(files);
  }

  createDatabase(name: string): Database {
    this.changed(name);
    return this.#directory.create(name);
  }
  takeFromShelf(name: string, shelved: string): Database {
    return this.#directory.takeFromShelf(name, shelved);
  }
  lookAtShelved(name: string, shelved: string): ShelvedLook | undefined {
    return this.#directory.lookAtShelved(name, shelved);
  }

  /** Nobody has the database open: a replica tidies its WAL, and descriptors are given back. */
  closed(entry: DatabaseEntry): void {
    if (!this.#isPrimary && entry.db.store.frames.count > 0) {
      this.#checkpoint(entry, () => this.#releaseFiles(entry));
    } else if (entry.db.hasHotJournal) {
      entry.enqueue(
        () => rollBackAbandoned(entry.db, entry),
        () => this.#releaseFiles(entry),
        (error) =>
          this.logger.error("cannot roll back", { db: entry.db.name, error: errorText(error) }),
      );
    } else this.#releaseFiles(entry);
  }

  #releaseFiles(entry: DatabaseEntry): void {
    if (entry.openCount("any") === 0 && !entry.isBusy) this.#resting.add(entry);
  }

  wake(): void {
    Atomics.store(this.#words, SHARED.wakePending, 0);
    if (Atomics.load(this.#words, SHARED.stop) === 1) {
      this.onStop();
      return;
    }
    this.#outbox.confirm(Atomics.load(this.#words, SHARED.settledBatch));
    this.#replicas.noticeReplicas();
    this.#options.drain((request) => this.#handle(request));
    for (const resume of this.#soon.splice(0)) resume();
    this.afterReply();
  }

  storeNow(message: Uint8Array): void {
    this.#options.writeNotification(message);
  }

  afterReply(): void {
    this.#outbox.flush();
    if (this.#changed.size === 0) return;
    if (!this.#turn.take()) return;
    const databases: DatabaseUpdate[] = [];
    for (const name of this.#changed) {
      const entry = this.fileSystem.entries.get(name);
      if (entry !== undefined) databases.push(updateOf(entry));
    }
    this.#changed.clear();
    this.#options.post({ type: "changed", databases }, []);
  }

  // Requests of the main thread.

  #handle(request: MountRequest): void {
    assert(request.type !== "serve", "the session has started already");
    try {
      this.#dispatch(request);
    } catch (error) {
      this.#fail(request.id, error);
    }
  }

  tell(event: WriteEvent): void {
    if (event.type !== "commit" || event.ltx === undefined) {
      this.#options.post({ type: "write", event }, []);
      return;
    }
    // A copy that may go: the original is needed for the log here.
    const ltx = event.ltx.slice();
    this.#options.post({ type: "write", event: { ...event, ltx } }, [ltx.buffer]);
  }

  #dispatch(request: RequestWithId): void {
    switch (request.type) {
      case "lend":
      case "end-loan":
      case "apply-forwarded":
      case "grant-right":
      case "recall-right":
      case "lose-right":
      case "deny-writers":
      case "decide-commit":
      case "decide-sync":
      case "has-position":
      case "end-reservation":
        this.#writes.handle(request);
        this.fileSystem.checkQuiet();
        return;
      case "apply":
        this.#apply(request);
        return;
      case "apply-file":
        this.#applyFile(request);
        return;
      case "abandon-received":
        for (const entry of this.fileSystem.entries.awake()) entry.abandonReceived();
        this.#reply(request.id, undefined);
        return;
      case "make-durable":
        this.#reply(request.id, this.#replicas.makeDurable(request.database));
        return;
      case "settle-waits":
        this.#replicas.settle(request.database, request.settlement);
        this.#reply(request.id, undefined);
        return;
      case "open-snapshot":
        this.#openSnapshot(request.id, request.database);
        return;
      case "next-pages":
        this.#nextPages(request.id, request.snapshot);
        return;
      case "close-snapshot":
        this.#snapshots.get(request.snapshot)?.close();
        this.#snapshots.delete(request.snapshot);
        this.#reply(request.id, undefined);
        return;
      case "verify":
        this.#verify(request.id, request.database);
        return;
      case "set-role":
        this.#historyEpoch++;
        this.#setRole(request.isPrimary);
        this.#primaryHostname = request.primaryHostname;
        this.#phase = request.phase;
        this.#reply(request.id, undefined);
        return;
      case "pause-writes":
        this.fileSystem.pauseWrites(() => this.#paused(request.id));
        return;
      case "resume-writes":
        this.#isPaused = false;
        this.fileSystem.resumeWrites();
        this.#reply(request.id, undefined);
        return;
      case "release-locks":
        this.fileSystem.releaseLocks(() => this.#reply(request.id, undefined));
        return;
      case "enforce-retention":
        this.#enforceRetention(request.id, request.olderThanMs);
        return;
      case "scrub":
        this.#reply(request.id, this.#scrub(request));
        return;
      case "retry-quarantined":
        this.#retryQuarantined();
        this.#reply(request.id, undefined);
        return;
      default:
        assertNever(request);
    }
  }

  /** The states go with the answer: what is told of changes in between may come later. */
  #paused(id: number): void {
    this.#isPaused = true;
    this.#reply(
      id,
      [...this.fileSystem.entries.awake()].map((entry) => updateOf(entry)),
    );
  }

  #setRole(isPrimary: boolean): void {
    const changes = isPrimary !== this.#isPrimary;
    this.#isPrimary = isPrimary;
    if (!changes) return;
    for (const entry of this.fileSystem.entries.awake()) {
      entry.roleChanged();
      entry.db.replicaWaits?.roleChanged();
      if (entry.db.replicaWaits !== undefined) entry.released();
      // Applications write the wal-index of a primary; what we know of it is worth nothing after.
      entry.forgetIndex();
      const { db } = entry;
      if (isPrimary || !db.hasOpenChanges) continue;
      entry.enqueue(
        () => settleAfterDemotion(db, entry),
        () => undefined,
        (error) => db.quarantine(`cannot take back what was not committed: ${errorText(error)}`),
      );
    }
  }

  #reply(id: number, result: MountResult, transfer: ArrayBuffer[] = []): void {
    this.#options.post({ type: "result", id, result }, transfer);
  }

  #fail(id: number, error: unknown): void {
    const code = errorCode(error) ?? "INTERNAL";
    this.#options.post({ type: "failure", id, code, text: errorText(error) }, []);
  }

  #entry(name: string): DatabaseEntry {
    const { fileSystem } = this;
    return fileSystem.entries.get(name) ?? fileSystem.add(this.#directory.open(name));
  }

  #apply({ id, database, ltx, isDurable }: Extract<MountRequest, { type: "apply" }>): void {
    const entry = this.#entry(database);
    entry.enqueueReceived(
      () => durably(entry.db, isDurable, applyTransactions(entry.db, entry.local, entry, ltx)),
      (result) => {
        this.#reply(id, result);
        this.#applied(entry);
      },
      (error) => this.#fail(id, error),
    );
  }

  #applied(entry: DatabaseEntry): void {
    if (entry.db.store.frames.count >= CHECKPOINT_FRAMES) this.#checkpoint(entry);
    this.#releaseFiles(entry);
  }

  #checkpoint(entry: DatabaseEntry, then: () => void = () => undefined): void {
    entry.enqueue(
      () => checkpointLocalWal(entry.db, entry.local, entry),
      then,
      (error) =>
        this.logger.warn("checkpoint failed", { db: entry.db.name, error: errorText(error) }),
    );
  }

  #applyFile(request: Extract<MountRequest, { type: "apply-file" }>): void {
    const { id, isDurable, path: file } = request;
    const entry = this.#entry(request.database);
    entry.enqueueReceived(
      () => durably(entry.db, isDurable, applyLtxFile(entry.db, entry.local, entry, file)),
      (result) => {
        this.#reply(id, result);
        this.#applied(entry);
      },
      (error) => this.#fail(id, error),
    );
  }

  #openSnapshot(id: number, name: string): void {
    const entry = this.fileSystem.entries.get(name);
    assert(entry !== undefined, `no database "${name}"`);
    if (entry.db.hasOpenChanges) {
      throw new LitefsError(
        "DATABASE_BUSY",
        `database "${name}" is in the middle of a transaction; it can be copied after that`,
      );
    }
    const snapshot = this.#snapshot(entry);
    const key = this.#nextSnapshot++;
    this.#snapshots.set(key, snapshot);
    this.#reply(id, {
      snapshot: key,
      state: updateOf(entry),
      txid: snapshot.txid,
      checksum: halvesToBigint(snapshot.checksumHi, snapshot.checksumLo),
      pageSize: snapshot.pageSize,
      pageCount: snapshot.pageCount,
      timestampMs: snapshot.timestampMs,
    });
  }

  #snapshot(entry: DatabaseEntry): Snapshot {
    const { log, store, files } = entry.db;
    const { txid, checksumHi, checksumLo, state } = log;
    const at = { txid, checksumHi, checksumLo, timestampMs: state.timestampMs };
    return new Snapshot(store, at, files.pathOf(`snapshot-${this.#nextSnapshot}.side`));
  }

  #nextPages(id: number, key: number): void {
    const snapshot = this.#snapshots.get(key);
    assert(snapshot !== undefined, "an open snapshot");
    const pages = snapshot.next();
    if (pages === undefined) this.#reply(id, undefined);
    else this.#reply(id, pages, [pages.data.buffer as ArrayBuffer]);
  }

  #verify(id: number, name: string): void {
    const entry = this.fileSystem.entries.get(name);
    assert(entry !== undefined, `no database "${name}"`);
    if (entry.db.status === "quarantined") {
      this.#reply(id, { kind: "failed", reason: entry.db.reason });
      return;
    }
    if (entry.db.hasOpenChanges) {
      this.#reply(id, { kind: "changed" });
      return;
    }
    // Not on the database's queue: it only reads, and must not hold up what is to be applied.
    const job = verifySnapshot(this.#snapshot(entry), (resume) => {
      this.#soon.push(resume);
      this.#options.wakeSelf();
    });
    const step = (): void => {
      try {
        const next = job.next();
        if (next.done === true) {
          if (next.value.kind === "mismatch") condemnMismatch(entry.db, next.value);
          this.#reply(id, next.value);
        } else next.value(step);
      } catch (error) {
        if (errorCode(error) === "SNAPSHOT_ABANDONED") this.#reply(id, { kind: "changed" });
        else this.#fail(id, error);
      }
    };
    step();
  }

  /** Perhaps the disk has space again. */
  #retryQuarantined(): void {
    for (const entry of this.fileSystem.entries.awake()) {
      const { db } = entry;
      if (db.status !== "quarantined" || db.quarantineCause !== "disk" || entry.isBusy) continue;
      entry.forgetIndex();
      if (reopenDatabase(db)) this.#releaseFiles(entry);
    }
  }

  #scrub({ database, isFirst, maxBytes }: Extract<MountRequest, { type: "scrub" }>): ScrubStep {
    const entry = this.fileSystem.entries.get(database);
    if (entry === undefined) return { kind: "done", bytes: 0 };
    let scrub = isFirst ? undefined : this.#scrubs.get(database);
    if (scrub === undefined) {
      scrub = new Scrub(entry.db);
      this.#scrubs.set(database, scrub);
    }
    const step = scrub.step(maxBytes);
    if (step.kind !== "more") {
      this.#scrubs.delete(database);
      this.#releaseFiles(entry);
    }
    return step;
  }

  /** In slices, between which the kernel is answered. */
  #enforceRetention(id: number, olderThanMs: number): void {
    this.#resting.restAll();
    const pass = this.#retention.pass(olderThanMs);
    const step = (): void => {
      const untilMs = monotonicMs() + RETENTION_SLICE_MS;
      while (pass.next().done !== true) {
        if (monotonicMs() < untilMs) continue;
        this.#soon.push(step);
        this.#options.wakeSelf();
        return;
      }
      this.#reply(id, undefined);
    };
    step();
  }
}
