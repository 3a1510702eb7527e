import { errorText, FormatError } from "../lib/errors.ts";
import { assert } from "../lib/assert.ts";
import { parseDatabaseHeader } from "../sqlite/database-header.ts";
import {
  decodeJournalHeader,
  isHotJournalHeader,
  isZeroHeader,
  JOURNAL_HEADER_SIZE,
  JOURNAL_RECORDS_TO_END,
  readSuperJournalName,
} from "../sqlite/journal.ts";
import { adoptPages, appendCommit, NO_WAL_RANGE } from "./commit.ts";
import type { Commit } from "./commit.ts";
import type { Database } from "./database.ts";
import { CounterKeeper } from "./counter-keeper.ts";
import { DirtyPages } from "./dirty-pages.ts";
import type { OpenFile } from "./files.ts";
import { rollBackJournal } from "./journal-rollback.ts";
import type { Decision } from "./forwarded-commit.ts";
import { outcomeOf } from "./outcome.ts";
import type { FinalOutcome, Outcome } from "./outcome.ts";
import {
  AllPages,
  checksumFile,
  databasePageCount,
  padLastPage,
  readDatabaseHeader,
} from "./whole-database.ts";

/** A database that was rewritten as a whole goes into the log up to this size. */
const WHOLE_LTX_MAX_BYTES = 64 * 1024 * 1024;
const JOURNAL_MAGIC_SIZE = 8;

/**
 * Follows what is written into the database file itself. With a rollback journal, the journal's
 * end is the commit. Without one (`cp`, journal_mode=MEMORY or OFF) the writes are loose: they
 * become a transaction when whoever made them closes the file or gives up his lock.
 */
export class RollbackCapture {
  readonly #db: Database;
  readonly #dirty: DirtyPages;
  readonly #counter: CounterKeeper;
  /** A rollback journal with a valid header exists: writes to the database belong to it. */
  #journalHot = false;
  /** The journal is on the disk as it was written last. */
  #journalSynced = false;
  /** A power cut may tear the journal of this transaction. */
  #isWeak = false;
  /** The database file was written without a journal. */
  #loose = false;
  /** It was cut to nothing, and nothing has been written since. */
  #emptied = false;

  constructor(db: Database) {
    this.#db = db;
    this.#dirty = new DirtyPages(db.store);
    this.#counter = new CounterKeeper(db, this.#dirty);
  }

  /** Somebody has written to the database file and not committed. */
  get hasOpenChanges(): boolean {
    return this.#journalHot || this.#loose;
  }

  /** What was written can be taken back. */
  get hasHotJournal(): boolean {
    return this.#journalHot;
  }

  /**
   * The hot journal belongs to a transaction that was written here, page by page, over what the log
   * has. A journal that was copied into place may say something else: SQLite plays it back when the
   * database is opened, and what comes of that is a transaction.
   */
  get isJournalOurs(): boolean {
    return this.#journalHot && !this.#dirty.isEmpty && !this.#dirty.isWhole;
  }

  /** Nothing is left of a database that was there: what comes next decides what it will be. */
  get isEmptied(): boolean {
    return this.#emptied && this.#loose;
  }

  /** All pages are about to be replaced or removed, and with them whatever was not committed. */
  forget(): void {
    this.#dirty.reset();
    this.#journalHot = false;
    this.#isWeak = false;
    this.#loose = false;
    this.#emptied = false;
  }

  /**
   * The file of the database is another one from here on, perhaps with a journal that belongs to it.
   * What it holds becomes a transaction as if it had been written now.
   */
  takeOver(): void {
    const { files, store } = this.#db;
    this.#dirty.markWhole();
    const journal = files.get("journal");
    const head = new Uint8Array(JOURNAL_HEADER_SIZE);
    const length = journal?.readAt(head, 0, head.length, 0) ?? 0;
    this.#journalHot = length >= JOURNAL_MAGIC_SIZE && isHotJournalHeader(head, 0);
    this.#loose = !this.#journalHot;
    const file = files.get("database");
    const header = file === undefined ? undefined : readDatabaseHeader(file);
    if (header === undefined || header instanceof FormatError || store.pageCount > 0) return;
    store.pageSize = header.pageSize;
  }

