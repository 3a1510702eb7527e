import { errorText, LitefsError } from "../lib/errors.ts";
import type { Position } from "../lib/position.ts";
import type { WalHeader } from "../sqlite/wal.ts";
import { FRAME_HEADER_SIZE, frameOffset } from "../sqlite/wal.ts";
import { AppliedPositions } from "./applied-positions.ts";
import { mayRestartWal, truncateByCheckpoint, writeCheckpoint } from "./checkpoint-write.ts";
import { adoptPages, appendCommit, NO_WAL_RANGE } from "./commit.ts";
import { CommitForwarding } from "./commit-forwarding.ts";
import type { ChangedPages, Commit, WalRange } from "./commit.ts";
import type { DatabaseFiles, FileKind } from "./database-files.ts";
import type { DatabaseStatus } from "./engine.ts";
import type { CommitArbiter, Decision, Durability } from "./forwarded-commit.ts";
import { newCounters } from "./write-counters.ts";
import type { WriteCounters } from "./write-counters.ts";
import { IndexStores } from "./index-stores.ts";
import type { DatabaseHost, KernelCache } from "./host.ts";
import { noKernelCache } from "./host.ts";
import type { TransactionLog } from "./log/transaction-log.ts";
import type { OpenTransaction } from "./open-transaction.ts";
import { outcomeOf } from "./outcome.ts";
import type { FinalOutcome, Outcome } from "./outcome.ts";
import { PageStore } from "./page-store.ts";
import { ReplicaWaits } from "./replica-waits.ts";
import { writeQuarantineMark } from "./quarantine-mark.ts";
import { RollbackCapture } from "./rollback-capture.ts";
import { invalidatePages } from "./stale-pages.ts";
import { WalCapture } from "./wal-capture.ts";
import type { WalCaptureOwner } from "./wal-capture.ts";

/** Whether the content is wrong, or the disk has only failed to do what was asked. */
export type QuarantineCause = "damage" | "disk";

/**
 * One replicated database: what applications do to its files comes in here, and transactions come
 * out into its log. Lives on the mount thread; nothing in it waits.
 *
 * It relies on WRITE, FSYNC, UNLINK and truncation only, never on seeing a lock.
 */
export class Database implements WalCaptureOwner {
  readonly name: string;
  readonly host: DatabaseHost;
  files: DatabaseFiles;
  readonly store: PageStore;
  readonly log: TransactionLog;
  // Made when first needed: of thousands of databases most are at rest.
  #wal: WalCapture | undefined;
  #rollbackCapture: RollbackCapture | undefined;
  #applied: AppliedPositions | undefined;
  #indexStores: IndexStores | undefined;
  kernel: KernelCache = noKernelCache;
  readonly counters: WriteCounters = newCounters();
  status: DatabaseStatus = "ok";
  reason = "";
  /** `ltx/` may hold files of LiteFS. */
  mayHaveLegacy = true;
  /** Set when SQLite was told of an error after the commit was captured: see `finish`. */
  suspect = false;
  quarantineCause: QuarantineCause = "damage";
  /** Set while another node, the primary, has lent this one the right to write. */
  arbiter: CommitArbiter | undefined;
  readonly #forwarding = new CommitForwarding(this);
  /** Undefined when no commit on this node ever waits for replicas. */
  readonly replicaWaits: ReplicaWaits | undefined;
  /** The kernel is being told of what the application must find when its call returns. */
  owesKernel = false;
  /** On a replica: the primary waits until this node has on its disk what it sends. */
  isAcknowledging = false;

  constructor(name: string, host: DatabaseHost, files: DatabaseFiles, log: TransactionLog) {
    this.name = name;
    this.host = host;
    this.files = files;
    this.log = log;
    this.store = new PageStore(files);
    files.onSyncFailed = (error) => this.#pagesMayBeLost(error);
    log.onFailed = (error) => {
      this.quarantine(`its log cannot be made durable: ${errorText(error)}`, "disk");
    };
    log.onRewritten = (segment, error) => {
      const fields = { db: name, segment, error: errorText(error) };
      host.logger.error("the disk has failed to keep a segment of the log, it was copied", fields);
    };
    this.store.pageSize = log.state.pageSize;
    this.store.pageCount = log.state.pageCount;
    this.replicaWaits = host.sync && new ReplicaWaits(this, host.sync);
  }

