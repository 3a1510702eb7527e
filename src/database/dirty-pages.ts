import { CHECKSUM_FLAG_HI, Crc64, pageCrc } from "../ltx/crc64.ts";
import { readUint32BE } from "../sqlite/uint.ts";
import { COUNTER_OFFSET, setCounter } from "./change-counter.ts";
import type { ChangedPages } from "./commit.ts";
import type { PageStore } from "./page-store.ts";

const crc = new Crc64();
const scratch = new Uint8Array(65536);

/**
 * Pages of the database file that were written since a rollback journal was opened. The committed
 * checksum of each is fixed before its first write, so at the end a page that is as it was (the
 * journal was played back) counts for nothing.
 *
 * About 100 bytes of memory per page; the pages themselves stay in the file.
 */
export class DirtyPages implements ChangedPages {
  readonly #store: PageStore;
  readonly #pgnos = new Set<number>();
  /**
   * The writes did not follow the known page size, or the journal is of another database: what
   * changed can only be found by reading everything.
   */
  isWhole = false;
  /** The application has asked for a sync of the database file since the last write. */
  synced = false;
  /** The change counter that the database had before the transaction. */
  #counterBefore = 0;
  #counterWritten = 0;
  /** What the transaction leaves behind instead of SQLite's; set between `seal` and `reset`. */
  #counter: number | undefined;

  #order: number[] = [];
  #crcs = new Int32Array(0);
  count = 0;
  readonly pageStart = 0;

  constructor(store: PageStore) {
    this.#store = store;
  }

  get isEmpty(): boolean {
    return this.#pgnos.size === 0 && !this.isWhole;
  }

  /** Pages written; meaningless once it is the whole database. */
  get size(): number {
    return this.#pgnos.size;
  }

  /** Called before `lengthBytes` at an offset of the database file are overwritten. */
  beforeWrite(offset: number, lengthBytes: number): void {
    const { pageSize, pageCount } = this.#store;
    this.synced = false;
    if (this.isWhole) return;
    if (pageSize === 0) {
      this.#becomeWhole();
      return;
    }
    const first = Math.floor(offset / pageSize) + 1;
    const last = Math.floor((offset + lengthBytes - 1) / pageSize) + 1;
    for (let pgno = first; pgno <= last; pgno++) {
      if (this.#pgnos.has(pgno)) continue;
      if (pgno <= pageCount) {
        this.#store.loadChecksum(pgno);
        this.#store.preserve(pgno);
        if (pgno === 1) this.#counterBefore = this.#readCounter();
      }
      this.#pgnos.add(pgno);
    }
  }

  /** Called before the database file is cut to a size. */
  beforeTruncate(sizeBytes: number): void {
    const { pageSize, pageCount } = this.#store;
    this.synced = false;
    if (pageSize === 0 || this.isWhole) return;
    for (let pgno = Math.floor(sizeBytes / pageSize) + 1; pgno <= pageCount; pgno++) {
      if (pgno === this.#store.lockPgno) continue;
      this.#store.loadChecksum(pgno);
      this.#store.preserve(pgno);
      this.#pgnos.add(pgno);
    }
  }

  #becomeWhole(): void {
    this.isWhole = true;
    this.#store.abandonSnapshots();
  }

  markWhole(): void {
    if (!this.isWhole) this.#becomeWhole();
  }

  reset(): void {
    this.#pgnos.clear();
    this.#order = [];
    this.#crcs = new Int32Array(0);
    this.isWhole = false;
    this.synced = false;
    this.#counter = undefined;
    this.count = 0;
  }

  /** Reads what the pages hold now. The committed view must not include them yet. */
  seal(pageCount: number): void {
    const { pageSize, lockPgno } = this.#store;
    const order = [...this.#pgnos].filter((pgno) => pgno <= pageCount && pgno !== lockPgno);
    order.sort((a, b) => a - b);
    this.#order = order;
    this.#crcs = new Int32Array(order.length * 2);
    for (const [index, pgno] of order.entries()) {
      this.#read(pgno);
      if (pgno === 1) this.#counterWritten = readUint32BE(scratch, COUNTER_OFFSET);
      pageCrc(crc, pgno, scratch, 0, pageSize);
      this.#crcs[index * 2] = crc.hi;
      this.#crcs[index * 2 + 1] = crc.lo;
    }
    this.count = order.length;
  }

  /** Whether anything is not as it was; after a rollback nothing is. Sealed pages only. */
  get isChanged(): boolean {
    const { checksums, pageCount } = this.#store;
    for (let i = 0; i < this.count; i++) {
      const pgno = this.pgno(i);
      if (pgno > pageCount) return true;
      this.#store.loadChecksum(pgno);
      const isSame =
        checksums.hi === (this.crcHi(i) | CHECKSUM_FLAG_HI) && checksums.lo === this.crcLo(i);
      if (!isSame) return true;
    }
    return false;
  }

  /** The change counter before the transaction, and as SQLite has left it. */
  get counterBefore(): number {
    return this.#pgnos.has(1) ? this.#counterBefore : this.#readCounter();
  }
  get counterWritten(): number {
    return this.#pgnos.has(1) ? this.#counterWritten : this.#readCounter();
  }
  /** What `setCounter` has put in its place. */
  get counter(): number | undefined {
    return this.#counter;
  }

  /**
   * The transaction leaves another change counter behind. The file still has SQLite's, so that what
   * fails from here on can be rolled back by a journal which may not have this page.
   */
  setCounter(counter: number, pageCount: number): void {
    if (!this.#pgnos.has(1)) this.beforeWrite(0, 1);
    this.#counter = counter;
    this.seal(pageCount);
  }

  #readCounter(): number {
    this.#store.readDatabasePage(1, scratch, 0);
    return readUint32BE(scratch, COUNTER_OFFSET);
  }

  pgno(index: number): number {
    return this.#order[index] ?? 0;
  }
  crcHi(index: number): number {
    return this.#crcs[index * 2] ?? 0;
  }
  crcLo(index: number): number {
    return this.#crcs[index * 2 + 1] ?? 0;
  }
  page(index: number): Uint8Array {
    this.#read(this.pgno(index));
    return scratch;
  }

  #read(pgno: number): void {
    const count = this.#store.readDatabasePage(pgno, scratch, 0);
    if (count < this.#store.pageSize) scratch.fill(0, count, this.#store.pageSize);
    if (pgno === 1 && this.#counter !== undefined) setCounter(scratch, this.#counter);
  }
}
