import type { Database } from "../../../../src/database/database.ts";
import type { FileKind } from "../../../../src/database/database-files.ts";
import { lockPgno } from "../../../../src/sqlite/locks.ts";
import {
  encodeWalHeader,
  FRAME_HEADER_SIZE,
  frameOffset,
  scanWal,
  sealFrame,
  WAL_HEADER_SIZE,
  WalChecksum,
} from "../../../../src/sqlite/wal.ts";
import type { WalHeader } from "../../../../src/sqlite/wal.ts";
import { isHotJournalHeader, readJournal } from "../../../../src/sqlite/journal.ts";
import { FakeDisk, PowerCut } from "./fake-disk.ts";
import { JournalWriter } from "./journal-writer.ts";
import { adoptCounter } from "./adopt-counter.ts";
import { Content, IoFailure } from "./pager-types.ts";
import type { Attempt, JournalMode, Synchronous } from "./pager-types.ts";
import type { TransactionOptions, WalTransactionState } from "./pager-types.ts";
import type { Random } from "./fake-disk.ts";

export { Content, IoFailure } from "./pager-types.ts";
export type { Attempt, JournalMode, Synchronous, TransactionOptions } from "./pager-types.ts";

/**
 * Does to a Database what SQLite's pager does to its files, write for write, and keeps what is
 * committed. One connection; locks and the wal-index are not its business.
 */
export class MiniPager {
  readonly db: Database;
  pageSize: number;
  random: Random;
  #bigEndian: boolean;
  mode: JournalMode;
  synchronous: Synchronous;
  committed: Content = new Content();
  changeCounter: number = 0;
  /** What the transaction under way makes of the database, from before its first write on. */
  attempt: Attempt | undefined;
  /** Called before each request; what it throws is the end of the process. */
  beforeIo: () => void = () => undefined;
  /** The database has moved, and the application is about to be told. */
  onCommit: () => void = () => undefined;