  /**
   * This node is not the primary any more, so what is not committed never will be. Whoever calls
   * holds all locks on the database file. What was written without a journal cannot be taken back:
   * it becomes a history of its own, which the primary's next snapshot replaces.
   */
  takeBack(): void {
    const db = this.#db;
    if (this.#journalHot) {
      rollBackJournal(db);
      db.kernel.invalidate("database", 0, 0);
      this.forget();
    } else if (this.#loose) {
      const file = db.files.get("database");
      const header = file === undefined ? undefined : readDatabaseHeader(file);
      if (file === undefined || header === undefined || header instanceof FormatError) {
        db.quarantine("it was being overwritten when this node stopped being the primary");
        return;
      }
      db.store.abandonSnapshots();
      const pageCount = databasePageCount(header, file.size());
      this.#rebase(file, header.pageSize, pageCount);
      this.#dirty.reset();
      this.#loose = false;
    }
    db.host.changed(db.name);
  }

  /**
   * Whoever wrote the database file without a journal is done: he has closed the file, or given
   * up his lock. Harmless to call at any other time.
   */
  endLooseWrites(): Outcome {
    if (!this.#loose || this.#journalHot) return "ok";
    if (this.#db.status === "quarantined") return "io";
    return this.#commitDirty(() => undefined);
  }

  // The database file.

  writeDatabase(offset: number, data: Uint8Array, start: number, length: number): Outcome {
    if (!this.#mayWrite) return "read-only";
    if (!this.hasOpenChanges) {
      const outcome = this.#beginLooseWrites(offset, data, start, length);
      if (outcome !== "ok") return outcome;
    }
    this.#beforeChange(offset);
    this.#emptied = false;
    if (offset === 0) this.#learnPageSize(data, start, length);
    this.#dirty.beforeWrite(offset, length);
    this.#db.files.getOrCreate("database").writeAt(data, start, length, offset);
    return "ok";
  }

  /** Committed pages are about to change: is the journal sure to be there to undo it? */
  #beforeChange(offset: number): void {
    const { store } = this.#db;
    if (!this.#journalHot || this.#journalSynced) return;
    if (offset < store.pageCount * store.pageSize) this.#noteWeakJournal();
  }

  #noteWeakJournal(): void {
    if (this.#isWeak) return;
    this.#db.log.appendUnsynced();
    this.#isWeak = true;
  }

  /** What is written without a journal could not be taken back if the primary refuses it. */
  get #mayWrite(): boolean {
    const { host, isWritable } = this.#db;
    return isWritable && (host.isPrimary() || this.#journalHot);
  }

  #learnPageSize(data: Uint8Array, start: number, length: number): void {
    const { store } = this.#db;
    const header = parseDatabaseHeader(data.subarray(start, start + length));
    if (header instanceof FormatError) return;
    if (store.pageCount === 0) store.pageSize = header.pageSize;
    else if (header.pageSize !== store.pageSize) this.#dirty.markWhole();
  }

  #beginLooseWrites(offset: number, data: Uint8Array, start: number, length: number): Outcome {
    const { host, log, name, store } = this.#db;
    if (offset === 0) {
      const header = parseDatabaseHeader(data.subarray(start, start + length));
      if (header instanceof FormatError) {
        host.logger.warn("refused a file that is not a SQLite database", { db: name });
        return "unsupported";
      }
    }
    if (log.txid > 0) log.appendLoose();
    this.#loose = true;
    if (store.pageCount === 0) this.#dirty.markWhole();
    return "ok";
  }

  truncateDatabase(sizeBytes: number): Outcome {
    const { files, host, log, store } = this.#db;
    const file = files.getOrCreate("database");
    if (sizeBytes === file.size()) return "ok";
    if (!this.#db.isWritable) return "read-only";
    if (!this.hasOpenChanges) {
      // SQLite cuts the file only after the commit that made the database smaller.
      if (store.pageCount > 0 && sizeBytes >= store.pageCount * store.pageSize) {
        file.truncate(sizeBytes);
        return "ok";
      }
      if (!host.isPrimary()) return "read-only";
      if (log.txid > 0) log.appendLoose();
      this.#loose = true;
      this.#dirty.markWhole();
    }
    this.#beforeChange(sizeBytes);
    this.#dirty.beforeTruncate(sizeBytes);
    file.truncate(sizeBytes);
    this.#emptied = sizeBytes === 0 && store.pageCount > 0;
    return "ok";
  }

  /** The application syncs the database file. */
  syncDatabase(): void {
    const { files, log, store } = this.#db;
    if (this.#canPutOffSync()) {
      files.putOffDatabaseSync();
      this.#dirty.synced = true;
      return;
    }
    files.syncDatabase();
    if (!this.#dirty.isEmpty) this.#dirty.synced = true;
    else if (store.frames.count > 0 && store.frames.unwritten.size === 0) {
      log.noteDurable(log.txid, "worthwhile");
    }
  }

  /**
   * Whether the sync before a commit can wait. The log is synced with the commit and has every page
   * that the transaction wrote, which recovery puts into the file again. If it becomes a rollback
   * the log has none of them: then the file is synced before the journal ends.
   *
   * Not in a transaction over several databases, which their super-journal commits before the logs:
   * there recovery takes the file as it is.
   */
  #canPutOffSync(): boolean {
    const { files, log, store } = this.#db;
    if (!this.#journalHot || !this.#journalSynced || this.#loose) return false;
    if (this.#dirty.isEmpty || this.#dirty.isWhole || store.pageCount === 0) return false;
    if (log.isLoose || log.needsDurable) return false;
    const journal = files.get("journal");
    return journal !== undefined && readSuperJournalName(journal, journal.size()) === undefined;
  }

  // The rollback journal.

  journalSynced(): void {
    this.#journalSynced = true;
  }

  writeJournal(offset: number, data: Uint8Array, start: number, length: number): Outcome {
    if (!this.#db.isWritable) return "read-only";
    const write = (bytes: Uint8Array, at: number): void =>
      this.#db.files.getOrCreate("journal").writeAt(bytes, at, length, offset);
    if (offset === 0 && length >= JOURNAL_HEADER_SIZE && isZeroHeader(data, start)) {
      // By the time of a decision the request's buffer has another request in it.
      const header = data.slice(start, start + length);
      return this.journalEnds(() => write(header, 0));
    }
    const isHot = offset === 0 && length >= JOURNAL_MAGIC_SIZE && isHotJournalHeader(data, start);
    // With FULL the records are synced before the header counts.
    if (isHot && (!this.#journalSynced || countsToEnd(data, start, length))) {
      this.#noteWeakJournal();
    }
    write(data, start);
    this.#journalSynced = false;
    if (isHot) this.#journalHot = true;
    return "ok";
  }

  truncateJournal(sizeBytes: number): Outcome {
    const cut = (): void => this.#db.files.getOrCreate("journal").truncate(sizeBytes);
    if (sizeBytes < JOURNAL_HEADER_SIZE) return this.journalEnds(cut);
    cut();
    return "ok";
  }

  /**
   * The commit point of the rollback modes, and equally the end of a rollback. `end` does to the
   * journal what SQLite wants done; the log comes first, and when `end` fails and the journal is as
   * good as before, the log takes the transaction back, because SQLite will.
   */
  journalEnds(end: () => void): Outcome {
    if (this.#db.isUndecided) return "io";
    if (!this.#journalHot) {
      end();
      return "ok";
    }
    const outcome = this.#commitDirty(end);
    if (outcome === "ok") this.#journalHot = this.#isWeak = false;
    return outcome;
  }

  /** Whether SQLite would play the journal back that is there now. */
  #isJournalIntact(): boolean {
    try {
      const header = new Uint8Array(JOURNAL_MAGIC_SIZE);
      const count = this.#db.files.get("journal")?.readAt(header, 0, header.length, 0) ?? 0;
      return count === header.length && isHotJournalHeader(header, 0);
    } catch {
      return false;
    }
  }

  // The commit.

  #commitDirty(end: () => void): Outcome {
    const { files, host, name, store } = this.#db;
    const dirty = this.#dirty;
    if (dirty.isEmpty) {
      end();
      this.#loose = false;
      return "ok";
    }
    const file = files.get("database");
    if (file === undefined) return "io";
    const sizeBytes = file.size();
    const header = readDatabaseHeader(file);
    if (header instanceof FormatError) {
      // The first transaction of a new database was rolled back.
      if (sizeBytes === 0 && store.pageCount === 0) {
        end();
        dirty.reset();
        this.#loose = false;
        return "ok";
      }
      host.logger.error("refused a commit", { db: name, reason: errorText(header) });
      return "io";
    }
    if (!this.#db.isWritable || this.#db.refusesUncovered()) return "read-only";
    const pageCount = databasePageCount(header, sizeBytes);
    const changesPageSize = header.pageSize !== store.pageSize && store.pageCount > 0;
    const isWhole = dirty.isWhole || changesPageSize || this.#hasLargeHole(pageCount);
    if (isWhole && this.#db.isFenced) return "read-only";
    try {
      if (!host.isPrimary()) return this.#forward(isWhole, pageCount, end);
      if (isWhole) {
        this.#commitWhole(header.pageSize, pageCount);
        this.#counter.committed();
        end();
      } else this.#commitPages(pageCount, end);
    } catch (error) {
      host.logger.error("commit failed", { db: name, error: errorText(error) });
      return outcomeOf(error);
    }
    dirty.reset();
    this.#loose = false;
    return "ok";
  }

  /** The application holds all locks on the database file while the primary decides. */
  #forward(isWhole: boolean, pageCount: number, end: () => void): Outcome {
    const { host, name, store } = this.#db;
    const dirty = this.#dirty;
    if (isWhole) {
      host.logger.warn("a change of the page size must be made on the primary", { db: name });
      this.takeBack();
      return "io";
    }
    this.#counter.seal(pageCount, this.#loose);
    const commit = this.#db.newCommit(dirty, pageCount, NO_WAL_RANGE);
    return this.#db.submit(commit, dirty.synced ? "now" : "never", (decision) => {
      if (decision === "refused") {
        // SQLite would leave the journal to the next one who opens the database, here nobody may.
        this.takeBack();
        return "io";
      }
      if (decision === "committed") {
        this.#counter.write();
        this.#counter.committed();
        store.preserveBeyond(pageCount);
        adoptPages(store, dirty, pageCount);
      }
      return this.#endForwarded(decision, end);
    });
  }

  #endForwarded(decision: Decision, end: () => void): FinalOutcome {
    try {
      if (decision === "committed") this.#makeDurable();
      this.forget();
      end();
      return "ok";
    } catch (error) {
      // The primary has it; here the journal of it is left, which nobody may play back.
      this.#db.quarantine(`it cannot end a journal: ${errorText(error)}`, "disk");
      return "io";
    }
  }

  /**
   * A write far behind the end makes pages of zeros, which a transaction would have to hold. When
   * they are many, a snapshot says the same in less.
   */
  #hasLargeHole(pageCount: number): boolean {
    const { store } = this.#db;
    const blankPages = pageCount - store.pageCount - this.#dirty.size;
    return store.pageCount > 0 && blankPages * store.pageSize > WHOLE_LTX_MAX_BYTES;
  }

  #commitPages(pageCount: number, end: () => void): void {
    const { files, log, store } = this.#db;
    const dirty = this.#dirty;
    this.#counter.seal(pageCount, this.#loose);
    // Recovery goes by the file, and adopts what is not in the log.
    if (this.#loose && dirty.counter !== undefined) {
      this.#counter.write();
      dirty.synced = false;
    }
    const mark = log.mark();
    const changed = appendCommit(store, log, this.#db.newCommit(dirty, pageCount, NO_WAL_RANGE));
    if (!changed) {
      // What was written and taken back is in no log, nor may the log still have it after a power cut.
      files.syncDatabase();
      log.sync();
      if (log.isLoose) log.noteDurable(log.txid, "now");
      end();
      return;
    }
    let failure: { readonly error: unknown } | undefined;
    try {
      this.#makeDurable();
      end();
    } catch (error) {
      if (this.#journalHot && this.#isJournalIntact()) {
        log.truncateTo(mark);
        throw error;
      }
      // Nobody takes it back, so it is committed, whatever SQLite is told.
      failure = { error };
    }
    // Recovery goes by the log, which has it.
    if (!this.#loose) this.#counter.write();
    this.#counter.committed();
    // The file is cut next, and nobody asks then.
    store.preserveBeyond(pageCount);
    adoptPages(store, dirty, pageCount);
    this.#db.committed();
    if (failure === undefined) return;
    this.forget();
    throw failure.error;
  }

  /**
   * SQLite has asked for a sync of the database before it drops the journal, so the log must be
   * durable. The file itself is synced now and then, to bound recovery.
   */
  #makeDurable(): void {
    const { files, log } = this.#db;
    const isDue = log.needsDurable || this.#loose;
    if (!this.#dirty.synced && !isDue) return;
    if (isDue && (files.owesDatabaseSync || !this.#dirty.synced)) files.syncDatabase();
    log.sync();
    if (files.owesDatabaseSync) return;
    // The journal may survive a power cut and undo this very transaction; those before are safe.
    log.noteDurable(this.#loose ? log.txid : log.txid - 1, "worthwhile", this.#isWeak);
  }

  /** Nobody can tell which pages changed: all of them are read, and written or replaced as one. */
  #commitWhole(pageSize: number, pageCount: number): void {
    const { files, log, store } = this.#db;
    const file = files.get("database");
    assert(file !== undefined, "a database file");
    store.abandonSnapshots();
    this.#counter.jumpInFile(file);
    const samePageSize = store.pageCount === 0 || pageSize === store.pageSize;
    if (samePageSize && pageCount * pageSize <= WHOLE_LTX_MAX_BYTES) {
      store.pageSize = pageSize;
      padLastPage(file, pageSize, pageCount);
      const pages = new AllPages(file, pageSize, pageCount);
      const commit: Commit = {
        ...this.#db.newCommit(pages, pageCount, NO_WAL_RANGE),
        absolute: true,
      };
      const changed = appendCommit(store, log, commit);
      store.checksums.clear();
      adoptPages(store, pages, pageCount);
      files.syncDatabase();
      log.sync();
      log.noteDurable(log.txid, "now");
      if (changed) this.#db.committed();
      return;
    }
    this.#rebase(file, pageSize, pageCount);
    this.#db.committed();
  }

  /** What the file holds is the database from here on, whatever it was. */
  #rebase(file: OpenFile, pageSize: number, pageCount: number): void {
    const { files, host, log, store } = this.#db;
    store.checksums.clear();
    padLastPage(file, pageSize, pageCount);
    const txid = log.txid + 1;
    const timestampMs = host.nowMs();
    try {
      const sum = checksumFile(file, pageSize, pageCount, store.checksums);
      files.syncDatabase();
      if (this.#journalHot) this.#endJournalForGood();
      log.appendBase({ txid, ...sum }, { pageSize, pageCount, timestampMs, durableTxid: txid });
    } catch (error) {
      store.checksums.clear();
      throw error;
    }
    store.pageSize = pageSize;
    store.pageCount = pageCount;
  }

  /**
   * A journal that comes back after a power cut would undo what the log cannot do again, because it
   * does not have the pages. So the file becomes loose first, and then the journal ends, durably:
   * recovery plays it back or adopts what it finds.
   */
  #endJournalForGood(): void {
    const { files, log } = this.#db;
    const journal = files.getOrCreate("journal");
    journal.sync();
    files.syncNames();
    if (log.txid > 0) log.appendLoose();
    journal.writeAt(new Uint8Array(JOURNAL_HEADER_SIZE), 0, JOURNAL_HEADER_SIZE, 0);
    journal.sync();
  }
}

/** A header that counts although nobody has counted the records yet: `synchronous=OFF`. */
function countsToEnd(data: Uint8Array, start: number, length: number): boolean {
  if (length < JOURNAL_HEADER_SIZE) return false;
  return decodeJournalHeader(data, start)?.recordCount === JOURNAL_RECORDS_TO_END;
}
