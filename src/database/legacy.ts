import * as path from "node:path";
import { FormatError } from "../lib/errors.ts";
import { formatChecksum, formatPosition } from "../lib/position.ts";
import { bigintHi, bigintLo, halvesToBigint } from "../ltx/crc64.ts";
import type { LtxSummary } from "../ltx/decoder.ts";
import { decodeHeader, LTX_HEADER_SIZE } from "../ltx/header.ts";
import { FRAME_HEADER_SIZE, scanWal, WAL_HEADER_SIZE } from "../sqlite/wal.ts";
import { parseLtxFilename } from "../ltx/filename.ts";
import type { DatabaseHeader } from "../sqlite/database-header.ts";
import type { Database } from "./database.ts";
import type { OpenFile } from "./files.ts";
import { applyLtxToFile, readLtxFile } from "./ltx-to-file.ts";
import { isCommittedBySuperJournal, rollBackJournal } from "./journal-rollback.ts";
import {
  checksumFile,
  databasePageCount,
  padLastPage,
  readDatabaseHeader,
} from "./whole-database.ts";

/**
 * Opens a database directory that has no log of ours: a new one, or one that LiteFS left. LiteFS
 * trusts its newest LTX file and drops what its WAL holds beyond it; so must we, because the
 * replicas have never seen more. The whole database is read once, to be sure.
 */
export function adoptLegacyDirectory(db: Database, isMounted: boolean): void {
  const newest = newestLtx(db);
  const hasFile = db.files.size("database") > 0;
  if (newest === undefined) {
    if (hasFile) adoptPlainDatabase(db, isMounted);
    return;
  }
  const { header, trailer } = newest.summary;
  const { log, files } = db;
  const postHi = bigintHi(trailer.postApplyChecksum);
  const postLo = bigintLo(trailer.postApplyChecksum);
  if (header.commit > 0) {
    rollBackJournal(db);
    checkpointLegacyWal(db, newest.summary);
    const file = files.getOrCreate("database");
    const source = files.files.open(newest.path, { readOnly: true });
    if (source === undefined) throw new Error(`${newest.path} vanished`);
    applyLtxToFile(source, 0, source.size(), file);
    source.close();
    file.truncate(header.commit * header.pageSize);
    file.sync();
    const sum = checksumFile(file, header.pageSize, header.commit, db.store.checksums);
    if (sum.hi !== postHi || sum.lo !== postLo) {
      throw new FormatError(
        "DATABASE_DAMAGED",
        `database "${db.name}" has checksum ${formatChecksum(halvesToBigint(sum.hi, sum.lo))}, ` +
          `its newest transaction promises ` +
          formatPosition({ txid: header.maxTxid, checksum: trailer.postApplyChecksum }),
      );
    }
  } else {
    for (const kind of ["journal", "wal", "database"] as const) files.remove(kind);
  }
  files.remove("wal");
  log.appendBase(
    { txid: header.maxTxid, hi: postHi, lo: postLo },
    {
      pageSize: header.pageSize,
      pageCount: header.commit,
      timestampMs: header.timestampMs,
      durableTxid: header.maxTxid,
    },
  );
}

/**
 * Removes what LiteFS left in `ltx/`, oldest first, up to a time: from the takeover on it serves
 * only replicas that are behind. Returns how many transactions went.
 */
export function reapLegacyTransactions(db: Database, olderThanMs: number): number {
  if (db.log.isEmpty || !db.mayHaveLegacy) return 0;
  const { files } = db.files;
  const directory = db.files.pathOf("ltx");
  const names = files.list(directory);
  if (names.length === 0) {
    db.mayHaveLegacy = false;
    return 0;
  }
  const transactions = names
    .flatMap((name) => {
      const range = parseLtxFilename(name);
      return range === undefined ? [] : [{ ...range, file: path.join(directory, name) }];
    })
    .sort((a, b) => a.maxTxid - b.maxTxid);
  let removed = 0;
  for (const { file, minTxid, maxTxid } of transactions) {
    if (timestampOf(db, file) >= olderThanMs) return removed;
    files.remove(file);
    removed += maxTxid - minTxid + 1;
  }
  if (files.list(directory).length === 0) files.removeDirectory(directory);
  return removed;
}

function timestampOf(db: Database, name: string): number {
  const file = db.files.files.open(name, { readOnly: true });
  if (file === undefined) return 0;
  try {
    const header = new Uint8Array(LTX_HEADER_SIZE);
    if (file.readAt(header, 0, header.length, 0) < header.length) return 0;
    return decodeHeader(header, 0).timestampMs;
  } finally {
    file.close();
  }
}

