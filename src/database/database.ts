import { CHECKSUM_FLAG_HI } from "../ltx/crc64.ts";
import { assert } from "../lib/assert.ts";
import { errorText, FormatError } from "../lib/errors.ts";
import type { Position } from "../lib/position.ts";
import { isHotJournalHeader, isZeroHeader, JOURNAL_HEADER_SIZE } from "../sqlite/journal.ts";
import { parseDatabaseHeader } from "../sqlite/database-header.ts";
import type { WalHeader } from "../sqlite/wal.ts";
import { FRAME_HEADER_SIZE, frameOffset } from "../sqlite/wal.ts";
import { isCheckpointWrite } from "./checkpoint-write.ts";
import { appendCommit, NO_WAL_RANGE } from "./commit.ts";
import type { ChangedPages, Commit } from "./commit.ts";
import type { DatabaseFiles, FileKind } from "./database-files.ts";
import { DirtyPages } from "./dirty-pages.ts";
import type { DatabaseStatus } from "./engine.ts";
import type { OpenFile } from "./files.ts";
import type { DatabaseHost, KernelCache } from "./host.ts";
import { noKernelCache } from "./host.ts";
import { rollBackJournal } from "./journal-rollback.ts";
import type { TransactionLog } from "./log/transaction-log.ts";
import type { OpenTransaction } from "./open-transaction.ts";
import type { Outcome } from "./outcome.ts";
import { PageStore } from "./page-store.ts";
import { invalidatePages } from "./stale-pages.ts";
import { WalCapture } from "./wal-capture.ts";
import type { WalCaptureOwner } from "./wal-capture.ts";
import { AllPages, checksumFile, databasePageCount, readDatabaseHeader } from "./whole-database.ts";

/** A database that was rewritten as a whole goes into the log up to this size. */
const WHOLE_LTX_MAX_BYTES = 64 * 1024 * 1024;
const JOURNAL_MAGIC_SIZE = 8;

