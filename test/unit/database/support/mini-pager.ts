import type { Database } from "../../../../src/database/database.ts";
import type { FileKind } from "../../../../src/database/database-files.ts";
import { encodeJournalHeader, journalPageChecksum } from "../../../../src/sqlite/journal.ts";
import { lockPgno } from "../../../../src/sqlite/locks.ts";
import {
  encodeWalHeader,
  FRAME_HEADER_SIZE,
  frameOffset,
  sealFrame,
  WAL_HEADER_SIZE,
  WalChecksum,
} from "../../../../src/sqlite/wal.ts";
import { FakeDisk, PowerCut } from "./fake-disk.ts";
import type { Random } from "./fake-disk.ts";

const SECTOR = 512;

/** SQLite was told of an error. */
export class IoFailure extends Error {
  override readonly name = "IoFailure";
}

export type JournalMode = "delete" | "truncate" | "persist" | "memory" | "wal";
export type Synchronous = "off" | "normal" | "full";

/** What a database holds: pages by number, from 1. */
export class Content {
  readonly pages: Map<number, Uint8Array> = new Map<number, Uint8Array>();
  pageCount: number = 0;
  copy(): Content {
    const copy = new Content();
    for (const [pgno, page] of this.pages) copy.pages.set(pgno, page);
    copy.pageCount = this.pageCount;
    return copy;
  }
  page(pgno: number, pageSize: number): Uint8Array {
    return this.pages.get(pgno) ?? new Uint8Array(pageSize);
  }
}

export interface TransactionOptions {
  /** Page numbers to change; those beyond the end are new pages. */
  readonly pgnos: readonly number[];
  /** Size afterwards. */
  readonly pageCount: number;
  /** Pages after which the cache is full and what is dirty goes out early; 0: never. */
  readonly spillEvery?: number;
  readonly rollBack?: boolean;
}

/**
 * Does to a Database what SQLite's pager does to its files, write for write, and keeps what is
 * committed. One connection; locks and the wal-index are not its business.
 */
export class MiniPager {
  readonly db: Database;
  readonly pageSize: number;
  readonly #random: Random;
  readonly #bigEndian: boolean;
  mode: JournalMode;
  synchronous: Synchronous;
  committed: Content = new Content();
  /** Content of which the application was told that it is durable. */
  changeCounter: number = 0;

  // The WAL as SQLite's wal-index would have it.
  #walHeader: ReturnType<typeof encodeWalHeader> | undefined;
  #checkpointSequence = 0;
  #frames: number[] = [];
  #sums: (readonly [number, number])[] = [];
  #backfilled = 0;

  constructor(
    db: Database,
    random: Random,
    options: {
      pageSize: number;
      mode?: JournalMode;
      synchronous?: Synchronous;
      bigEndian?: boolean;
    },
  ) {
    this.db = db;
    this.#random = random;
    this.pageSize = options.pageSize;
    this.mode = options.mode ?? "delete";
    this.synchronous = options.synchronous ?? "full";
    this.#bigEndian = options.bigEndian ?? false;
  }

  // The files, as the kernel would hand them on.

