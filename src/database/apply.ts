import { errorText, FormatError } from "../lib/errors.ts";
import { bigintHi, bigintLo } from "../ltx/crc64.ts";
import { LtxDecoder } from "../ltx/decoder.ts";
import { isSnapshot } from "../ltx/header.ts";
import type { LtxHeader } from "../ltx/header.ts";
import { PENDING_BYTE, RESERVED_BYTE, SHARED_FIRST, SHARED_SIZE } from "../sqlite/locks.ts";
import { WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import type { Database } from "./database.ts";
import type { ApplyResult } from "./engine.ts";
import type { DaemonLocks, Job } from "./host.ts";
import type { LocalWal } from "./local-wal.ts";

const FLAG = 0x80000000 | 0;
const SHARED_LAST = SHARED_FIRST + SHARED_SIZE - 1;
const SYNC_AFTER_LOG_BYTES = 4 * 1024 * 1024;

/** A transaction from the primary, checked from its first byte to its last. */
export interface ReceivedTransaction {
  readonly header: LtxHeader;
  readonly postHi: number;
  readonly postLo: number;
  readonly pgnos: readonly number[];
  /** Checksums with FLAG: hi and lo alternating. */
  readonly checksums: readonly number[];
  /** The pages back to back, in the order of `pgnos`. */
  readonly pages: Uint8Array;
  readonly ltx: Uint8Array;
}

/** Throws a FormatError unless the bytes are one whole, valid LTX file. */
export function decodeReceived(ltx: Uint8Array): ReceivedTransaction {
  const pgnos: number[] = [];
  const checksums: number[] = [];
  let pages = new Uint8Array(Math.max(65536, ltx.length));
  let used = 0;
  const decoder = new LtxDecoder({
    onPage(pgno, data, hi, lo) {
      if (used + data.length > pages.length) {
        const grown = new Uint8Array(pages.length * 2);
        grown.set(pages);
        pages = grown;
      }
      pages.set(data, used);
      used += data.length;
      pgnos.push(pgno);
      checksums.push(hi, lo);
    },
  });
  decoder.push(ltx);
  const { header, trailer } = decoder.end();
  return {
    header,
    postHi: bigintHi(trailer.postApplyChecksum),
    postLo: bigintLo(trailer.postApplyChecksum),
    pgnos,
    checksums,
    pages,
    ltx,
  };
}

/**
 * Applies consecutive transactions of the primary to a replica's database, under one hold of
 * SQLite's locks. A database in WAL mode gets them through its local WAL and no reader is stopped;
 * any other is written in place while nobody reads.
 */
export function* applyTransactions(
  db: Database,
  local: LocalWal,
  locks: DaemonLocks,
  files: readonly Uint8Array[],
): Job<ApplyResult> {
  let transactions: ReceivedTransaction[];
  try {
    transactions = files.map(decodeReceived);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return mismatch(db, `a received transaction is damaged: ${errorText(error)}`);
  }
  if (db.status === "quarantined") return { kind: "quarantined", reason: db.reason };
  return isLocalWal(db, locks)
    ? yield* applyThroughWal(db, local, locks, transactions)
    : yield* applyInPlace(db, locks, transactions);
}

/**
 * Whether local readers of a database read it through a WAL. A connection that opened it in WAL
 * mode goes on so after the primary has left that mode, and keeps its lock on the database file
 * until it closes: whoever wanted to write there would wait for it.
 */
export function isLocalWal(db: Database, locks: DaemonLocks): boolean {
  if (db.store.frames.count > 0) return true;
  if (db.store.pageCount > 0 && locks.openCount("shm") > 0) return true;
  if (db.store.pageCount === 0) return false;
  const page = new Uint8Array(db.store.pageSize);
  db.store.readPage(1, page, 0);
  return page[18] === 2 && page[19] === 2;
}

function* applyThroughWal(
  db: Database,
  local: LocalWal,
  locks: DaemonLocks,
  transactions: readonly ReceivedTransaction[],
): Job<ApplyResult> {
  while (!locks.tryLock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK)) {
    yield (resume) => locks.whenReleased(resume);
  }
  let refusal: string | undefined;
  let rest: readonly ReceivedTransaction[] = [];
  try {
    for (const [i, transaction] of transactions.entries()) {
      refusal = refusalOf(db, transaction);
      if (refusal !== undefined) break;
      if (transaction.header.commit === 0) {
        // Whoever has the database open keeps what he opened; what follows is another file.
        yield* local.publish();
        commitToLog(db, transaction);
        db.log.sync();
        yield* removeDatabase(db);
        rest = transactions.slice(i + 1);
        break;
      }
      appendToWal(db, local, transaction);
    }
    yield* local.publish();
  } finally {
    locks.unlock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK);
  }
  db.host.changed(db.name);
  if (refusal !== undefined) return mismatch(db, refusal);
  if (rest.length > 0) return yield* applyInPlace(db, locks, rest);
  return { kind: "applied", position: db.position };
}