export interface WriteCounters {
  databaseWrites: number;
  journalWrites: number;
  walWrites: number;
  shmWrites: number;
  commits: number;
  ltxReaped: number;
}

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
  readonly wal: WalCapture;
  readonly #dirty: DirtyPages;
  kernel: KernelCache = noKernelCache;
  readonly counters: WriteCounters = {
    databaseWrites: 0,
    journalWrites: 0,
    walWrites: 0,
    shmWrites: 0,
    commits: 0,
    ltxReaped: 0,
  };
  status: DatabaseStatus = "ok";
  reason = "";
  /** A rollback journal with a valid header exists: writes to the database belong to it. */
  #journalHot = false;
  /** The database file was written without a journal. */
  #loose = false;
  /** Set when SQLite was told of an error after the commit was captured: see `finish`. */
  suspect = false;

  constructor(name: string, host: DatabaseHost, files: DatabaseFiles, log: TransactionLog) {
    this.name = name;
    this.host = host;
    this.files = files;
    this.log = log;
    this.store = new PageStore(files);
    this.#dirty = new DirtyPages(this.store);
    this.wal = new WalCapture(this, this.store);
    this.store.pageSize = log.state.pageSize;
    this.store.pageCount = log.state.pageCount;
  }

  get position(): Position {
    return this.log.position;
  }

  /** Serves no more: its files stay as they are, for whoever mends it. */
  quarantine(reason: string): void {
    this.status = "quarantined";
    this.reason = reason;
    this.host.logger.error("database quarantined", { db: this.name, reason });
    this.host.changed(this.name);
  }

  write(kind: FileKind, offset: number, data: Uint8Array, start: number, length: number): Outcome {
    if (this.status === "quarantined") return "io";
    switch (kind) {
      case "wal":
        return this.#writeWal(offset, data, start, length);
      case "shm":
        this.counters.shmWrites++;
        this.files.getOrCreate("shm").writeAt(data, start, length, offset);
        return "ok";
      case "journal":
        return this.#writeJournal(offset, data, start, length);
      case "database":
        return this.#writeDatabase(offset, data, start, length);
    }
  }

  truncate(kind: FileKind, sizeBytes: number): Outcome {
    if (this.status === "quarantined") return "io";
    switch (kind) {
      case "wal":
        return this.#truncateWal(sizeBytes);
      case "shm":
        this.files.getOrCreate("shm").truncate(sizeBytes);
        return "ok";
      case "journal":
        return this.#truncateJournal(sizeBytes);
      case "database":
        return this.#truncateDatabase(sizeBytes);
    }
  }

  sync(kind: FileKind): Outcome {
    const file = this.files.get(kind);
    if (file === undefined || kind === "shm") return "ok";
    // After a power cut the log alone is read: what it holds need not be durable in the WAL as well.
    if (kind === "wal") {
      this.log.sync();
      return "ok";
    }
    file.sync();
    this.files.syncNames();
    if (kind === "database") {
      if (!this.#dirty.isEmpty) this.#dirty.synced = true;
      else if (this.store.frames.count > 0 && this.store.frames.unwritten.size === 0) {
        this.log.noteDurable(this.log.txid, "worthwhile");
      }
    }
    return "ok";
  }

  unlink(kind: FileKind): Outcome {
    if (this.status === "quarantined") return "io";
    if (kind === "database") return this.drop();
    if (kind === "journal") {
      const outcome = this.#journalEnds();
      if (outcome !== "ok") return outcome;
    }
    if (kind === "wal") this.#forgetWal();
    this.files.remove(kind);
    return "ok";
  }

  /** Somebody has written to the database file and not committed. */
  get hasOpenChanges(): boolean {
    return this.#journalHot || this.#loose;
  }

  /**
   * This node is not the primary any more, so what is not committed never will be. Whoever calls
   * holds all locks on the database file. What was written without a journal cannot be taken back:
   * it becomes a history of its own, which the primary's next snapshot replaces.
   */
  takeBackOpenChanges(): void {
    if (this.#journalHot) {
      rollBackJournal(this);
      this.kernel.invalidateName("journal");
      this.kernel.invalidate("database", 0, 0);
      this.forgetOpenChanges();
    } else if (this.#loose) {
      const file = this.files.get("database");
      const header = file === undefined ? undefined : readDatabaseHeader(file);
      if (file === undefined || header === undefined || header instanceof FormatError) {
        this.quarantine("it was being overwritten when this node stopped being the primary");
        return;
      }
      this.store.abandonSnapshots();
      const pageCount = databasePageCount(header, file.size());
      this.#rebase(file, header.pageSize, pageCount);
      this.#dirty.reset();
      this.#loose = false;
    }
    this.host.changed(this.name);
  }

  /** All pages are about to be replaced, and with them whatever was not committed. */
  forgetOpenChanges(): void {
    this.#dirty.reset();
    this.#journalHot = false;
    this.#loose = false;
  }

  /**
   * Whoever wrote the database file without a journal is done: he has closed the file, or given
   * up his lock. Harmless to call at any other time.
   */
  endLooseWrites(): Outcome {
    if (!this.#loose || this.#journalHot) return "ok";
    return this.#commitDirty();
  }

  // The database file.

  #writeDatabase(offset: number, data: Uint8Array, start: number, length: number): Outcome {
    this.counters.databaseWrites++;
    if (!this.#journalHot && !this.#loose && this.store.frames.count > 0) {
      return this.#writeCheckpoint(offset, data, start, length);
    }
    if (!this.host.isPrimary()) return "read-only";
    if (!this.#journalHot && !this.#loose) {
      const outcome = this.#beginLooseWrites(offset, data, start, length);
      if (outcome !== "ok") return outcome;
    }
    if (offset === 0) this.#learnPageSize(data, start, length);
    this.#dirty.beforeWrite(offset, length);
    this.files.getOrCreate("database").writeAt(data, start, length, offset);
    return "ok";
  }

  #learnPageSize(data: Uint8Array, start: number, length: number): void {
    const header = parseDatabaseHeader(data.subarray(start, start + length));
    if (header instanceof FormatError) return;
    if (this.store.pageCount === 0) this.store.pageSize = header.pageSize;
    else if (header.pageSize !== this.store.pageSize) this.#dirty.markWhole();
  }

  #beginLooseWrites(offset: number, data: Uint8Array, start: number, length: number): Outcome {
    if (offset === 0) {
      const header = parseDatabaseHeader(data.subarray(start, start + length));
      if (header instanceof FormatError) {
        this.host.logger.warn("refused a file that is not a SQLite database", { db: this.name });
        return "unsupported";
      }
    }
    if (this.log.txid > 0) this.log.appendLoose();
    this.#loose = true;
    if (this.store.pageCount === 0) this.#dirty.markWhole();
    return "ok";
  }

  /** In WAL mode only a checkpoint writes here, and it may only write what the WAL holds. */
  #writeCheckpoint(offset: number, data: Uint8Array, start: number, length: number): Outcome {
    const pgno = isCheckpointWrite(this.store, offset, data, start, length);
    if (pgno === 0) {
      this.host.logger.error("refused a write to a database in WAL mode that is no checkpoint", {
        db: this.name,
        offsetBytes: offset,
        lengthBytes: length,
      });
      return "io";
    }
    // The database file must never hold what the log could still lose.
    this.log.sync();
    this.files.getOrCreate("database").writeAt(data, start, length, offset);
    const { unwritten } = this.store.frames;
    if (pgno > 0) unwritten.delete(pgno);
    // A checkpointer that is behind may put an older version over the newest one.
    else unwritten.add(offset / this.store.pageSize + 1);
    return "ok";
  }

  #truncateDatabase(sizeBytes: number): Outcome {
    const file = this.files.getOrCreate("database");
    if (!this.#journalHot && !this.#loose && this.store.frames.count > 0) {
      // A checkpoint cuts the file to the committed size, or extends it before it writes.
      if (!this.#isCutSafe(sizeBytes)) return "io";
      file.truncate(sizeBytes);
      return "ok";
    }
    if (sizeBytes === file.size()) return "ok";
    if (!this.host.isPrimary()) return "read-only";
    if (!this.#journalHot && !this.#loose) {
      // SQLite cuts the file only after the commit that made the database smaller.
      const { pageCount, pageSize } = this.store;
      if (pageCount > 0 && sizeBytes >= pageCount * pageSize) {
        file.truncate(sizeBytes);
        return "ok";
      }
      if (this.log.txid > 0) this.log.appendLoose();
      this.#loose = true;
      this.#dirty.markWhole();
    }
    this.#dirty.beforeTruncate(sizeBytes);
    file.truncate(sizeBytes);
    return "ok";
  }

  /**
   * A checkpointer may not know of the newest commit yet and cut the file to the size before it:
   * no harm if the WAL has all the pages that go.
   */
  #isCutSafe(sizeBytes: number): boolean {
    const { frames, pageCount, pageSize, lockPgno } = this.store;
    const gone: number[] = [];
    for (let pgno = Math.floor(sizeBytes / pageSize) + 1; pgno <= pageCount; pgno++) {
      if (pgno === lockPgno) continue;
      if (frames.newest(pgno) < 0) return false;
      gone.push(pgno);
    }
    for (const pgno of gone) frames.unwritten.add(pgno);
    return true;
  }

  // The rollback journal.

  #writeJournal(offset: number, data: Uint8Array, start: number, length: number): Outcome {
    this.counters.journalWrites++;
    if (!this.host.isPrimary()) return "read-only";
    if (offset === 0 && length >= JOURNAL_HEADER_SIZE && isZeroHeader(data, start)) {
      const outcome = this.#journalEnds();
      if (outcome !== "ok") return outcome;
    }
    this.files.getOrCreate("journal").writeAt(data, start, length, offset);
    if (offset === 0 && length >= JOURNAL_MAGIC_SIZE && isHotJournalHeader(data, start)) {
      this.#journalHot = true;
    }
    return "ok";
  }

  #truncateJournal(sizeBytes: number): Outcome {
    if (sizeBytes < JOURNAL_HEADER_SIZE) {
      const outcome = this.#journalEnds();
      if (outcome !== "ok") return outcome;
    }
    this.files.getOrCreate("journal").truncate(sizeBytes);
    return "ok";
  }

  /** The commit point of the rollback modes, and equally the end of a rollback. */
  #journalEnds(): Outcome {
    if (!this.#journalHot) return "ok";
    const outcome = this.#commitDirty();
    if (outcome === "ok") this.#journalHot = false;
    return outcome;
  }

  #commitDirty(): Outcome {
    const dirty = this.#dirty;
    if (dirty.isEmpty) {
      this.#loose = false;
      return "ok";
    }
    const file = this.files.get("database");
    if (file === undefined) return "io";
    const sizeBytes = file.size();
    const header = readDatabaseHeader(file);
    if (header instanceof FormatError) {
      // The first transaction of a new database was rolled back.
      if (sizeBytes === 0 && this.store.pageCount === 0) {
        dirty.reset();
        this.#loose = false;
        return "ok";
      }
      this.host.logger.error("refused a commit", { db: this.name, reason: errorText(header) });
      return "io";
    }
    if (!this.host.isPrimary()) return "read-only";
    const pageCount = databasePageCount(header, sizeBytes);
    const changesPageSize = header.pageSize !== this.store.pageSize && this.store.pageCount > 0;
    try {
      if (dirty.isWhole || changesPageSize) this.#commitWhole(header.pageSize, pageCount);
      else this.#commitPages(pageCount);
    } catch (error) {
      this.host.logger.error("commit failed", { db: this.name, error: errorText(error) });
      return "io";
    }
    dirty.reset();
    this.#loose = false;
    return "ok";
  }

  #commitPages(pageCount: number): void {
    const dirty = this.#dirty;
    dirty.seal(pageCount);
    const changed = appendCommit(this.store, this.log, this.#commit(dirty, pageCount));
    if (!changed) {
      if (this.log.isLoose) this.log.noteDurable(this.log.state.durableTxid, "now");
      return;
    }
    // The file is cut next, and nobody asks then.
    this.store.preserveBeyond(pageCount);
    this.#adopt(dirty, pageCount);
    this.#makeRollbackCommitDurable();
    this.#committed();
  }

  /**
   * SQLite has synced the database before it drops the journal, so the log must be as durable. If
   * the application wants no syncs, they come from us now and then, to bound recovery.
   */
  #makeRollbackCommitDurable(): void {
    if (!this.#dirty.synced) {
      if (!this.log.needsDurable && !this.#loose) return;
      this.files.syncDatabase();
    }
    this.log.sync();
    // The journal may survive a power cut and undo this very transaction; those before are safe.
    this.log.noteDurable(this.#loose ? this.log.txid : this.log.txid - 1, "worthwhile");
  }

  /** Nobody can tell which pages changed: all of them are read, and written or replaced as one. */
  #commitWhole(pageSize: number, pageCount: number): void {
    const file = this.files.get("database");
    assert(file !== undefined, "a database file");
    this.store.abandonSnapshots();
    const samePageSize = this.store.pageCount === 0 || pageSize === this.store.pageSize;
    if (samePageSize && pageCount * pageSize <= WHOLE_LTX_MAX_BYTES) {
      this.store.pageSize = pageSize;
      const pages = new AllPages(file, pageSize, pageCount);
      const commit: Commit = { ...this.#commit(pages, pageCount), absolute: true };
      const changed = appendCommit(this.store, this.log, commit);
      this.store.checksums.clear();
      this.#adopt(pages, pageCount);
      this.files.syncDatabase();
      this.log.sync();
      this.log.noteDurable(this.log.txid, "now");
      if (changed) this.#committed();
      return;
    }
    if (this.#rebase(file, pageSize, pageCount)) this.#committed();
  }

  /** What the file holds is the database from here on, whatever it was. False if nothing changed. */
  #rebase(file: OpenFile, pageSize: number, pageCount: number): boolean {
    this.store.checksums.clear();
    const sum = checksumFile(file, pageSize, pageCount, this.store.checksums);
    this.files.syncDatabase();
    const isSame = sum.hi === this.log.checksumHi && sum.lo === this.log.checksumLo;
    const txid = isSame ? this.log.txid : this.log.txid + 1;
    const timestampMs = this.host.nowMs();
    this.log.appendBase({ txid, ...sum }, { pageSize, pageCount, timestampMs, durableTxid: txid });
    this.store.pageSize = pageSize;
    this.store.pageCount = pageCount;
    return !isSame;
  }

  #commit(pages: ChangedPages, pageCount: number): Commit {
    return {
      pages,
      pageCount,
      pageSize: this.store.pageSize,
      wal: NO_WAL_RANGE,
      timestampMs: this.host.nowMs(),
      nodeId: this.host.nodeId,
    };
  }

  /** The pages of a transaction that is in the log become the committed ones. */
  #adopt(pages: ChangedPages, pageCount: number): void {
    const { checksums } = this.store;
    for (let i = 0; i < pages.count; i++) {
      checksums.set(pages.pgno(i), pages.crcHi(i) | CHECKSUM_FLAG_HI, pages.crcLo(i));
    }
    if (pageCount < this.store.pageCount) checksums.truncate(pageCount);
    this.store.pageCount = pageCount;
  }

  #committed(): void {
    this.counters.commits++;
    this.status = "ok";
    this.host.changed(this.name);
  }

  // The WAL.

  #writeWal(offset: number, data: Uint8Array, start: number, length: number): Outcome {
    this.counters.walWrites++;
    if (!this.host.isPrimary()) return "read-only";
    const outcome = this.wal.write(offset, data, start, length, this.files.getOrCreate("wal"));
    if (outcome !== "ok") this.suspect = true;
    return outcome;
  }

  commitWal(open: OpenTransaction, header: WalHeader, pageCount: number): Outcome {
    if (!this.host.isPrimary()) return "read-only";
    if (header.pageSize !== this.store.pageSize) return "io";
    if (this.store.snapshots.size > 0) {
      for (let i = 0; i < open.count; i++) this.store.preserve(open.pgno(i));
      this.store.preserveBeyond(pageCount);
    }
    const commit: Commit = {
      pages: open,
      pageSize: header.pageSize,
      pageCount,
      wal: {
        offsetBytes: frameOffset(open.firstFrame, header.pageSize),
        sizeBytes: open.frameCount * (FRAME_HEADER_SIZE + header.pageSize),
        salt1: header.salt1,
        salt2: header.salt2,
      },
      timestampMs: this.host.nowMs(),
      nodeId: this.host.nodeId,
    };
    let changed: boolean;
    try {
      changed = appendCommit(this.store, this.log, commit);
    } catch (error) {
      this.host.logger.error("commit failed", { db: this.name, error: errorText(error) });
      return "io";
    }
    this.#adopt(open, pageCount);
    for (let i = 0; i < open.frameCount; i++) this.store.frames.append(open.pgnoOfFrame(i));
    if (changed) this.#committed();
    return "ok";
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
    this.wal.setHeader(undefined);
  }

  // Removal.

  /** An application removes the database: on the primary that is a transaction of its own. */
  drop(): Outcome {
    if (this.store.pageCount > 0) {
      if (!this.host.isPrimary()) return "read-only";
      try {
        this.#appendDeletion();
      } catch (error) {
        this.host.logger.error("drop failed", { db: this.name, error: errorText(error) });
        return "io";
      }
      this.counters.commits++;
    }
    this.removeFiles();
    return "ok";
  }

  #appendDeletion(): void {
    this.store.abandonSnapshots();
    const nothing: ChangedPages = {
      count: 0,
      pageStart: 0,
      pgno: () => 0,
      crcHi: () => 0,
      crcLo: () => 0,
      page: () => new Uint8Array(0),
    };
    appendCommit(this.store, this.log, { ...this.#commit(nothing, 0), absolute: true });
    this.log.sync();
    this.log.noteDurable(this.log.txid, "now");
  }

  /** Forgets every page and removes the four SQLite files; the log stays. */
  removeFiles(): void {
    const retired = this.files;
    this.files = retired.retire();
    this.store.files = this.files;
    this.host.retired(retired);
    this.store.frames.reset();
    this.wal.setHeader(undefined);
    this.store.checksums.clear();
    this.store.pageCount = 0;
    this.store.pageSize = 0;
    this.#dirty.reset();
    this.#journalHot = false;
    this.#loose = false;
    this.status = this.log.txid > 0 ? "deleted" : "ok";
    this.host.changed(this.name);
  }

  close(): void {
    this.log.close();
    this.files.closeAll();
  }
}