  #io(action: () => string): void {
    let outcome: string;
    try {
      outcome = action();
    } catch (error) {
      if (error instanceof PowerCut || !(error instanceof Error && "errno" in error)) throw error;
      outcome = error.message;
    }
    if (outcome === "ok") return;
    const { files } = this.db.files;
    if (files instanceof FakeDisk && files.isDead) throw new PowerCut(outcome);
    throw new IoFailure(outcome);
  }
  #write(kind: FileKind, offset: number, data: Uint8Array): void {
    // The request buffer is longer than the data and is reused at once.
    const request = new Uint8Array(data.length + 64).fill(0xee);
    request.set(data, 40);
    this.#io(() => this.db.write(kind, offset, request, 40, data.length));
    request.fill(0xdd);
  }
  #truncate(kind: FileKind, size: number): void {
    this.#io(() => this.db.truncate(kind, size));
  }
  #sync(kind: FileKind): void {
    if (this.synchronous !== "off") this.#io(() => this.db.sync(kind));
  }
  #create(kind: FileKind): void {
    this.#io(() => (this.db.files.getOrCreate(kind), "ok"));
  }

  /** New versions of the pages of a transaction, page 1 with its header among them. */
  #newPages({ pgnos, pageCount }: TransactionOptions): Map<number, Uint8Array> {
    const pages = new Map<number, Uint8Array>();
    const wanted = new Set(pgnos.filter((pgno) => pgno !== lockPgno(this.pageSize)));
    const isWal = this.mode === "wal";
    if (!isWal || pageCount !== this.committed.pageCount) wanted.add(1);
    for (const pgno of [...wanted].sort((a, b) => a - b)) {
      const page = new Uint8Array(this.pageSize);
      for (let i = 0; i < page.length; i += 64) page[i] = this.#random.below(256);
      pages.set(pgno, page);
    }
    const first = pages.get(1);
    if (first !== undefined) this.#stamp(first, pageCount);
    return pages;
  }

  #stamp(page: Uint8Array, pageCount: number): void {
    this.changeCounter++;
    const view = new DataView(page.buffer, page.byteOffset);
    page.set(new TextEncoder().encode("SQLite format 3\0"), 0);
    view.setUint16(16, this.pageSize === 65536 ? 1 : this.pageSize);
    page[18] = page[19] = this.mode === "wal" ? 2 : 1;
    page.set([0, 64, 32, 32], 20);
    view.setUint32(24, this.changeCounter);
    view.setUint32(28, pageCount);
    view.setUint32(92, this.changeCounter);
  }

  /** True when it was committed. Throws IoFailure when SQLite would report an error. */
  transaction(options: TransactionOptions): boolean {
    const pages = this.#newPages(options);
    const next = this.committed.copy();
    for (const [pgno, page] of pages) if (pgno <= options.pageCount) next.pages.set(pgno, page);
    for (const pgno of next.pages.keys()) if (pgno > options.pageCount) next.pages.delete(pgno);
    next.pageCount = options.pageCount;
    if (this.mode === "wal") return this.#walTransaction(pages, next, options);
    if (this.mode === "memory") return this.#memoryTransaction(pages, next, options);
    return this.#rollbackTransaction(pages, next, options);
  }

  // WAL.

  #walTransaction(
    pages: Map<number, Uint8Array>,
    next: Content,
    { spillEvery = 0, rollBack = false }: TransactionOptions,
  ): boolean {
    const mark = this.#frames.length;
    const transaction: WalTransactionState = { mark, written: new Map(), recheckFrom: -1 };
    try {
      const list = [...pages];
      if (spillEvery > 0) {
        for (let i = 0; i + spillEvery < list.length; i += spillEvery) {
          const early = list.slice(i, i + spillEvery).map(([pgno, page]) => {
            // What is spilled is often changed again before the commit.
            return [pgno, this.#random.chance(0.5) ? page.map((b) => b ^ 1) : page] as const;
          });
          this.#walFrames(early, 0, transaction);
        }
      }
      if (rollBack) {
        if (spillEvery === 0) return false;
        this.#walFrames(list, 0, transaction);
        this.#undoWal(mark);
        return false;
      }
      this.#walFrames(list, next.pageCount, transaction);
    } catch (error) {
      this.#undoWal(mark);
      throw error;
    }
    for (let pgno = this.committed.pageCount + 1; pgno <= next.pageCount; pgno++) {
      if (pages.has(pgno) || pgno === lockPgno(this.pageSize)) continue;
      // Free pages: SQLite never reads them, so whatever lies there is right.
      const page = new Uint8Array(this.pageSize);
      this.db.store.readPage(pgno, page, 0);
      next.pages.set(pgno, page);
    }
    this.committed = next;
    if (this.synchronous === "full") this.#sync("wal");
    return true;
  }

  #undoWal(mark: number): void {
    this.#frames.length = mark;
    this.#sums.length = mark;
  }

  #walFrames(
    list: readonly (readonly [number, Uint8Array])[],
    commit: number,
    transaction: WalTransactionState,
  ): void {
    if (this.#frames.length === 0) this.#startWal();
    const last = list.length - 1;
    for (const [i, [pgno, page]] of list.entries()) {
      const isCommitFrame = commit > 0 && i === last;
      const earlier = transaction.written.get(pgno);
      if (earlier !== undefined && !isCommitFrame) {
        this.#write("wal", frameOffset(earlier, this.pageSize) + FRAME_HEADER_SIZE, page);
        transaction.written.set(pgno, earlier);
        if (transaction.recheckFrom < 0 || earlier < transaction.recheckFrom) {
          transaction.recheckFrom = earlier;
        }
        transaction.content?.set(earlier, page);
        continue;
      }
      const frame = this.#frames.length;
      const bytes = this.#frame(frame, pgno, page, isCommitFrame ? commit : 0);
      if (transaction.recheckFrom >= 0) bytes.fill(0, 8, FRAME_HEADER_SIZE);
      const offset = frameOffset(frame, this.pageSize);
      this.#frames.push(pgno);
      transaction.written.set(pgno, frame);
      (transaction.content ??= new Map<number, Uint8Array>()).set(frame, page);
      (transaction.commits ??= new Map<number, number>()).set(frame, isCommitFrame ? commit : 0);
      this.#write("wal", offset, bytes.subarray(0, FRAME_HEADER_SIZE));
      this.#write("wal", offset + FRAME_HEADER_SIZE, page);
    }
    if (commit > 0 && transaction.recheckFrom >= 0) this.#rewriteChecksums(transaction);
  }

  #rewriteChecksums({ recheckFrom, content, commits }: WalTransactionState): void {
    for (let frame = recheckFrom; frame < this.#frames.length; frame++) {
      const page = content?.get(frame) ?? new Uint8Array(this.pageSize);
      const bytes = this.#frame(frame, this.#frames[frame] ?? 0, page, commits?.get(frame) ?? 0);
      this.#write("wal", frameOffset(frame, this.pageSize), bytes.subarray(0, FRAME_HEADER_SIZE));
    }
  }

  #frame(frame: number, pgno: number, page: Uint8Array, commit: number): Uint8Array {
    const header = this.#walHeader;
    if (header === undefined) throw new Error("no WAL");
    const bytes = new Uint8Array(FRAME_HEADER_SIZE + this.pageSize);
    bytes.set(page, FRAME_HEADER_SIZE);
    const checksum = new WalChecksum(this.#bigEndian);
    const [s0, s1] = this.#sums[frame - 1] ?? [header.checksum1, header.checksum2];
    checksum.set(s0, s1);
    const { salt1, salt2 } = header;
    sealFrame({ pgno, commit, salt1, salt2 }, checksum, this.pageSize, bytes, 0);
    this.#sums[frame] = [checksum.s0, checksum.s1];
    return bytes;
  }

  #startWal(): void {
    const bytes = new Uint8Array(WAL_HEADER_SIZE);
    const header = encodeWalHeader(
      {
        bigEndianChecksum: this.#bigEndian,
        pageSize: this.pageSize,
        checkpointSequence: this.#checkpointSequence++,
        salt1: ((this.#walHeader?.salt1 ?? this.#random.below(1e9)) + 1) >>> 0,
        salt2: this.#random.below(2 ** 32),
      },
      bytes,
      0,
    );
    if (!this.db.files.exists("wal")) this.#create("wal");
    this.#write("wal", 0, bytes);
    this.#walHeader = header;
    if (this.synchronous !== "off") this.#sync("wal");
  }

  /** Moves frames into the database file; all of them unless readers stand in the way. */
  checkpoint(upTo: number = this.#frames.length): void {
    const safeFrames = Math.min(upTo, this.#frames.length);
    if (this.#frames.length === 0 || this.#backfilled >= safeFrames) return;
    this.#sync("wal");
    const newest = new Map<number, number>();
    for (let i = 0; i < safeFrames; i++) newest.set(this.#frames[i] ?? 0, i);
    const wal = this.db.files.get("wal");
    for (const [pgno, frame] of [...newest].sort(([a], [b]) => a - b)) {
      if (frame < this.#backfilled || pgno > this.committed.pageCount) continue;
      const page = new Uint8Array(this.pageSize);
      const offset = frameOffset(frame, this.pageSize) + FRAME_HEADER_SIZE;
      wal?.readAt(page, 0, page.length, offset);
      this.#write("database", (pgno - 1) * this.pageSize, page);
    }
    if (safeFrames === this.#frames.length) {
      this.#truncate("database", this.committed.pageCount * this.pageSize);
      this.#sync("database");
    }
    this.#backfilled = safeFrames;
  }

  /** The next transaction starts the WAL over, if everything in it is in the database file. */
  restartWal(): void {
    if (this.#backfilled < this.#frames.length) return;
    this.#frames = [];
    this.#sums = [];
    this.#backfilled = 0;
  }

  /** `wal_checkpoint(TRUNCATE)`. */
  truncateWal(): void {
    this.checkpoint();
    this.restartWal();
    if (this.db.files.exists("wal")) this.#truncate("wal", 0);
  }

  /** The last connection closes. */
  closeWal(): void {
    this.checkpoint();
    if (this.db.files.exists("wal")) this.#io(() => this.db.unlink("wal"));
    this.restartWal();
    this.#walHeader = undefined;
  }

  // Rollback journals.

  #rollbackTransaction(
    pages: Map<number, Uint8Array>,
    next: Content,
    { spillEvery = 0, rollBack = false }: TransactionOptions,
  ): boolean {
    const before = this.committed;
    const journal = new JournalWriter(before.pageCount, this.pageSize, this.#random.below(2 ** 32));
    const noSync = this.synchronous === "off";
    this.#create("database");
    this.#create("journal");
    let touched = false;
    try {
      this.#write("journal", 0, journal.header(noSync));
      const list = [...pages];
      const step = spillEvery > 0 ? spillEvery : list.length;
      for (let i = 0; i < list.length; i += step) {
        const part = list.slice(i, i + step);
        for (const [pgno] of part) {
          if (pgno > before.pageCount) continue;
          for (const [offset, data] of journal.record(pgno, before.page(pgno, this.pageSize))) {
            this.#write("journal", offset, data);
          }
        }
        const isLast = i + step >= list.length;
        if (isLast && rollBack) break;
        if (!noSync) {
          if (this.synchronous === "full") this.#sync("journal");
          this.#write("journal", journal.headerOffset, journal.seal());
          this.#sync("journal");
        }
        touched = true;
        for (const [pgno, page] of part) {
          if (pgno > next.pageCount && isLast) continue;
          this.#write("database", (pgno - 1) * this.pageSize, page);
        }
        if (!isLast && !noSync) {
          this.#write("journal", journal.nextSegment(), journal.header(false));
        }
      }
      if (!rollBack) {
        const size = next.pageCount * this.pageSize;
        this.#extendFile(size);
        this.#sync("database");
        this.#endJournal();
        this.committed = next;
        // Only after the commit is the file cut (pager_end_transaction).
        if (this.db.files.size("database") > size) this.#truncate("database", size);
        return true;
      }
    } catch (error) {
      if (error instanceof IoFailure) {
        // The connection gives up; whoever comes next finds the journal hot.
        this.#isHot = touched || this.#isHot;
        if (!touched && this.db.files.exists("journal")) this.#endQuietly();
      }
      throw error;
    }
    // If this fails, whoever comes next does it.
    this.#isHot = touched;
    if (touched) this.#playBack();
    this.#endJournal();
    this.#isHot = false;
    return false;
  }

  /** The last page went to the free list unwritten: pager_truncate writes zeros there. */
  #extendFile(size: number): void {
    if (this.db.files.size("database") >= size) return;
    this.#write("database", size - this.pageSize, new Uint8Array(this.pageSize));
  }

  #isHot = false;

  #endQuietly(): void {
    try {
      this.#endJournal();
    } catch (error) {
      if (!(error instanceof IoFailure)) throw error;
    }
  }

  /** What the next opener does after a failure. */
  recoverHotJournal(): void {
    if (!this.#isHot) return;
    this.#playBack();
    this.#sync("database");
    this.#io(() => this.db.unlink("journal"));
    this.#isHot = false;
  }

  #playBack(): void {
    const { pageCount } = this.committed;
    for (let pgno = 1; pgno <= pageCount; pgno++) {
      if (pgno === lockPgno(this.pageSize)) continue;
      const page = this.committed.page(pgno, this.pageSize);
      this.#write("database", (pgno - 1) * this.pageSize, page);
    }
    this.#truncate("database", pageCount * this.pageSize);
    this.#sync("database");
  }

  #endJournal(): void {
    if (this.mode === "delete") this.#io(() => this.db.unlink("journal"));
    else if (this.mode === "truncate") {
      this.#truncate("journal", 0);
      if (this.synchronous === "full") this.#sync("journal");
    } else {
      this.#write("journal", 0, new Uint8Array(28));
      if (this.synchronous === "full") this.#sync("journal");
    }
  }

  // journal_mode=MEMORY: nothing tells where a transaction begins or ends but the locks.

  #memoryTransaction(
    pages: Map<number, Uint8Array>,
    next: Content,
    { rollBack = false }: TransactionOptions,
  ): boolean {
    if (rollBack) return false;
    this.#create("database");
    for (const [pgno, page] of pages) {
      if (pgno <= next.pageCount) this.#write("database", (pgno - 1) * this.pageSize, page);
    }
    this.#extendFile(next.pageCount * this.pageSize);
    this.#sync("database");
    const size = next.pageCount * this.pageSize;
    if (this.db.files.size("database") > size) this.#truncate("database", size);
    this.#io(() => this.db.endLooseWrites());
    this.committed = next;
    return true;
  }

  /** PRAGMA journal_mode. */
  changeMode(mode: JournalMode): void {
    if (mode === this.mode) return;
    if (this.mode === "wal") this.closeWal();
    const isWalChange = (mode === "wal") !== (this.mode === "wal");
    if (!isWalChange || this.committed.pageCount === 0) {
      if (this.db.files.exists("journal")) this.#io(() => this.db.unlink("journal"));
      this.mode = mode;
      return;
    }
    const before = this.mode;
    this.mode = mode === "wal" ? "delete" : mode;
    // Page 1 is stamped with the new versions, under a rollback journal in either direction.
    const next = this.committed.copy();
    const page = this.committed.page(1, this.pageSize).slice();
    this.changeCounter++;
    const view = new DataView(page.buffer);
    view.setUint32(24, this.changeCounter);
    view.setUint32(92, this.changeCounter);
    page[18] = page[19] = mode === "wal" ? 2 : 1;
    next.pages.set(1, page);
    try {
      if (this.mode === "memory") this.mode = "delete";
      this.#rollbackTransaction(new Map([[1, page]]), next, { pgnos: [1], pageCount: 0 });
      this.mode = mode;
    } catch (error) {
      this.mode = before;
      throw error;
    }
    if (this.db.files.exists("journal")) this.#io(() => this.db.unlink("journal"));
  }

  drop(): void {
    this.#io(() => this.db.unlink("database"));
    this.committed = new Content();
    this.#frames = [];
    this.#sums = [];
    this.#backfilled = 0;
    this.#walHeader = undefined;
  }
}

interface WalTransactionState {
  readonly mark: number;
  /** Frame of each page that this transaction has written already. */
  readonly written: Map<number, number>;
  recheckFrom: number;
  content?: Map<number, Uint8Array>;
  commits?: Map<number, number>;
}

/** Offsets and bytes of a rollback journal. */
class JournalWriter {
  readonly #pageCount: number;
  readonly #pageSize: number;
  readonly #nonce: number;
  headerOffset = 0;
  #offset = 0;
  #records = 0;

  constructor(pageCount: number, pageSize: number, nonce: number) {
    this.#pageCount = pageCount;
    this.#pageSize = pageSize;
    this.#nonce = nonce;
  }

  header(isHot: boolean): Uint8Array {
    const bytes = new Uint8Array(SECTOR);
    const header = {
      recordCount: isHot ? 0xffffffff : 0,
      nonce: this.#nonce,
      initialPageCount: this.#pageCount,
      sectorSize: SECTOR,
      pageSize: this.#pageSize,
    };
    encodeJournalHeader(header, bytes, 0);
    if (!isHot) bytes.fill(0, 0, 12);
    this.#offset = this.headerOffset + SECTOR;
    this.#records = 0;
    return bytes;
  }

  *record(pgno: number, page: Uint8Array): Generator<readonly [number, Uint8Array]> {
    const word = (value: number): Uint8Array => {
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setUint32(0, value);
      return bytes;
    };
    yield [this.#offset, word(pgno)];
    yield [this.#offset + 4, page];
    yield [
      this.#offset + 4 + page.length,
      word(journalPageChecksum(this.#nonce, page, 0, page.length)),
    ];
    this.#offset += page.length + 8;
    this.#records++;
  }

  /** Magic and count: from here on the journal is hot. */
  seal(): Uint8Array {
    const bytes = new Uint8Array(28);
    const header = {
      recordCount: this.#records,
      nonce: this.#nonce,
      initialPageCount: this.#pageCount,
      sectorSize: SECTOR,
      pageSize: this.#pageSize,
    };
    encodeJournalHeader(header, bytes, 0);
    return bytes.subarray(0, 12);
  }

  nextSegment(): number {
    this.headerOffset = Math.ceil(this.#offset / SECTOR) * SECTOR;
    return this.headerOffset;
  }
}