/** Log first, then the WAL; a full disk at the second takes the first back. */
function appendToWal(db: Database, local: LocalWal, transaction: ReceivedTransaction): void {
  preserve(db, transaction);
  const mark = db.log.mark();
  try {
    commitToLog(db, transaction);
    const { pgnos, pages, header } = transaction;
    const last = pgnos.length - 1;
    for (const [i, pgno] of pgnos.entries()) {
      const page = pages.subarray(i * header.pageSize, (i + 1) * header.pageSize);
      local.append(pgno, page, i === last ? header.commit : 0);
    }
    if (last < 0) appendPageOne(db, local, header.commit);
    local.flush();
  } catch (error) {
    local.rollback();
    db.log.truncateTo(mark);
    throw error;
  }
  local.commit();
  adopt(db, transaction);
}

/** A transaction may only cut the database; a WAL needs some frame to carry the new size. */
function appendPageOne(db: Database, local: LocalWal, commit: number): void {
  const page = new Uint8Array(db.store.pageSize);
  db.store.readPage(1, page, 0);
  local.append(1, page, commit);
}

function* applyInPlace(
  db: Database,
  locks: DaemonLocks,
  transactions: readonly ReceivedTransaction[],
): Job<ApplyResult> {
  yield* lockOutReaders(locks);
  let refusal: string | undefined;
  const accepted: ReceivedTransaction[] = [];
  let isDeletion = false;
  try {
    for (const transaction of transactions) {
      refusal = refusalOf(db, transaction);
      if (refusal !== undefined) break;
      preserve(db, transaction);
      if (db.store.pageSize === 0) db.store.pageSize = transaction.header.pageSize;
      commitToLog(db, transaction);
      adopt(db, transaction);
      accepted.push(transaction);
      isDeletion = transaction.header.commit === 0;
      // What follows a deletion is another file: it must not share this batch.
      if (isDeletion) break;
    }
    // The database file must never hold what the log could still lose.
    db.log.sync();
    if (isDeletion) yield* removeDatabase(db);
    else writePages(db, accepted);
    yield (resume) => db.kernel.settled(resume);
  } finally {
    unlockReaders(locks);
  }
  db.host.changed(db.name);
  if (refusal !== undefined) return mismatch(db, refusal);
  const rest = transactions.slice(accepted.length);
  if (rest.length > 0) return yield* applyInPlace(db, locks, rest);
  return { kind: "applied", position: db.position };
}

/** PENDING keeps new readers out while those that are there finish. */
export function* lockOutReaders(locks: DaemonLocks): Job<void> {
  while (!locks.tryLock("database", PENDING_BYTE, RESERVED_BYTE)) {
    yield (resume) => locks.whenReleased(resume);
  }
  while (!locks.tryLock("database", SHARED_FIRST, SHARED_LAST)) {
    yield (resume) => locks.whenReleased(resume);
  }
}

export function unlockReaders(locks: DaemonLocks): void {
  locks.unlock("database", PENDING_BYTE, SHARED_LAST);
}

