import * as path from "node:path";
import { errorCode, errorText, FormatError } from "../lib/errors.ts";
import { formatPosition } from "../lib/position.ts";
import { decodeHeader, LTX_HEADER_SIZE } from "../ltx/header.ts";
import { checkReplay } from "./check-replay.ts";
import { DatabaseFiles } from "./database-files.ts";
import { Database } from "./database.ts";
import type { Files, OpenFile } from "./files.ts";
import type { DatabaseHost } from "./host.ts";
import { isCommittedBySuperJournal, playBackJournal, rollBackJournal } from "./journal-rollback.ts";
import { adoptLegacyDirectory } from "./legacy.ts";
import {
  decodeRecordHeader,
  decodeStatePayload,
  RECORD_HEADER_SIZE,
  RECORD_KIND,
} from "./log/record.ts";
import type { RecordHeader } from "./log/record.ts";
import { TransactionLog } from "./log/transaction-log.ts";
import { applyLtxToFile } from "./ltx-to-file.ts";
import { isSystemError } from "./outcome.ts";
import { QUARANTINE_MARK, readQuarantineMark } from "./quarantine-mark.ts";
import { remedyFor } from "./remedy.ts";
import { openSnapshotOf, removeObsoleteSnapshots } from "./snapshot-file.ts";
import { checksumFile, databasePageCount, readDatabaseHeader } from "./whole-database.ts";

/**
 * Opens a database of the data directory before anybody uses it, and brings its file to the
 * position of its log. The log alone decides: the WAL holds nothing that the log does not hold, so
 * what the file lacks comes from the log, and the WAL goes.
 *
 * Anything that does not fit together quarantines this database, with its files untouched. Nothing
 * is thrown: the other databases have nothing to do with it.
 */
export function openDatabase(
  name: string,
  host: DatabaseHost,
  files: Files,
  directory: string,
  isMounted = false,
): Database {
  const logDirectory = path.join(directory, "log");
  const databaseFiles = new DatabaseFiles(files, directory);
  let names: readonly string[] = [];
  let log: TransactionLog;
  try {
    // Most of what could be there is not, and asking for each of it makes for a slow start.
    names = databaseFiles.look();
    if (names.includes("log.new")) finishLogSwap(files, directory);
    log = TransactionLog.open(files, logDirectory);
  } catch (error) {
    const stand = TransactionLog.standIn(files, logDirectory, error);
    const database = new Database(name, host, databaseFiles, stand);
    quarantineBy(database, error);
    return database;
  }
  if (log.tornBytes > 0) {
    host.logger.warn("a power cut destroyed the end of the log, the rest is kept as .torn", {
      db: name,
      bytes: log.tornBytes,
      segment: log.end.segment,
    });
  }
  const database = new Database(name, host, databaseFiles, log);
  if (names.includes("diverged")) {
    database.counters.divergedHistories = files.list(path.join(directory, "diverged")).length;
  }
  try {
    if (names.includes(QUARANTINE_MARK)) refuseMarked(database);
    recover(database, isMounted);
    if (names.some((other) => other.startsWith("snapshot"))) removeObsoleteSnapshots(database);
  } catch (error) {
    quarantineBy(database, error);
  }
  // Nobody has it open yet, and there may be thousands.
  database.rest();
  return database;
}

/**
 * Opens a quarantined database again: the disk may have come back, or somebody has mended the
 * files. Whoever had it open must open it anew. Returns whether it serves.
 */
export function reopenDatabase(db: Database): boolean {
  db.startAnew();
  try {
    db.files.forgetNames();
    finishLogSwap(db.files.files, db.files.directory);
    db.log.retry();
    refuseMarked(db);
    recover(db, true);
  } catch (error) {
    quarantineBy(db, error);
    return false;
  }
  db.released();
  return true;
}

function refuseMarked(db: Database): void {
  const reason = readQuarantineMark(db.files.files, db.files.directory);
  if (reason !== undefined) throw new FormatError("DATABASE_DAMAGED", reason);
}

