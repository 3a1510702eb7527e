import type { LitefsError } from "../lib/errors.ts";
import { CHECKSUM_FLAG_HI, Crc64, halvesToBigint, pageCrc } from "../ltx/crc64.ts";
import { LtxEncoder } from "../ltx/encoder.ts";
import type { LtxHeader } from "../ltx/header.ts";
import { lockPgno } from "../sqlite/locks.ts";
import type { PageStore } from "./page-store.ts";
import type { TransactionLog } from "./log/transaction-log.ts";

const crc = new Crc64();
const gapPage = new Uint8Array(65536);

/** The pages a transaction leaves behind, ascending, without the lock page. */
export interface ChangedPages {
  readonly count: number;
  pgno(index: number): number;
  /** Finished CRC of the page frame, without FLAG. */
  crcHi(index: number): number;
  crcLo(index: number): number;
  /** The page's bytes, valid until the next call. */
  page(index: number): Uint8Array;
  /** Where in those bytes the page starts. Read after `page`. */
  pageStart: number;
}

/** Where in the application's WAL a transaction came from; zeros for any other origin. */
export interface WalRange {
  readonly offsetBytes: number;
  readonly sizeBytes: number;
  readonly salt1: number;
  readonly salt2: number;
}

export const NO_WAL_RANGE: WalRange = { offsetBytes: 0, sizeBytes: 0, salt1: 0, salt2: 0 };

export interface Commit {
  readonly pages: ChangedPages;
  readonly pageSize: number;
  /** Size of the database in pages after the transaction. */
  readonly pageCount: number;
  readonly wal: WalRange;
  readonly timestampMs: number;
  readonly nodeId: bigint;
  /** Why it may not be acknowledged any more. */
  refusal(): LitefsError | undefined;
  /**
   * `pages` are all pages of the database, and the old ones are gone: the checksum is computed
   * from these alone.
   */
  readonly absolute?: true;
}

/** What a commit comes to: the headers of its LTX file, and the pages that go with it. */
interface Plan {
  readonly header: LtxHeader;
  readonly postHi: number;
  readonly postLo: number;
  readonly gap: GapPages;
}

/**
 * Appends a transaction to the log: computes the new database checksum from the old checksums of
 * the pages it touches, and writes the LTX. Returns false when nothing has changed, which is what
 * a rollback leaves behind: then there is no transaction. Throws when the log cannot be written;
 * the log then is as before. The page store is not touched: the caller does that after success.
 */
export function appendCommit(store: PageStore, log: TransactionLog, commit: Commit): boolean {
  const plan = planCommit(store, log, commit);
  if (plan === undefined) return false;
  const mark = log.mark();
  try {
    const writer = log.begin(plan.header);
    writePages(plan, commit.pages, writer);
    log.finish(writer, plan.header, plan.postHi, plan.postLo);
    const refusal = commit.refusal();
    if (refusal !== undefined) throw refusal;
  } catch (error) {
    log.truncateTo(mark);
    throw error;
  }
  return true;
}

/** An LTX file made for another node, which decides whether it becomes a transaction. */
export interface EncodedCommit {
  readonly header: LtxHeader;
  readonly postHi: number;
  readonly postLo: number;
}

/** Encodes a transaction without appending it; undefined when nothing has changed. */
export function encodeCommit(
  store: PageStore,
  log: TransactionLog,
  commit: Commit,
  sink: (bytes: Uint8Array) => void,
): EncodedCommit | undefined {
  const plan = planCommit(store, log, commit);
  if (plan === undefined) return undefined;
  const { header, postHi, postLo } = plan;
  const encoder = new LtxEncoder(sink);
  encoder.writeHeader(header);
  const { pageSize } = header;
  writePages(plan, commit.pages, {
    addPage: (pgno, page, start, crcHi, crcLo) =>
      encoder.writePage(pgno, page.subarray(start, start + pageSize), crcHi, crcLo),
  });
  encoder.close(halvesToBigint(postHi, postLo));
  return { header, postHi, postLo };
}