  get applied(): AppliedPositions {
    this.#applied ??= new AppliedPositions(this.log, this.files.files, this.files.directory);
    return this.#applied;
  }

  get indexStores(): IndexStores {
    this.#indexStores ??= new IndexStores();
    return this.#indexStores;
  }

  get wal(): WalCapture {
    this.#wal ??= new WalCapture(this, this.store);
    return this.#wal;
  }

  get #rollback(): RollbackCapture {
    this.#rollbackCapture ??= new RollbackCapture(this);
    return this.#rollbackCapture;
  }

  /** Nobody has it open: gives back descriptors and memory. Everything comes back when needed. */
  rest(): void {
    // An error of the disk is told to descriptors that are open.
    this.#syncWhatWasPutOff();
    this.files.closeAll();
    this.log.release();
    this.store.rest();
    // The log remembers as well, only not as fast.
    this.#applied = undefined;
    if (this.#wal?.header === undefined) this.#wal = undefined;
    if (!this.hasOpenChanges) this.#rollbackCapture = undefined;
  }

  get position(): Position {
    return this.log.position;
  }

  /** Set on the primary while it has lent the right to write to another node. */
  isLent = false;

  /** Whether an application's write may become a transaction: here, or at the primary. */
  get isWritable(): boolean {
    return this.host.isPrimary() ? !this.isLent : this.arbiter !== undefined;
  }

  /** On the primary, whether its lease covers a commit now. On a replica the primary decides. */
  get isCovered(): boolean {
    return !this.host.isPrimary() || this.host.mayCommit();
  }

  /** On the primary: nobody may write, because too few replicas would have it. */
  get isFenced(): boolean {
    return this.replicaWaits?.duty === "refuse";
  }

  /** At a commit point: it is refused, so that SQLite rolls back. */
  refusesUncovered(): boolean {
    if (this.isCovered) return false;
    this.host.logger.warn("refused a commit, the lease has not been renewed in time", {
      db: this.name,
    });
    return true;
  }

  /** Why a commit may not be acknowledged, asked when its record is in the log. */
  #refusal(): LitefsError | undefined {
    // Not before, because what turns out to be the end of a rollback is always welcome.
    if (this.isFenced) return new LitefsError("TOO_FEW_REPLICAS", "too few replicas acknowledge");
    // This thread may have been stopped for long since it was asked the first time.
    if (this.isCovered) return undefined;
    return new LitefsError("LEASE_EXPIRED", "the lease has expired while this was written");
  }

  /** Told once, after an operation was answered with "later". */
  whenDecided(then: (outcome: FinalOutcome) => void): void {
    if (this.isUndecided) this.#forwarding.whenDecided(then);
    else this.replicaWaits?.whenDecided(then);
  }
  get isUndecided(): boolean {
    return this.#forwarding.isPending;
  }
  /** The stream brings a transaction, perhaps the one that is being decided. */
  noteArrival(txid: number, hi: number, lo: number): void {
    if (this.isAcknowledging) this.#forwarding.arrived(txid, hi, lo);
  }
  /** Sends a commit to the primary; `settle` carries out here what was decided there. */
  submit(
    commit: Commit,
    durability: Durability,
    settle: (decision: Decision) => FinalOutcome,
  ): Outcome {
    return this.#forwarding.submit(commit, durability, settle);
  }

  /**
   * Serves no more: its files stay as they are, for whoever mends it, and whoever has them open gets
   * errors. What the disk has failed may work again later, see `reopenDatabase`.
   */
  quarantine(reason: string, cause: QuarantineCause = "damage"): void {
    this.files.isRevoked = true;
    this.store.abandonSnapshots();
    const isKnown = this.status === "quarantined" && this.reason === reason;
    if (this.status !== "quarantined") this.counters.quarantines++;
    this.status = "quarantined";
    this.reason = reason;
    this.quarantineCause = cause;
    if (!isKnown) this.host.logger.error("database quarantined", { db: this.name, reason });
    // The kernel must ask us for every page again. Not of the wal-index: whoever has it mapped would
    // be killed by the answer.
    for (const kind of ["database", "journal", "wal"] as const) this.kernel.invalidate(kind, 0, 0);
    this.host.changed(this.name);
  }

  /** Damage that the next start would not see without reading the whole database. */
  condemn(reason: string): void {
    this.quarantine(reason);
    const { files, directory } = this.files;
    writeQuarantineMark(files, directory, reason, this.host.logger);
  }

  /** Goes on with other files under the same names; who has the old ones open has them no longer. */
  startAnew(): void {
    const old = this.files;
    old.isRevoked = true;
    this.files = old.successor();
    this.#indexStores?.forget();
    this.store.files = this.files;
    this.host.retired(old);
    this.store.abandonSnapshots();
    this.store.frames.reset();
    this.store.checksums.clear();
    this.#wal?.setHeader(undefined);
    this.#rollbackCapture?.forget();
    this.suspect = false;
  }

  /** It is as it should be again. */
  released(): void {
    const wasQuarantined = this.status === "quarantined";
    this.status = this.log.txid > 0 && this.store.pageCount === 0 ? "deleted" : "ok";
    this.reason = "";
    if (wasQuarantined) {
      this.counters.heals++;
      this.host.logger.info("database serves again", { db: this.name });
      for (const kind of ["database", "journal", "wal", "shm"] as const) {
        this.kernel.invalidateName(kind);
      }
    }
    this.host.changed(this.name);
  }

  /**
   * Linux reports once that it could not write pages back, and then takes them for written. Those
   * in the WAL are written again from there; what else may be gone, the log has.
   */
  #pagesMayBeLost(error: unknown): void {
    const { frames } = this.store;
    if (frames.count > 0 && this.log.state.durableTxid >= frames.baseTxid) {
      frames.forgetWritten();
      return;
    }
    this.quarantine(`its file cannot be made durable: ${errorText(error)}`, "disk");
  }

  write(kind: FileKind, offset: number, data: Uint8Array, start: number, length: number): Outcome {
    if (this.status === "quarantined") return "io";
    switch (kind) {
      case "wal":
        return this.#orLater(this.#writeWal(offset, data, start, length));
      case "shm":
        this.counters.shmWrites++;
        return this.#writeIndex(offset, data, start, length);
      case "journal":
        this.counters.journalWrites++;
        return this.#orLater(this.#rollback.writeJournal(offset, data, start, length));
      case "database":
        return this.#writeDatabase(offset, data, start, length);
    }
  }

  #writeIndex(offset: number, data: Uint8Array, start: number, length: number): Outcome {
    const file = this.files.getOrCreate("shm");
    file.writeAt(data, start, length, offset);
    this.#indexStores?.mend(file, offset, length);
    return "ok";
  }

  /** What commits on a synchronous primary is answered when the replicas have it. */
  #orLater(outcome: Outcome): Outcome {
    return this.replicaWaits === undefined ? outcome : this.replicaWaits.outcomeOf(outcome);
  }

  truncate(kind: FileKind, sizeBytes: number): Outcome {
    if (this.status === "quarantined") return "io";
    switch (kind) {
      case "wal":
        return this.#truncateWal(sizeBytes);
      case "shm":
        this.files.getOrCreate("shm").truncate(sizeBytes);
        this.#indexStores?.forget();
        return "ok";
      case "journal":
        return this.#orLater(this.#rollback.truncateJournal(sizeBytes));
      case "database":
        return this.#truncateDatabase(sizeBytes);
    }
  }

  sync(kind: FileKind): Outcome {
    const file = this.files.get(kind);
    if (file === undefined || kind === "shm") return "ok";
    // After a power cut the log alone is read: what it holds need not be durable in the WAL as well.
    if (kind === "wal") {
      this.#syncLog();
      return this.#forwarding.walSynced();
    }
    if (kind === "journal") {
      file.sync();
      this.files.syncNames();
      this.#rollback.journalSynced();
    } else this.#rollback.syncDatabase();
    return "ok";
  }

  unlink(kind: FileKind): Outcome {
    if (this.status === "quarantined") return "io";
    if (kind === "database") return this.drop();
    if (kind === "journal") {
      return this.#orLater(this.#rollback.journalEnds(() => this.files.remove(kind)));
    }
    if (kind === "wal") this.#forgetWal();
    this.files.remove(kind);
    return "ok";
  }

  /** Told once, after `sync` has answered "later". */
  whenSynced(then: (outcome: FinalOutcome) => void): void {
    this.#forwarding.whenSynced(then);
  }

  /** SQLite takes a transaction for rolled back whose sync has failed; the log has it. */
  #syncLog(): void {
    try {
      this.log.sync();
    } catch (error) {
      this.suspect = true;
      throw error;
    }
  }

  // The database file and its rollback journal, see RollbackCapture.

  /** Somebody has written to the database file and not committed. */
  get hasOpenChanges(): boolean {
    return this.#rollbackCapture?.hasOpenChanges === true;
  }
  get isJournalOurs(): boolean {
    return this.#rollback.isJournalOurs;
  }
  get hasHotJournal(): boolean {
    return this.#rollback.hasHotJournal;
  }
  get isEmptied(): boolean {
    return this.#rollbackCapture?.isEmptied === true;
  }
  takeBackOpenChanges(): void {
    this.#rollback.takeBack();
    this.kernel.invalidateName("journal");
  }
  forgetOpenChanges(): void {
    this.#rollbackCapture?.forget();
  }
  /** Its callers cannot wait: they close a file, or give up a lock. */
  endLooseWrites(): Outcome {
    const outcome = this.#rollback.endLooseWrites();
    this.replicaWaits?.forget();
    return outcome;
  }

  #writeDatabase(offset: number, data: Uint8Array, start: number, length: number): Outcome {
    this.counters.databaseWrites++;
    return this.isCheckpointing
      ? writeCheckpoint(this, offset, data, start, length)
      : this.#rollback.writeDatabase(offset, data, start, length);
  }

  #truncateDatabase(sizeBytes: number): Outcome {
    return this.isCheckpointing
      ? truncateByCheckpoint(this, sizeBytes)
      : this.#rollback.truncateDatabase(sizeBytes);
  }

  /** While the WAL holds anything, whoever writes the database file must be a checkpoint. */
  get isCheckpointing(): boolean {
    return this.store.frames.count > 0 && !this.hasOpenChanges;
  }

  // What both ways of committing share.

  newCommit(pages: ChangedPages, pageCount: number, wal: WalRange): Commit {
    return {
      pages,
      pageCount,
      pageSize: this.store.pageSize,
      wal,
      timestampMs: this.host.nowMs(),
      nodeId: this.host.nodeId,
      refusal: () => this.#refusal(),
    };
  }

  /** The log has one transaction more, which this node had sent to the primary. */
  forwarded(): void {
    const { txid, checksumHi, checksumLo } = this.log;
    this.applied.note(txid, checksumHi, checksumLo);
    this.committed();
  }

  /** The log has one transaction more. */
  committed(): void {
    this.counters.commits++;
    if (this.status !== "quarantined") this.status = "ok";
    this.host.changed(this.name);
    this.replicaWaits?.committed();
  }

  // The WAL.

  #writeWal(offset: number, data: Uint8Array, start: number, length: number): Outcome {
    this.counters.walWrites++;
    if (!this.isWritable) return "read-only";
    let outcome: Outcome = "io";
    try {
      outcome = this.wal.write(offset, data, start, length, this.files.getOrCreate("wal"));
    } finally {
      if (outcome !== "ok" && outcome !== "later") this.suspect = true;
    }
    return outcome;
  }

  walIsUnsound(error: unknown): void {
    this.quarantine(`a refused commit cannot be taken out of its WAL: ${errorText(error)}`, "disk");
  }

  commitWal(open: OpenTransaction, header: WalHeader, pageCount: number): Outcome {
    if (!this.isWritable || this.refusesUncovered()) return "read-only";
    if (header.pageSize !== this.store.pageSize) return "io";
    const range: WalRange = {
      offsetBytes: frameOffset(open.firstFrame, header.pageSize),
      sizeBytes: open.frameCount * (FRAME_HEADER_SIZE + header.pageSize),
      salt1: header.salt1,
      salt2: header.salt2,
    };
    const commit = this.newCommit(open, pageCount, range);
    if (!this.host.isPrimary()) {
      return this.submit(commit, "when-synced", (decision) => {
        if (decision === "unchanged") {
          this.adoptWal(open, pageCount, false);
          return "ok";
        }
        const outcome = this.wal.decided(decision === "committed");
        if (outcome !== "ok") this.suspect = true;
        return outcome;
      });
    }
    let changed: boolean;
    try {
      changed = appendCommit(this.store, this.log, commit);
    } catch (error) {
      this.host.logger.error("commit failed", { db: this.name, error: errorText(error) });
      return outcomeOf(error);
    }
    this.adoptWal(open, pageCount, changed);
    if (changed) this.committed();
    return "ok";
  }

  /** The frames of a transaction that is in the log become the committed ones. */
  adoptWal(open: OpenTransaction, pageCount: number, isChanged: boolean): void {
    if (this.store.hasSnapshots) {
      for (let i = 0; i < open.count; i++) this.store.preserve(open.pgno(i));
      this.store.preserveBeyond(pageCount);
    }
    const { frames } = this.store;
    if (frames.count === 0) frames.baseTxid = this.log.txid - (isChanged ? 1 : 0);
    adoptPages(this.store, open, pageCount);
    for (let i = 0; i < open.frameCount; i++) frames.append(open.pgnoOfFrame(i));
  }

  mayRestartWal(): boolean {
    return mayRestartWal(this);
  }

  beforeWalReset(): void {
    if (this.store.frames.count === 0) return;
    this.log.sync();
    invalidatePages(this.kernel, this.store.pageSize, this.store.writeBack());
    this.files.syncDatabase();
    this.log.noteDurable(this.log.txid, "now");
  }

  #truncateWal(sizeBytes: number): Outcome {
    const { frames, pageSize } = this.store;
    if (sizeBytes === 0) this.#forgetWal();
    else if (sizeBytes < frameOffset(frames.count, pageSize)) return "io";
    this.files.getOrCreate("wal").truncate(sizeBytes);
    return "ok";
  }

  #forgetWal(): void {
    this.beforeWalReset();
    this.store.frames.reset();
    this.#wal?.setHeader(undefined);
  }

  // Removal.

  /** An application removes the database: on the primary that is a transaction of its own. */
  drop(): Outcome {
    if (this.store.pageCount > 0) {
      if (!this.host.mayCommit() || this.isLent || this.isFenced) return "read-only";
      try {
        this.appendDeletion();
      } catch (error) {
        this.host.logger.error("drop failed", { db: this.name, error: errorText(error) });
        return outcomeOf(error);
      }
      this.counters.commits++;
    }
    try {
      this.removeFiles();
    } catch (error) {
      // The log has it that they are gone.
      this.quarantine(`its files cannot be removed: ${errorText(error)}`, "disk");
      return outcomeOf(error);
    }
    return "ok";
  }

  /** The log gets the transaction that leaves nothing. */
  appendDeletion(): void {
    this.store.abandonSnapshots();
    const nothing: ChangedPages = {
      count: 0,
      pageStart: 0,
      pgno: () => 0,
      crcHi: () => 0,
      crcLo: () => 0,
      page: () => new Uint8Array(0),
    };
    const commit = this.newCommit(nothing, 0, NO_WAL_RANGE);
    appendCommit(this.store, this.log, { ...commit, absolute: true });
    this.log.sync();
    this.log.noteDurable(this.log.txid, "now");
  }

  /** Forgets every page and removes the four SQLite files; the log stays. */
  removeFiles(): void {
    this.#retireFiles();
    this.store.pageCount = 0;
    this.store.pageSize = 0;
    this.status = this.log.txid > 0 ? "deleted" : "ok";
    this.host.changed(this.name);
  }

  #retireFiles(nextDatabase?: string): void {
    const retired = this.files;
    this.files = retired.retire(nextDatabase);
    this.store.files = this.files;
    this.host.retired(retired);
    this.store.frames.reset();
    this.#wal?.setHeader(undefined);
    this.store.checksums.clear();
    this.#rollbackCapture?.forget();
  }

  // Another file as the database, see hand-over.ts.

  /** A file, and if given its journal, takes the place of what there is. */
  takeOver(file: string, journal: string | undefined): void {
    this.#retireFiles(file);
    if (journal !== undefined) this.files.moveIn("journal", journal);
    // It must not come back in the old place when the log says that it is here.
    this.files.syncNames();
    this.#rollback.takeOver();
    this.host.changed(this.name);
  }

  close(): void {
    this.log.close();
    this.files.closeAll();
  }

  #syncWhatWasPutOff(): void {
    if (!this.files.owesDatabaseSync || this.status === "quarantined") return;
    try {
      this.files.syncDatabase();
      // The journal may survive a power cut and undo the newest transaction; those before are safe.
      this.log.noteDurable(this.log.txid - 1, "worthwhile");
    } catch (error) {
      // The files have told of it themselves, and nobody waits for an answer here.
      this.host.logger.error("cannot sync a database", { db: this.name, error: errorText(error) });
    }
  }
}