/** What the disk has failed may work later; damage stays. */
function quarantineBy(db: Database, error: unknown): void {
  const code = errorCode(error) ?? "";
  if (["EISDIR", "ENOTDIR", "ELOOP"].includes(code)) {
    db.quarantine(`a file is not what it should be: ${errorText(error)}; ${remedyFor(db.name)}`);
  } else db.quarantine(errorText(error), isSystemError(error) ? "disk" : "damage");
}

function recover(db: Database, isMounted: boolean): void {
  const { files, log } = db;
  if (log.isEmpty) adoptLegacyDirectory(db, isMounted);
  else if (!isMounted && isCommittedBySuperJournal(db) && !mayBeTorn(db)) {
    // The log may lack it: the databases of a transaction get into their logs one after the other.
    adoptFile(db, true);
    files.remove("journal");
    files.syncNames();
  } else if (log.state.pageCount === 0 && !isTakenOver(db)) removeLeftovers(db);
  else if (mayBeTorn(db)) bringForwardAndVerify(db);
  else bringForward(db, playBackJournal(db));
  db.store.pageCount = log.state.pageCount;
  // What is created under the name of a dropped database may have pages of another size.
  db.store.pageSize = db.store.pageCount === 0 ? 0 : log.state.pageSize;
  if (log.txid > 0 && log.state.pageCount === 0) db.status = "deleted";
  files.remove("shm");
  files.closeAll();
}

/** The last transaction dropped the database; the crash may have come before the files were gone. */
function removeLeftovers({ files, log }: Database): void {
  const left = (["journal", "wal", "shm", "database"] as const).filter((kind) =>
    files.exists(kind),
  );
  if (left.length === 0) return;
  // Or a power cut takes the end of the log, and the database that it goes back to is gone.
  log.sync();
  for (const kind of left) files.remove(kind);
  // A power cut must not bring back what nobody has committed.
  files.syncNames();
}

/** A file was moved to where there had been no database, and the crash came before its commit. */
function isTakenOver(db: Database): boolean {
  if (!db.log.isLoose) return false;
  rollBackJournal(db);
  return db.files.size("database") > 0;
}

/** Applies what the log has and the database file may lack. */
function bringForward(db: Database, hadJournal: boolean): void {
  const { files, log } = db;
  if (log.isLoose) {
    files.remove("journal");
    // A copy into the mount was cut off.
    if (files.exists("database")) adoptFile(db, false);
    else finishHandOver(db);
    return;
  }
  // Of thousands of databases most are as their log says; a sync of each would be the whole start.
  const isAsItShould = log.isCaughtUp && !log.isUnsynced && !hadJournal;
  applyLog(db, true, isAsItShould);
  files.remove("journal");
  completeRecovery(db);
}

/**
 * The same after a power cut, for an application that does not sync each step: a journal may be there
 * that is torn, or that undoes what was committed long ago. So everything is read, first without it.
 */
function bringForwardAndVerify(db: Database): void {
  let file = applyLog(db, false, false);
  if (!isAsLogSays(db, file)) {
    rollBackJournal(db);
    file = applyLog(db, false, false);
    if (!isAsLogSays(db, file)) {
      throw new FormatError(
        "DATABASE_DAMAGED",
        `database file ${db.files.pathOf("database")} differs from its log at ` +
          `${formatPosition(db.position)}: the power went while it was written with ` +
          `synchronous=OFF; ${remedyFor(db.name)}`,
      );
    }
  }
  db.files.remove("journal");
  completeRecovery(db);
}

/**
 * `isSizeKnown`: a file that is too short is damaged, and not what a power cut has left. `hasAll`: the
 * log says of the file that it has all of it, and nothing can have undone its end.
 */