function newestLtx(db: Database): { path: string; summary: LtxSummary } | undefined {
  const directory = db.files.pathOf("ltx");
  const { files } = db.files;
  let newest: { name: string; maxTxid: number } | undefined;
  for (const name of files.list(directory)) {
    const parsed = parseLtxFilename(name);
    if (parsed === undefined) continue;
    if (newest === undefined || parsed.maxTxid > newest.maxTxid) {
      newest = { name, maxTxid: parsed.maxTxid };
    }
  }
  if (newest === undefined) return undefined;
  const file = path.join(directory, newest.name);
  const source = files.open(file, { readOnly: true });
  if (source === undefined) return undefined;
  try {
    const summary = readLtxFile(source, 0, source.size(), () => undefined);
    return { path: file, summary };
  } finally {
    source.close();
  }
}

/** Copies the part of LiteFS's WAL that its newest LTX covers into the database file. */
function checkpointLegacyWal(db: Database, { header }: LtxSummary): void {
  const wal = db.files.get("wal");
  if (wal === undefined) return;
  const file = db.files.getOrCreate("database");
  const coveredBytes = header.walOffset + header.walSize;
  const newest = new Map<number, number>();
  const scan = scanWal(wal, wal.size(), (frame, index) => {
    const end = WAL_HEADER_SIZE + (index + 1) * (FRAME_HEADER_SIZE + header.pageSize);
    if (end <= coveredBytes) newest.set(frame.pgno, index);
  });
  if (scan === undefined) return;
  const isSameWal = scan.header.salt1 === header.walSalt1 && scan.header.salt2 === header.walSalt2;
  if (!isSameWal || scan.header.pageSize !== header.pageSize) {
    // As LiteFS names it. It belongs to a WAL that came after, or before, what the log knows.
    db.files.closeAll();
    db.files.files.rename(db.files.pathOf("wal"), db.files.pathOf("wal.removed"));
    db.files.forgetNames();
    return;
  }
  const page = new Uint8Array(header.pageSize);
  for (const [pgno, index] of newest) {
    const offset = WAL_HEADER_SIZE + index * (FRAME_HEADER_SIZE + header.pageSize);
    wal.readAt(page, 0, page.length, offset + FRAME_HEADER_SIZE);
    file.writeAt(page, 0, page.length, (pgno - 1) * page.length);
  }
}

function headerOf(db: Database, file: OpenFile): DatabaseHeader {
  const header = readDatabaseHeader(file);
  if (!(header instanceof FormatError)) return header;
  throw new FormatError("DATABASE_DAMAGED", `database "${db.name}": ${header.message}`);
}

/** A SQLite file somebody put there: its first position is what it holds now. */
function adoptPlainDatabase(db: Database, isMounted: boolean): void {
  if (!isMounted && isCommittedBySuperJournal(db)) db.files.remove("journal");
  else rollBackJournal(db);
  const file = db.files.getOrCreate("database");
  if (file.size() === 0) {
    // The node was killed during the very first transaction, and the journal took it back.
    db.files.remove("wal");
    return;
  }
  let header = headerOf(db, file);
  const wal = db.files.get("wal");
  if (wal !== undefined) {
    const newest = new Map<number, number>();
    const scan = scanWal(wal, wal.size());
    if (scan !== undefined && scan.header.pageSize === header.pageSize) {
      for (const [index, pgno] of scan.pgnos.entries()) newest.set(pgno, index);
      const page = new Uint8Array(header.pageSize);
      for (const [pgno, index] of newest) {
        if (pgno > scan.commitPageCount) continue;
        const offset = WAL_HEADER_SIZE + index * (FRAME_HEADER_SIZE + header.pageSize);
        wal.readAt(page, 0, page.length, offset + FRAME_HEADER_SIZE);
        file.writeAt(page, 0, page.length, (pgno - 1) * page.length);
      }
      if (scan.commitPageCount > 0) file.truncate(scan.commitPageCount * header.pageSize);
      // The WAL may have held a newer page 1, and with it another size.
      header = headerOf(db, file);
    }
  }
  const pageCount = databasePageCount(header, file.size());
  padLastPage(file, header.pageSize, pageCount);
  const sum = checksumFile(file, header.pageSize, pageCount, db.store.checksums);
  file.sync();
  db.files.remove("wal");
  const timestampMs = db.host.nowMs();
  db.host.logger.info("a database file without a log is taken over, its history begins here", {
    db: db.name,
  });
  db.log.appendBase(
    { txid: 1, ...sum },
    { pageSize: header.pageSize, pageCount, timestampMs, durableTxid: 1 },
  );
}