  // The WAL as SQLite's wal-index would have it.
  #walHeader: WalHeader | undefined;
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
    this.random = random;
    this.pageSize = options.pageSize;
    this.mode = options.mode ?? "delete";
    this.synchronous = options.synchronous ?? "full";
    this.#bigEndian = options.bigEndian ?? false;
  }

  /** What other nodes say to a commit that waits for them. */
  waitForOthers: () => string = () => "later";

  // The files, as the kernel would hand them on.

  #io(action: () => string): void {
    this.beforeIo();
    let outcome: string;
    try {
      outcome = action();
    } catch (error) {
      if (error instanceof PowerCut || !(error instanceof Error && "errno" in error)) throw error;
      outcome = error.message;
    }
    if (outcome === "later") outcome = this.waitForOthers();
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
      for (let i = 0; i < page.length; i += 8) page[i] = this.random.below(256);
      pages.set(pgno, page);
    }
    const first = pages.get(1);
    if (first !== undefined) this.#stamp(first, pageCount);
    return pages;
  }

  #stamp(page: Uint8Array, pageCount: number, pageSize: number = this.pageSize): void {
    this.changeCounter++;
    const view = new DataView(page.buffer, page.byteOffset);
    page.set(new TextEncoder().encode("SQLite format 3\0"), 0);
    view.setUint16(16, pageSize === 65536 ? 1 : pageSize);
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
    const isLoose = this.mode === "memory";
    this.attempt = { content: next, pageSize: this.pageSize, written: pages, isLoose };
    const isDone = this.#run(pages, next, options);
    this.attempt = undefined;
    return isDone;
  }

  #run(pages: Map<number, Uint8Array>, next: Content, options: TransactionOptions): boolean {
    if (this.mode === "wal") return this.#walTransaction(pages, next, options);
    if (this.mode === "memory") return this.#memoryTransaction(pages, next, options);
    return this.#rollbackTransaction(pages, next, options);
  }

  #commit(next: Content): void {
    this.committed = next;
    this.onCommit();
  }

  /** VACUUM after `PRAGMA page_size`: new pages, written through the pager in pages of the old size. */
  vacuum(pageSize: number, pageCount: number): void {
    const next = new Content();
    next.pageCount = pageCount;
    const image = new Uint8Array(pageSize * pageCount);
    for (let i = 0; i < image.length; i += 8) image[i] = this.random.below(256);
    this.#stamp(image.subarray(0, pageSize), pageCount, pageSize);
    for (let pgno = 1; pgno <= pageCount; pgno++) {
      next.pages.set(pgno, image.slice((pgno - 1) * pageSize, pgno * pageSize));
    }
    const written = new Content();
    written.pageCount = image.length / this.pageSize;
    for (let pgno = 1; pgno <= written.pageCount; pgno++) {
      written.pages.set(pgno, image.slice((pgno - 1) * this.pageSize, pgno * this.pageSize));
    }
    this.attempt = { content: next, pageSize, written: next.pages };
    const options = { pgnos: [], pageCount: written.pageCount, spillEvery: 3 };
    this.#rollbackTransaction(written.pages, written, options, () => {
      adoptCounter(this, next.pages, next);
      this.pageSize = pageSize;
      this.#commit(next);
    });
    this.attempt = undefined;
  }

  /** Another process opens what the one before has left, as SQLite does. */
  reopen(committed: Content, pageSize: number): void {
    this.committed = committed;
    this.pageSize = pageSize;
    const first = committed.pages.get(1);
    if (first !== undefined) {
      this.changeCounter = new DataView(first.buffer, first.byteOffset).getUint32(24);
    }
    this.#rollBackFromJournal();
    // What the file says counts, even if the WAL knows better; but a WAL that is there is used.
    const header = new Uint8Array(20);
    this.db.files.get("database")?.readAt(header, 0, header.length, 0);
    const hasWal = this.db.files.exists("wal") && this.db.files.size("database") > 0;
    if (header[18] === 2 || hasWal) this.mode = "wal";
    else if (this.mode === "wal") this.mode = "delete";
    this.#undoWal(0);
    this.#backfilled = 0;
    this.#walHeader = undefined;
    const wal = this.db.files.get("wal");
    if (wal === undefined) return;
    const sums: (readonly [number, number])[] = [];
    const scan = scanWal(wal, wal.size(), (frame) => {
      sums.push([frame.checksum1, frame.checksum2]);
    });
    if (scan === undefined) return;
    this.#walHeader = scan.header;
    this.#bigEndian = scan.header.bigEndianChecksum;
    this.#checkpointSequence = scan.header.checkpointSequence + 1;
    this.#frames = [...scan.pgnos.subarray(0, scan.committedFrames)];
    this.#sums = sums.slice(0, scan.committedFrames);
  }

  #rollBackFromJournal(): void {
    const journal = this.db.files.get("journal");
    if (journal === undefined) return;
    const pages: (readonly [number, Uint8Array])[] = [];
    const scan = readJournal(journal, journal.size(), this.pageSize, (pgno, page) => {
      pages.push([pgno, page.slice()]);
    });
    if (scan === undefined) return;
    for (const [pgno, page] of pages) this.#write("database", (pgno - 1) * page.length, page);
    this.#truncate("database", scan.initialPageCount * scan.pageSize);
    this.#sync("database");
    this.#io(() => this.db.unlink("journal"));
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
            return [pgno, this.random.chance(0.5) ? page.map((b) => b ^ 1) : page] as const;
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
    this.#fillGaps(pages, next);
    this.#commit(next);
    if (this.synchronous === "full") this.#sync("wal");
    return true;
  }

  /** Free pages: SQLite never reads them, so whatever lies there is right. */
  #fillGaps(pages: Map<number, Uint8Array>, next: Content): void {
    for (let pgno = this.committed.pageCount + 1; pgno <= next.pageCount; pgno++) {
      if (pages.has(pgno) || pgno === lockPgno(this.pageSize)) continue;
      const page = new Uint8Array(this.pageSize);
      this.db.store.readPage(pgno, page, 0);
      next.pages.set(pgno, page);
    }
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
        salt1: ((this.#walHeader?.salt1 ?? this.random.below(1e9)) + 1) >>> 0,
        salt2: this.random.below(2 ** 32),
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
    commit: () => void = () => this.#commit(next),
  ): boolean {
    const before = this.committed;
    const journal = new JournalWriter(before.pageCount, this.pageSize, this.random.below(2 ** 32));
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
          this.#hideStaleHeader(journal.endOffset);
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
        if (next.pageCount > before.pageCount) this.#fillGaps(pages, next);
        adoptCounter(this, pages, next);
        commit();
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

  /** What follows in the file may be a header of an earlier transaction (syncJournal). */
  #hideStaleHeader(offset: number): void {
    const bytes = new Uint8Array(8);
    const count = this.db.files.get("journal")?.readAt(bytes, 0, bytes.length, offset) ?? 0;
    if (count === bytes.length && isHotJournalHeader(bytes)) {
      this.#write("journal", offset, new Uint8Array(1));
    }
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
      this.#sync("journal");
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
    if (next.pageCount > this.committed.pageCount) this.#fillGaps(pages, next);
    adoptCounter(this, pages, next);
    this.#commit(next);
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
    // Corrected at the beginning of each transaction (sqlite3BtreeBeginTrans).
    view.setUint32(28, this.committed.pageCount);
    view.setUint32(92, this.changeCounter);
    page[18] = page[19] = mode === "wal" ? 2 : 1;
    next.pages.set(1, page);
    try {
      if (this.mode === "memory") this.mode = "delete";
      this.attempt = { content: next, pageSize: this.pageSize, written: new Map([[1, page]]) };
      this.#rollbackTransaction(new Map([[1, page]]), next, { pgnos: [1], pageCount: 0 });
      this.attempt = undefined;
      this.mode = mode;
    } catch (error) {
      this.mode = before;
      throw error;
    }
    if (this.db.files.exists("journal")) this.#io(() => this.db.unlink("journal"));
  }

  drop(): void {
    this.attempt = { content: new Content(), pageSize: 0, written: new Map() };
    this.#io(() => this.db.unlink("database"));
    this.attempt = undefined;
    this.#commit(new Content());
    this.#frames = [];
    this.#sums = [];
    this.#backfilled = 0;
    this.#walHeader = undefined;
  }
}