function applyLog(db: Database, isSizeKnown: boolean, hasAll: boolean): OpenFile {
  const { files, log } = db;
  const { state } = log;
  const hasFile = files.size("database") > 0;
  // Otherwise the newest is always applied: its journal may have outlived the power cut.
  const newest = hasAll ? log.txid : log.txid - 1;
  const from = hasFile ? Math.min(state.durableTxid, newest) : lastEmptyTxid(db);
  checkReplay(db, from, isSizeKnown ? files.size("database") : Infinity);
  // The database file must never hold what the log could still lose.
  if (!log.isCaughtUp) log.sync();
  const file = files.getOrCreate("database");
  let applied = 0;
  for (const segment of log.segmentPathsAfter(from)) {
    applied += applySegment(db, segment, file, from);
  }
  const sizeBytes = state.pageCount * state.pageSize;
  // More than the log says is what SQLite never cut off, or what somebody copied in.
  if (applied > 0 || file.size() > sizeBytes) {
    if (file.size() !== sizeBytes) file.truncate(sizeBytes);
    file.sync();
  }
  return file;
}

function completeRecovery(db: Database): void {
  const { files, log } = db;
  const file = files.getOrCreate("database");
  const sizeBytes = log.state.pageCount * log.state.pageSize;
  if (file.size() < sizeBytes) {
    throw new FormatError(
      "DATABASE_DAMAGED",
      `database file ${files.pathOf("database")} has ${file.size()} bytes, its log says ` +
        `${sizeBytes}; ${remedyFor(db.name)}`,
    );
  }
  checkHeader(db, file);
  // A database that was at rest has nothing to say; of thousands, the sync would be the whole start.
  const isAtRest = log.isCaughtUp && !files.exists("wal");
  files.remove("wal");
  if (!isAtRest) files.syncNames();
  log.noteDurable(log.txid, "now");
  if (!log.isCaughtUp) log.sync();
}

/** The power went while the file was written with synchronous=OFF. */
function mayBeTorn({ log }: Database): boolean {
  return log.isUnsynced && log.isNewBoot;
}

/**
 * The database file is gone, so only the log can give it back: from where the database was last
 * empty, because it had not begun or was dropped, or from the snapshot that is to replace it.
 */
function lastEmptyTxid(db: Database): number {
  const { log } = db;
  if (log.state.durableTxid === 0) return 0;
  let empty: number | undefined;
  for (const segment of log.segmentPathsAfter(0)) {
    eachRecord(db, segment, (record, pageCount) => {
      if (pageCount === 0) empty = record.txid;
    });
  }
  if (empty !== undefined) return empty;
  throw new FormatError(
    "DATABASE_DAMAGED",
    `database file ${db.files.pathOf("database")} is gone or empty, and its log does not hold all ` +
      `of it; ${remedyFor(db.name)}`,
  );
}

function isAsLogSays(db: Database, file: OpenFile): boolean {
  const { log, store } = db;
  const sum = checksumFile(file, log.state.pageSize, log.state.pageCount, store.checksums);
  if (sum.hi === log.checksumHi && sum.lo === log.checksumLo) return true;
  store.checksums.clear();
  return false;
}

function checkHeader(db: Database, file: OpenFile): void {
  const header = readDatabaseHeader(file);
  const { pageSize } = db.log.state;
  if (!(header instanceof FormatError) && header.pageSize === pageSize) return;
  const what = header instanceof FormatError ? errorText(header) : "its page size has changed";
  throw new FormatError(
    "DATABASE_DAMAGED",
    `database file ${db.files.pathOf("database")} is damaged: ${what}; its log stands at ` +
      `${formatPosition(db.position)}; ${remedyFor(db.name)}`,
  );
}

/** Returns how many transactions of a segment were applied. */
export function applySegment(db: Database, name: string, file: OpenFile, after: number): number {
  let applied = 0;
  eachRecord(db, name, (record, pageCount, segment, payload, pageSize) => {
    if (record.kind === RECORD_KIND.base && record.txid > after) {
      applied += applySnapshotOf(db, record, file);
    }
    if (record.kind !== RECORD_KIND.transaction || record.txid <= after) return;
    applyLtxToFile(segment, payload, record.payloadLength, file);
    file.truncate(pageCount * pageSize);
    applied++;
  });
  return applied;
}

