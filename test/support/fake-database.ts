import { createHash } from "node:crypto";
import type { DatabaseState, DatabaseStatus } from "../../src/database/engine.ts";
import { type Position, positionsEqual, ZERO_POSITION } from "../../src/lib/position.ts";
import { Crc64, pageCrc } from "../../src/ltx/crc64.ts";
import { DatabaseChecksum } from "../../src/ltx/database-checksum.ts";
import { decodeLtx } from "../../src/ltx/decode-ltx.ts";
import { encodeLtx, type LtxPage } from "../../src/ltx/encode-ltx.ts";
import { isSnapshot, type LtxHeader } from "../../src/ltx/header.ts";
import { lockPgno } from "../../src/ltx/lock-page.ts";

/** One transaction of the log, decoded once and uncompressed. */
export interface FakeTransaction {
  readonly header: LtxHeader;
  readonly pages: readonly LtxPage[];
  readonly post: Position;
  readonly ltx: Uint8Array;
}

export function fakeTransaction(bytes: Uint8Array): FakeTransaction {
  const { header, pages, trailer } = decodeLtx(bytes);
  const plain = { ...header, flags: 0 };
  const copies = pages.map(({ pgno, data }) => ({ pgno, data: data.slice() }));
  return {
    header: plain,
    pages: copies,
    post: { txid: header.maxTxid, checksum: trailer.postApplyChecksum },
    ltx: encodeLtx(plain, copies, trailer.postApplyChecksum),
  };
}

/** A database as pages in memory, with the log that made it. */
export class FakeDatabase {
  readonly name: string;
  /** By first TXID. Entries may be taken out, as retention does. */
  readonly log: Map<number, FakeTransaction> = new Map();
  pages: Map<number, Uint8Array> = new Map();
  position: Position = ZERO_POSITION;
  pageSize = 0;
  pageCount = 0;
  timestampMs = 0;
  status: DatabaseStatus = "ok";
  reason = "";
  isDiskFailure = false;
  commits = 0;

  constructor(name: string) {
    this.name = name;
  }

  state(): DatabaseState {
    const { name, status, reason, position, pageSize, pageCount, timestampMs } = this;
    const counters = {
      databaseWrites: 0,
      journalWrites: 0,
      walWrites: 0,
      shmWrites: 0,
      commits: this.commits,
      ltxCount: this.log.size,
      ltxBytes: 0,
      ltxReaped: 0,
      quarantines: 0,
      heals: 0,
      divergedHistories: 0,
    };
    const { isDiskFailure } = this;
    const about = { name, status, reason, isDiskFailure };
    return { ...about, position, pageSize, pageCount, timestampMs, counters };
  }

  /** Undefined when applied, otherwise why it cannot be. */
  apply(transaction: FakeTransaction): string | undefined {
    const { header, post } = transaction;
    if (!isSnapshot(header)) {
      const before = { txid: header.minTxid - 1, checksum: header.preApplyChecksum };
      if (!positionsEqual(before, this.position)) return "it does not continue the local position";
    }
    const pages = isSnapshot(header) ? new Map<number, Uint8Array>() : new Map(this.pages);
    for (const { pgno, data } of transaction.pages) pages.set(pgno, data);
    for (const pgno of pages.keys()) if (pgno > header.commit) pages.delete(pgno);
    if (checksumOf(pages) !== post.checksum) return "its checksum is wrong after applying it";
    if (isSnapshot(header)) this.log.clear();
    this.log.set(header.minTxid, transaction);
    this.pages = pages;
    this.position = post;
    this.pageSize = header.pageSize;
    this.pageCount = header.commit;
    this.timestampMs = header.timestampMs;
    this.status = header.commit === 0 ? "deleted" : "ok";
    return undefined;
  }

  /** The next transaction, as a commit of SQLite would make it. `commit` 0 deletes. */
  commit(pages: readonly LtxPage[], commit: number, pageSize: number, timestampMs: number): void {
    const after = new Map(this.pages);
    for (const { pgno, data } of pages) after.set(pgno, data);
    for (const pgno of after.keys()) if (pgno > commit) after.delete(pgno);
    const header: LtxHeader = {
      flags: 0,
      pageSize,
      commit,
      minTxid: this.position.txid + 1,
      maxTxid: this.position.txid + 1,
      timestampMs,
      preApplyChecksum: this.position.checksum,
      walOffset: 0,
      walSize: 0,
      walSalt1: 0,
      walSalt2: 0,
      nodeId: 1n,
    };
    const problem = this.apply(fakeTransaction(encodeLtx(header, pages, checksumOf(after))));
    if (problem !== undefined) throw new Error(problem);
    this.commits += 1;
  }

  image(): Uint8Array {
    const image = new Uint8Array(this.pageCount * this.pageSize);
    for (const [pgno, data] of this.pages) image.set(data, (pgno - 1) * this.pageSize);
    return image;
  }

  sha256(): string {
    return createHash("sha256").update(this.image()).digest("hex");
  }

  /** In ascending order, without the lock page. */
  sortedPages(): LtxPage[] {
    const skipped = this.pageSize === 0 ? 0 : lockPgno(this.pageSize);
    return [...this.pages]
      .filter(([pgno]) => pgno !== skipped)
      .sort(([a], [b]) => a - b)
      .map(([pgno, data]) => ({ pgno, data }));
  }
}

export function checksumOf(pages: ReadonlyMap<number, Uint8Array>): bigint {
  const sum = new DatabaseChecksum();
  const crc = new Crc64();
  for (const [pgno, data] of pages) {
    pageCrc(crc, pgno, data, 0, data.length);
    sum.toggle(crc.hi, crc.lo);
  }
  return sum.toBigint();
}