/** Undefined when nothing has changed. */
function planCommit(store: PageStore, log: TransactionLog, commit: Commit): Plan | undefined {
  const { pageCount } = commit;
  const gap = new GapPages(store, commit);
  const delta = checksumDelta(store, commit, gap);
  const absolute = log.txid === 0 || commit.absolute === true;
  const postHi = (absolute ? delta.hi : log.checksumHi ^ delta.hi) | CHECKSUM_FLAG_HI;
  const postLo = absolute ? delta.lo : log.checksumLo ^ delta.lo;
  // Equal checksums prove nothing where two pages changed alike: CRCs are linear, and XOR takes them
  // away. Only page by page can be told that all is as it was.
  const isSame = commit.absolute !== true && !delta.changed && pageCount === store.pageCount;
  if (isSame && log.txid > 0) return undefined;
  const header: LtxHeader = {
    flags: 0,
    pageSize: commit.pageSize,
    commit: pageCount,
    minTxid: log.txid + 1,
    maxTxid: log.txid + 1,
    timestampMs: commit.timestampMs,
    preApplyChecksum: log.txid === 0 ? 0n : halvesToBigint(log.checksumHi, log.checksumLo),
    walOffset: commit.wal.offsetBytes,
    walSize: commit.wal.sizeBytes,
    walSalt1: commit.wal.salt1,
    walSalt2: commit.wal.salt2,
    nodeId: commit.nodeId,
  };
  return { header, postHi, postLo, gap };
}

interface PageWriter {
  addPage(pgno: number, page: Uint8Array, start: number, crcHi: number, crcLo: number): void;
}

/** In ascending order: the pages of the transaction, and between them those of its gaps. */
function writePages({ gap }: Plan, pages: ChangedPages, writer: PageWriter): void {
  let next = 0;
  for (const pgno of gap.pgnos) {
    for (; next < pages.count && pages.pgno(next) < pgno; next++) write(next);
    gap.load(pgno);
    writer.addPage(pgno, gapPage, 0, crc.hi, crc.lo);
  }
  for (; next < pages.count; next++) write(next);

  function write(index: number): void {
    const page = pages.page(index);
    writer.addPage(
      pages.pgno(index),
      page,
      pages.pageStart,
      pages.crcHi(index),
      pages.crcLo(index),
    );
  }
}

/** The pages of a transaction that is in the log become the committed ones. */
export function adoptPages(store: PageStore, pages: ChangedPages, pageCount: number): void {
  const { checksums } = store;
  for (let i = 0; i < pages.count; i++) {
    checksums.set(pages.pgno(i), pages.crcHi(i) | CHECKSUM_FLAG_HI, pages.crcLo(i));
  }
  if (pageCount < store.pageCount) checksums.truncate(pageCount);
  store.pageCount = pageCount;
}

interface Delta {
  readonly changed: boolean;
  readonly hi: number;
  readonly lo: number;
}

/** XOR of what leaves the database checksum and what enters it. */
function checksumDelta(store: PageStore, commit: Commit, gap: GapPages): Delta {
  const { pages, pageCount } = commit;
  const fresh = gap.isFresh || commit.absolute === true;
  let hi = 0;
  let lo = 0;
  let changed = false;
  for (let i = 0; i < pages.count; i++) {
    const pgno = pages.pgno(i);
    const newHi = pages.crcHi(i) | CHECKSUM_FLAG_HI;
    const newLo = pages.crcLo(i);
    if (!fresh && pgno <= store.pageCount) {
      store.loadChecksum(pgno);
      if (store.checksums.hi === newHi && store.checksums.lo === newLo) continue;
      hi ^= store.checksums.hi;
      lo ^= store.checksums.lo;
    }
    hi ^= newHi;
    lo ^= newLo;
    changed = true;
  }
  for (const pgno of gap.pgnos) {
    gap.load(pgno);
    hi ^= crc.hi;
    lo ^= crc.lo;
    changed = true;
  }
  if (fresh) return { changed, hi, lo };
  const cut = store.checksumBeyond(pageCount);
  return { changed: changed || pageCount < store.pageCount, hi: hi ^ cut.hi, lo: lo ^ cut.lo };
}

/**
 * Pages that must be in the LTX although the transaction did not write them: those by which the
 * database grew over unwritten space, and, in a first transaction, everything that was there.
 */
class GapPages {
  readonly pgnos: readonly number[];
  /** The first transaction of a database is a snapshot of it. */
  readonly isFresh: boolean;
  readonly #store: PageStore;

  constructor(store: PageStore, commit: Commit) {
    this.#store = store;
    this.isFresh = store.pageCount === 0;
    const first = this.isFresh ? 1 : store.pageCount + 1;
    const skip = lockPgno(commit.pageSize);
    const pgnos: number[] = [];
    let next = 0;
    for (let pgno = first; pgno <= commit.pageCount && commit.absolute !== true; pgno++) {
      while (next < commit.pages.count && commit.pages.pgno(next) < pgno) next++;
      if (next < commit.pages.count && commit.pages.pgno(next) === pgno) continue;
      if (pgno !== skip) pgnos.push(pgno);
    }
    this.pgnos = pgnos;
  }

  /** Leaves the page in gapPage and its CRC in crc. */
  load(pgno: number): void {
    this.#store.readPage(pgno, gapPage, 0);
    pageCrc(crc, pgno, gapPage, 0, this.#store.pageSize);
  }
}