/** Why a transaction cannot be the next one here; undefined when it can. */
function refusalOf(db: Database, transaction: ReceivedTransaction): string | undefined {
  const { header } = transaction;
  const { store, log } = db;
  if (header.minTxid !== log.txid + 1) {
    return `it has TXID ${header.minTxid}, the database is at ${log.txid}`;
  }
  if (!isSnapshot(header)) {
    const preHi = bigintHi(header.preApplyChecksum);
    const preLo = bigintLo(header.preApplyChecksum);
    if (preHi !== log.checksumHi || preLo !== log.checksumLo) return "it follows another history";
  }
  if (store.pageCount > 0 && header.pageSize !== store.pageSize) return "its page size differs";
  const sum = checksumAfter(db, transaction);
  if (sum.hi !== transaction.postHi || sum.lo !== transaction.postLo) {
    return "applying it does not give the checksum it promises";
  }
  return undefined;
}

function checksumAfter(
  db: Database,
  { header, pgnos, checksums }: ReceivedTransaction,
): { hi: number; lo: number } {
  const { store, log } = db;
  let hi = log.checksumHi;
  let lo = log.checksumLo;
  for (const [i, pgno] of pgnos.entries()) {
    if (pgno <= store.pageCount) {
      store.loadChecksum(pgno);
      hi ^= store.checksums.hi;
      lo ^= store.checksums.lo;
    }
    hi ^= checksums[i * 2] ?? 0;
    lo ^= checksums[i * 2 + 1] ?? 0;
  }
  for (let pgno = header.commit + 1; pgno <= store.pageCount; pgno++) {
    if (pgno === store.lockPgno) continue;
    store.loadChecksum(pgno);
    hi ^= store.checksums.hi;
    lo ^= store.checksums.lo;
  }
  return { hi: hi | FLAG, lo };
}

function preserve(db: Database, { header, pgnos }: ReceivedTransaction): void {
  const { store } = db;
  if (store.snapshots.size === 0) return;
  for (const pgno of pgnos) store.preserve(pgno);
  for (let pgno = header.commit + 1; pgno <= store.pageCount; pgno++) store.preserve(pgno);
}

function commitToLog(db: Database, transaction: ReceivedTransaction): void {
  const { header, postHi, postLo, ltx } = transaction;
  db.log.appendReceived(header, postHi, postLo, ltx);
}

function adopt(db: Database, { header, pgnos, checksums }: ReceivedTransaction): void {
  const { store } = db;
  for (const [i, pgno] of pgnos.entries()) {
    store.checksums.set(pgno, checksums[i * 2] ?? 0, checksums[i * 2 + 1] ?? 0);
  }
  if (header.commit < store.pageCount) store.checksums.truncate(header.commit);
  store.pageCount = header.commit;
  db.status = header.commit === 0 ? "deleted" : "ok";
}

function writePages(db: Database, transactions: readonly ReceivedTransaction[]): void {
  if (transactions.length === 0) return;
  const { pageSize } = db.store;
  const isNew = !db.files.exists("database");
  const file = db.files.getOrCreate("database");
  for (const { pgnos, pages } of transactions) {
    for (const [i, pgno] of pgnos.entries()) {
      file.writeAt(pages, i * pageSize, pageSize, (pgno - 1) * pageSize);
    }
  }
  const sizeBytes = db.store.pageCount * pageSize;
  if (file.size() !== sizeBytes) file.truncate(sizeBytes);
  if (isNew) db.kernel.invalidateName("database");
  for (const { pgnos } of transactions) {
    for (const pgno of pgnos) {
      db.kernel.invalidate("database", (pgno - 1) * pageSize, pageSize);
    }
  }
  if (db.log.bytesSinceDurable >= SYNC_AFTER_LOG_BYTES) {
    file.sync();
    db.files.syncNames();
    db.log.noteDurable(db.log.txid, "now");
  }
}

/** The database was dropped on the primary. Whoever has it open keeps the file he opened. */
function* removeDatabase(db: Database): Job<void> {
  db.removeFiles();
  db.log.noteDurable(db.log.txid, "now");
  for (const kind of ["database", "journal", "wal", "shm"] as const) {
    db.kernel.invalidateName(kind);
  }
  yield (resume) => db.kernel.settled(resume);
}

export function mismatch(db: Database, reason: string): ApplyResult {
  return { kind: "mismatch", position: db.position, reason };
}
