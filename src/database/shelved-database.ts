import * as path from "node:path";
import { DatabaseFiles } from "./database-files.ts";
import { Database } from "./database.ts";
import type { FileIdentity, Files } from "./files.ts";
import type { DatabaseHost } from "./host.ts";
import {
  decodeRecordHeader,
  parseSegmentName,
  RECORD_KIND,
  STATE_RECORD_SIZE,
} from "./log/record.ts";
import { readState } from "./log/recover-log.ts";
import type { SettledLog } from "./log/recover-log.ts";
import { TransactionLog } from "./log/transaction-log.ts";
import { readDatabaseHeader } from "./whole-database.ts";

/**
 * A database at rest of which nothing is in memory but this: where it stands, and by what to see
 * that nobody has touched its files since. Of thousands of databases most are never asked for.
 */
export interface ShelvedDatabase {
  readonly name: string;
  readonly log: SettledLog;
  /** Of the database file. */
  readonly file: FileIdentity;
  /** Of the last segment of the log. */
  readonly segment: FileIdentity;
}

/** What the log of a database ends with of which nobody is in the middle of anything. */
const QUIET_ENDS: ReadonlySet<number> = new Set([
  RECORD_KIND.durable,
  RECORD_KIND.head,
  RECORD_KIND.base,
]);

/** Undefined unless its file has everything that is in the log, and there is nothing besides the two. */
export function shelve(db: Database): ShelvedDatabase | undefined {
  const { name, files, store } = db;
  const isInUse = db.hasOpenChanges || db.suspect || db.isLent || db.arbiter !== undefined;
  if (db.status !== "ok" || isInUse || files.owesDatabaseSync) return undefined;
  const log = db.log.settled;
  if (log === undefined || store.frames.count > 0 || !hasNothingElse(files)) return undefined;
  const { pageCount, pageSize } = log.state;
  const file = files.files.identify(files.pathOf("database"));
  const segment = identifyLastSegment(files, log);
  if (file?.sizeBytes !== pageCount * pageSize || file.sizeBytes === 0) return undefined;
  if (segment?.sizeBytes !== log.endOffset) return undefined;
  return { name, log, file, segment };
}

/**
 * The database as it was when it was shelved; undefined if anything is not as it was, and it must
 * be opened like any other. Throws what the disk throws.
 */
export function takeFromShelf(
  shelved: ShelvedDatabase,
  host: DatabaseHost,
  files: Files,
  directory: string,
): Database | undefined {
  const { name, log } = shelved;
  const databaseFiles = new DatabaseFiles(files, directory);
  if (!isAsShelved(shelved, databaseFiles) || !endsAsShelved(databaseFiles, log)) return undefined;
  if (!hasHeader(databaseFiles, log)) return undefined;
  const logDirectory = databaseFiles.pathOf("log");
  const resumed = TransactionLog.resume(files, logDirectory, log);
  const db = new Database(name, host, databaseFiles, resumed);
  db.mayHaveLegacy = false;
  return db;
}

/** A disk that has changed a bit behind our back has not changed the time. */
function hasHeader(files: DatabaseFiles, { state }: SettledLog): boolean {
  const file = files.get("database");
  const header = file === undefined ? undefined : readDatabaseHeader(file);
  files.closeAll();
  return header !== undefined && "pageSize" in header && header.pageSize === state.pageSize;
}

/** Whether anybody has touched its files. Throws what the disk throws. */
export function isUntouched(shelved: ShelvedDatabase, files: Files, directory: string): boolean {
  return isAsShelved(shelved, new DatabaseFiles(files, directory));
}

function isAsShelved({ log, file, segment }: ShelvedDatabase, files: DatabaseFiles): boolean {
  return (
    hasNothingElse(files) &&
    isSameFile(files.files.identify(files.pathOf("database")), file) &&
    isSameFile(identifyLastSegment(files, log), segment) &&
    hasSegments(files, log)
  );
}

/** No WAL, no journal, nothing that was set aside: it would have to be looked at. */
function hasNothingElse(files: DatabaseFiles): boolean {
  const names = files.look();
  return names.length === 2 && names.includes("database") && names.includes("log");
}

/** Whether nobody has written or replaced a file, by what its inode says. */
export function isSameFile(a: FileIdentity | undefined, b: FileIdentity): boolean {
  return a?.inode === b.inode && a.sizeBytes === b.sizeBytes && a.modifiedMs === b.modifiedMs;
}

function lastSegmentPath(files: DatabaseFiles, log: SettledLog): string {
  return path.join(files.pathOf("log"), log.segments.at(-1)?.name ?? "");
}

function identifyLastSegment(files: DatabaseFiles, log: SettledLog): FileIdentity | undefined {
  return files.files.identify(lastSegmentPath(files, log));
}

function hasSegments(files: DatabaseFiles, log: SettledLog): boolean {
  const found = files.files.list(files.pathOf("log")).filter((name) => parseSegmentName(name));
  return found.length === log.segments.length && log.segments.every((s) => found.includes(s.name));
}

/**
 * The last record need not have been synced, so a power cut after the stop may have left nothing of it
 * in a file that looks the same. What is before it was synced before it was written.
 */
function endsAsShelved(files: DatabaseFiles, log: SettledLog): boolean {
  const file = files.files.open(lastSegmentPath(files, log), { readOnly: true });
  if (file === undefined) return false;
  const bytes = new Uint8Array(STATE_RECORD_SIZE);
  try {
    const count = file.readAt(bytes, 0, bytes.length, log.endOffset - bytes.length);
    if (count < bytes.length) return false;
  } finally {
    file.close();
  }
  const header = decodeRecordHeader(bytes, 0);
  const state = header === undefined ? undefined : readState(bytes);
  return (
    header !== undefined &&
    QUIET_ENDS.has(header.kind) &&
    header.txid === log.txid &&
    header.checksumHi === log.checksumHi &&
    header.checksumLo === log.checksumLo &&
    state?.pageCount === log.state.pageCount &&
    state.pageSize === log.state.pageSize &&
    state.timestampMs === log.state.timestampMs &&
    state.durableTxid === log.state.durableTxid
  );
}
