import { errorText, FormatError } from "../lib/errors.ts";
import { formatPosition } from "../lib/position.ts";
import { bigintHi, bigintLo, CHECKSUM_FLAG_HI } from "../ltx/crc64.ts";
import { isSnapshot } from "../ltx/header.ts";
import { PENDING_BYTE, RESERVED_BYTE, SHARED_FIRST, SHARED_LAST } from "../sqlite/locks.ts";
import { WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import type { Database } from "./database.ts";
import type { ApplyResult } from "./engine.ts";
import type { DaemonLocks, Job } from "./host.ts";
import type { LocalWal } from "./local-wal.ts";
import { decodeReceived } from "./received-transaction.ts";
import type { ReceivedTransaction } from "./received-transaction.ts";
import { invalidatePages } from "./stale-pages.ts";

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
  node?: ForwardedBy,
): Job<ApplyResult> {
  let transactions: ReceivedTransaction[];
  try {
    transactions = files.map((ltx) => forwardedBy(decodeReceived(ltx), node));
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return mismatch(db, `a received transaction is damaged: ${errorText(error)}`);
  }
  return yield* applyReceived(db, local, locks, transactions);
}

/** A transaction that a node has forwarded is subject to its right to write. */
export interface ForwardedBy {
  readonly isPermitted: () => boolean;
  readonly onLogged: (readersWait: boolean) => void;
}

export function forwardedBy(
  transaction: ReceivedTransaction,
  node: ForwardedBy | undefined,
): ReceivedTransaction {
  return node === undefined ? transaction : { ...transaction, ...node };
}

export function* applyReceived(
  db: Database,
  local: LocalWal,
  locks: DaemonLocks,
  transactions: readonly ReceivedTransaction[],
): Job<ApplyResult> {
  if (db.status === "quarantined") return { kind: "quarantined", reason: db.reason };
  const [first] = transactions;
  if (first !== undefined) db.noteArrival(first.header.maxTxid, first.postHi, first.postLo);
  // Before any lock is taken: nobody need wait for what is here already.
  if (newOnes(db, transactions).length === 0) return { kind: "applied", position: db.position };
  return isLocalWal(db, locks)
    ? yield* applyThroughWal(db, local, locks, transactions)
    : yield* applyInPlace(db, locks, transactions);
}

/**
 * Those that the database does not have yet. What this node has forwarded to the primary comes
 * back by the stream, and perhaps while its own commit is still waiting for the answer.
 */
function newOnes(
  db: Database,
  transactions: readonly ReceivedTransaction[],
): readonly ReceivedTransaction[] {
  let known = 0;
  for (const { header, postHi, postLo } of transactions) {
    if (header.maxTxid > db.log.txid || !db.applied.has(header.maxTxid, postHi, postLo)) break;
    known++;
  }
  return known === 0 ? transactions : transactions.slice(known);
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
  received: readonly ReceivedTransaction[],
): Job<ApplyResult> {
  let transactions = received;
  while (locks.isHeldExclusively() || !locks.tryLock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK)) {
    yield (resume) => locks.whenReleased(resume);
    transactions = newOnes(db, transactions);
    if (transactions.length === 0) return { kind: "applied", position: db.position };
  }
  let stopped: Stopped | undefined;
  let rest: readonly ReceivedTransaction[] = [];
  try {
    for (const [i, transaction] of transactions.entries()) {
      if (transaction.header.commit === 0 && refusalOf(db, transaction) === undefined) {
        // Whoever has the database open keeps what he opened; what follows is another file.
        yield* local.publish();
        yield* dropDatabase(db, transaction);
        rest = transactions.slice(i + 1);
        break;
      }
      stopped = tryNext(db, transaction, false, () => appendToWal(db, local, transaction));
      if (stopped !== undefined) break;
    }
    // Also after a failure: what is committed must not stay hidden from readers.
    yield* local.publish();
  } finally {
    locks.unlock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK);
  }
  db.host.changed(db.name);
  if (stopped !== undefined || rest.length === 0) return resultOf(db, stopped);
  return yield* applyInPlace(db, locks, rest);
}

/** Why a batch ends before its last transaction. */
type Stopped = { readonly refusal: string } | { readonly error: unknown };

