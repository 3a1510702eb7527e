import { parseLtxFilename } from "../ltx/filename.ts";
import type { Position } from "../lib/position.ts";
import { checkReplay } from "./check-replay.ts";
import { DatabaseFiles } from "./database-files.ts";
import { Database } from "./database.ts";
import type { Files, OpenFile } from "./files.ts";
import type { DatabaseHost } from "./host.ts";
import { decodeRecordHeader, RECORD_HEADER_SIZE, RECORD_KIND } from "./log/record.ts";
import type { RecordHeader } from "./log/record.ts";
import { TransactionLog } from "./log/transaction-log.ts";
import { PageChecksums } from "./page-checksums.ts";
import { applySegment, eachRecord } from "./recover.ts";
import { openSnapshotOf } from "./snapshot-file.ts";
import { checksumFile } from "./whole-database.ts";

export interface Rebuilt {
  readonly position: Position;
  readonly transactionCount: number;
  /** The pages have the checksum of the position: this is the database. */
  readonly isRight: boolean;
}

/**
 * Writes everything that the log of a database still has into `target`, which holds a copy of the
 * database file, or nothing. That heals every page which the log has written since its beginning, and
 * so all of them if it goes back to where the database was empty. Throws a FormatError when the log
 * is damaged itself.
 */
export function rebuildFromLog(
  name: string,
  host: DatabaseHost,
  files: Files,
  directory: string,
  target: OpenFile,
): Rebuilt {
  const log = TransactionLog.open(files, `${directory}/log`);
  const db = new Database(name, host, new DatabaseFiles(files, directory), log);
  const after = replayStart(db);
  checkReplay(db, after, Infinity);
  let transactionCount = 0;
  for (const segment of log.segmentPathsAfter(after)) {
    transactionCount += applySegment(db, segment, target, after);
  }
  const { pageSize, pageCount } = log.state;
  target.truncate(pageCount * pageSize);
  const sum = checksumFile(target, pageSize, pageCount, new PageChecksums());
  const isRight = sum.hi === log.checksumHi && sum.lo === log.checksumLo;
  return { position: log.position, transactionCount, isRight };
}

/** Nothing before the last jump leads to what is now, unless the jump's own pages are there. */
function replayStart(db: Database): number {
  let first: number | undefined;
  let base: RecordHeader | undefined;
  for (const segment of db.log.segmentPathsAfter(0)) {
    eachRecord(db, segment, (record) => {
      first ??= record.txid;
      if (record.kind === RECORD_KIND.base) base = record;
    });
  }
  if (base === undefined) return first ?? 0;
  const snapshot = openSnapshotOf(db.files, base);
  snapshot?.close();
  return snapshot === undefined ? base.txid : base.txid - 1;
}

const WINDOW_BYTES = 1024 * 1024;

/**
 * The highest TXID that anything in a database's directory tells of, however damaged: a new history
 * must not give the same number to something else.
 */
export function highestTxid(files: Files, directory: string): number {
  let highest = 0;
  for (const name of files.list(`${directory}/ltx`)) {
    highest = Math.max(highest, parseLtxFilename(name)?.maxTxid ?? 0);
  }
  for (const name of files.list(`${directory}/log`)) {
    const file = files.open(`${directory}/log/${name}`, { readOnly: true });
    if (file === undefined) continue;
    try {
      highest = Math.max(highest, highestIn(file));
    } finally {
      file.close();
    }
  }
  return highest;
}

/** Looks for record headers anywhere, each of which has a checksum of its own. */
function highestIn(file: OpenFile): number {
  let highest = 0;
  const window = Buffer.alloc(WINDOW_BYTES + RECORD_HEADER_SIZE);
  for (let at = 0; ; at += WINDOW_BYTES) {
    const count = file.readAt(window, 0, window.length, at);
    const bytes = window.subarray(0, count);
    for (let i = bytes.indexOf("LFR1"); i >= 0; i = bytes.indexOf("LFR1", i + 1)) {
      highest = Math.max(highest, decodeRecordHeader(bytes, i)?.txid ?? 0);
    }
    if (count < window.length) return highest;
  }
}