/** Visits the records of a segment with the size in pages that the database has after each. */
export function eachRecord(
  db: Database,
  name: string,
  visit: (
    record: RecordHeader,
    pageCount: number,
    segment: OpenFile,
    payloadOffset: number,
    pageSize: number,
  ) => void,
): void {
  const segment = db.files.files.open(name, { readOnly: true });
  if (segment === undefined) return;
  const bytes = new Uint8Array(RECORD_HEADER_SIZE + LTX_HEADER_SIZE);
  try {
    const sizeBytes = db.log.recordBytes(name, segment);
    for (let offset = 0; offset < sizeBytes;) {
      const count = segment.readAt(bytes, 0, bytes.length, offset);
      const record = count < RECORD_HEADER_SIZE ? undefined : decodeRecordHeader(bytes, 0);
      if (record === undefined) {
        throw new FormatError(
          "LOG_DAMAGED",
          `transaction log ${name} is damaged: the record at offset ${offset} is unreadable; ` +
            remedyFor(db.name),
        );
      }
      const payload = offset + RECORD_HEADER_SIZE;
      if (record.kind === RECORD_KIND.transaction) {
        const { commit, pageSize } = decodeHeader(bytes, RECORD_HEADER_SIZE);
        visit(record, commit, segment, payload, pageSize);
      } else {
        const { pageCount, pageSize } = decodeStatePayload(bytes, RECORD_HEADER_SIZE);
        visit(record, pageCount, segment, payload, pageSize);
      }
      offset = payload + record.payloadLength;
    }
  } finally {
    segment.close();
  }
}

function applySnapshotOf(db: Database, base: RecordHeader, file: OpenFile): number {
  const snapshot = openSnapshotOf(db.files, base);
  // Without one the base was made of the database file itself, which was synced before.
  if (snapshot === undefined) return 0;
  try {
    applyLtxToFile(snapshot, 0, snapshot.size(), file);
  } finally {
    snapshot.close();
  }
  return 1;
}

/**
 * What the file holds now is the database, if it is one. If a transaction is known to have been
 * committed, not even an equal checksum says that the log has it, see appendCommit.
 */
function adoptFile(db: Database, isCommitted: boolean): void {
  const { files, log } = db;
  const file = files.getOrCreate("database");
  const header = readDatabaseHeader(file);
  if (header instanceof FormatError) {
    throw new FormatError(
      "DATABASE_DAMAGED",
      `database "${db.name}" was being overwritten when the node stopped: ${errorText(header)}; ` +
        `copy it in again or restore it`,
    );
  }
  const { pageSize } = header;
  const pageCount = databasePageCount(header, file.size());
  // A last page that ends too early is padded; and it would grow into what was never part of it.
  const sizeBytes = pageCount * pageSize;
  if (file.size() !== sizeBytes) file.truncate(sizeBytes);
  const sum = checksumFile(file, pageSize, pageCount, db.store.checksums);
  files.syncDatabase();
  const isSame = sum.hi === log.checksumHi && sum.lo === log.checksumLo && !isCommitted;
  const txid = isSame ? log.txid : log.txid + 1;
  const timestampMs = isSame ? log.state.timestampMs : db.host.nowMs();
  log.appendBase({ txid, ...sum }, { pageSize, pageCount, timestampMs, durableTxid: txid });
  files.remove("wal");
}

/** The file was moved away on purpose, which drops the database: the log was told before. */
function finishHandOver(db: Database): void {
  db.appendDeletion();
  removeLeftovers(db);
}

/** Completes the exchange of the log directory that a new snapshot began, see replace.ts. */
function finishLogSwap(files: Files, directory: string): void {
  const next = path.join(directory, "log.new");
  if (files.list(next).length === 0) return;
  const current = path.join(directory, "log");
  // The old log is moved away first, so its absence says how far the exchange got.
  if (files.list(current).length > 0) return;
  files.rename(next, current);
  files.syncDirectory(directory);
}