/** Takes the next transaction, or says why not; what went wrong on the way is taken back. */
function tryNext(
  db: Database,
  transaction: ReceivedTransaction,
  readersWait: boolean,
  take: () => void,
): Stopped | undefined {
  const refusal = refusalOf(db, transaction);
  if (refusal !== undefined) return { refusal };
  try {
    take();
    transaction.onLogged?.(readersWait);
    return undefined;
  } catch (error) {
    return { error };
  }
}

function resultOf(db: Database, stopped: Stopped | undefined): ApplyResult {
  if (db.status === "quarantined") return { kind: "quarantined", reason: db.reason };
  if (stopped === undefined) return { kind: "applied", position: db.position };
  if ("refusal" in stopped) return mismatch(db, stopped.refusal);
  throw stopped.error;
}

/** Log first, then the WAL; a full disk at either takes both back. */
function appendToWal(db: Database, local: LocalWal, transaction: ReceivedTransaction): void {
  preserve(db, transaction);
  const mark = db.log.mark();
  try {
    commitToLog(db, transaction);
    const { pgnos, header } = transaction;
    const last = pgnos.at(-1);
    transaction.eachPage((pgno, page) => {
      local.append(pgno, page, pgno === last ? header.commit : 0);
    });
    if (last === undefined) appendPageOne(db, local, header.commit);
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
  received: readonly ReceivedTransaction[],
): Job<ApplyResult> {
  let stopped: Stopped | undefined;
  let next = 0;
  let transactions = received;
  try {
    // What was forwarded comes by the stream as well, perhaps while its writer still has the locks.
    const isNeeded = (): boolean => newOnes(db, received).length > 0;
    if (!(yield* lockOutReaders(locks, isNeeded))) return resultOf(db, undefined);
    transactions = newOnes(db, received);
    const accepted: ReceivedTransaction[] = [];
    for (; next < transactions.length && stopped === undefined; next++) {
      const transaction = transactions[next];
      // What follows a deletion is another file: it must not share this batch.
      if (transaction === undefined || transaction.header.commit === 0) break;
      stopped = tryNext(db, transaction, true, () => appendToLog(db, transaction));
      if (stopped === undefined) accepted.push(transaction);
    }
    writeToFile(db, accepted);
    const deletion = transactions[next];
    if (stopped === undefined && deletion !== undefined && db.status !== "quarantined") {
      const refusal = refusalOf(db, deletion);
      if (refusal === undefined) yield* dropDatabase(db, deletion);
      else stopped = { refusal };
      next++;
    }
    yield (resume) => db.kernel.settled(resume);
  } finally {
    unlockReaders(locks);
  }
  db.host.changed(db.name);
  const isOver = stopped !== undefined || db.status === "quarantined";
  if (isOver || next >= transactions.length) return resultOf(db, stopped);
  return yield* applyInPlace(db, locks, transactions.slice(next));
}

function appendToLog(db: Database, transaction: ReceivedTransaction): void {
  preserve(db, transaction);
  const mark = db.log.mark();
  try {
    commitToLog(db, transaction);
  } catch (error) {
    db.log.truncateTo(mark);
    throw error;
  }
  if (db.store.pageCount === 0) db.store.pageSize = transaction.header.pageSize;
  adopt(db, transaction);
}

/**
 * The log has the transactions, so they are committed; a file that cannot follow it now does so
 * when the database is opened anew.
 */
function writeToFile(db: Database, accepted: readonly ReceivedTransaction[]): void {
  try {
    // The database file must never hold what the log could still lose.
    db.log.sync();
    writePages(db, accepted);
  } catch (error) {
    fallBehind(db, error);
  }
}

function fallBehind(db: Database, error: unknown): void {
  // The log says of itself what is wrong with it.
  if (db.status === "quarantined") return;
  const position = formatPosition(db.position);
  db.quarantine(`its file could not be brought to ${position}: ${errorText(error)}`, "disk");
}

/**
 * PENDING keeps new readers out while those that are there finish. False when that is not needed any
 * more: who waits is asked again each time that a lock was released, before it is taken.
 */
export function* lockOutReaders(
  locks: DaemonLocks,
  isNeeded: () => boolean = () => true,
): Job<boolean> {
  while (!locks.tryLock("database", PENDING_BYTE, RESERVED_BYTE)) {
    yield (resume) => locks.whenReleased(resume);
    if (!isNeeded()) return false;
  }
  while (!locks.tryLock("database", SHARED_FIRST, SHARED_LAST)) {
    yield (resume) => locks.whenReleased(resume);
    if (!isNeeded()) return false;
  }
  return true;
}

/** The same, if nobody is in the way. */
export function tryLockOutReaders(locks: DaemonLocks): boolean {
  return locks.tryLock("database", PENDING_BYTE, SHARED_LAST);
}

export function unlockReaders(locks: DaemonLocks): void {
  locks.unlock("database", PENDING_BYTE, SHARED_LAST);
}

/**
 * Takes the locks of the wal-index from WRITE up to `last`. Whoever has the database to himself
 * (locking_mode=EXCLUSIVE, from when this node was the primary) reads without such locks, and
 * perhaps with a wal-index in his own memory: he is waited for.
 */
export function* lockWal(locks: DaemonLocks, last: number): Job<void> {
  while (locks.isHeldExclusively() || !locks.tryLock("shm", WAL_WRITE_LOCK, last)) {
    yield (resume) => locks.whenReleased(resume);
  }
}

/** Why a transaction cannot be the next one here; undefined when it can. */
function refusalOf(db: Database, transaction: ReceivedTransaction): string | undefined {
  const { header } = transaction;
  const { store, log } = db;
  if (db.status === "quarantined") return "it is quarantined";
  if (transaction.isPermitted?.() === false) return "the right to write has ended";
  if (transaction.isPermitted !== undefined && header.maxTxid !== header.minTxid) {
    return "a forwarded file must hold one transaction";
  }
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
  const cut = store.checksumBeyond(header.commit);
  return { hi: (hi ^ cut.hi) | CHECKSUM_FLAG_HI, lo: lo ^ cut.lo };
}

function preserve(db: Database, { header, pgnos }: ReceivedTransaction): void {
  const { store } = db;
  if (!store.hasSnapshots) return;
  for (const pgno of pgnos) store.preserve(pgno);
  store.preserveBeyond(header.commit);
}

function commitToLog(db: Database, transaction: ReceivedTransaction): void {
  const { header, postHi, postLo, bytes } = transaction;
  db.log.appendReceived(header, postHi, postLo, bytes);
}

function adopt(db: Database, { header, pgnos, checksums }: ReceivedTransaction): void {
  const { store } = db;
  for (const [i, pgno] of pgnos.entries()) {
    store.checksums.set(pgno, checksums[i * 2] ?? 0, checksums[i * 2 + 1] ?? 0);
  }
  if (header.commit < store.pageCount) store.checksums.truncate(header.commit);
  store.pageCount = header.commit;
  if (db.status !== "quarantined") db.status = header.commit === 0 ? "deleted" : "ok";
}

function writePages(db: Database, transactions: readonly ReceivedTransaction[]): void {
  if (transactions.length === 0) return;
  const { pageSize } = db.store;
  const isNew = !db.files.exists("database");
  const file = db.files.getOrCreate("database");
  let pageCount = Math.ceil(file.size() / pageSize);
  for (const { header, eachPage } of transactions) {
    eachPage((pgno, page) => file.writeAt(page, 0, pageSize, (pgno - 1) * pageSize));
    // What a later one grows over again must be zeros, not what was there before.
    if (header.commit < pageCount) file.truncate(header.commit * pageSize);
    pageCount = header.commit;
  }
  const sizeBytes = db.store.pageCount * pageSize;
  if (file.size() !== sizeBytes) file.truncate(sizeBytes);
  if (isNew) db.kernel.invalidateName("database");
  const written = transactions.flatMap(({ pgnos }) => pgnos);
  invalidatePages(db.kernel, pageSize, written);
  if (db.log.needsDurable) {
    // One that ended here without a sync must not come back, and undo what is not applied again.
    db.files.get("journal")?.sync();
    db.files.syncDatabase();
    db.log.noteDurable(db.log.txid, "now");
  }
}

/** The database was dropped on the primary. Whoever has it open keeps the file he opened. */
function* dropDatabase(db: Database, transaction: ReceivedTransaction): Job<void> {
  appendToLog(db, transaction);
  try {
    db.log.sync();
    db.removeFiles();
    db.log.noteDurable(db.log.txid, "now");
  } catch (error) {
    fallBehind(db, error);
    return;
  }
  for (const kind of ["database", "journal", "wal", "shm"] as const) {
    db.kernel.invalidateName(kind);
  }
  yield (resume) => db.kernel.settled(resume);
}

export function mismatch(db: Database, reason: string): ApplyResult {
  return { kind: "mismatch", position: db.position, reason };
}
