import { randomBytes } from "node:crypto";
import {
  encodeWalHeader,
  FRAME_HEADER_SIZE,
  frameOffset,
  sealFrame,
  WAL_HEADER_SIZE,
  WalChecksum,
} from "../sqlite/wal.ts";
import type { WalHeader } from "../sqlite/wal.ts";
import {
  decodeWalIndexHeaderPair,
  encodeWalCheckpointInfo,
  encodeWalIndexHeader,
  READ_MARK_NOT_USED,
  WAL_CHECKPOINT_INFO_OFFSET,
  WAL_INDEX_HEADER_SIZE,
  WAL_INDEX_PREFIX_SIZE,
} from "../sqlite/wal-index-header.ts";
import type { WalIndexHeader } from "../sqlite/wal-index-header.ts";
import { dirtyByteRanges, WAL_INDEX_BLOCK_SIZE, WalIndexBlocks } from "../sqlite/wal-index.ts";
import type { Database } from "./database.ts";
import type { DaemonLocks, Job } from "./host.ts";

const BUFFER_BYTES = 1024 * 1024;
const MAX_STORED_BYTES = 8 * 1024 * 1024;
/** One for all databases: whoever appends also flushes before anybody else gets a turn. */
const buffer = new Uint8Array(BUFFER_BYTES + 65536 + FRAME_HEADER_SIZE);
/** Two ranges of the wal-index closer than this go to the kernel as one. */
const MERGE_GAP_BYTES = 2048;

/**
 * Commits into the WAL of a database exactly as a local SQLite would: frames into the WAL, entries
 * into the wal-index, and its header last. Readers keep their snapshots and see the new one at
 * their next transaction.
 *
 * The wal-index lives in the memory that applications have mapped; it reaches them through the
 * kernel's page cache. Whoever calls holds SQLite's WRITE lock.
 */
export class LocalWal {
  readonly #db: Database;
  readonly #locks: DaemonLocks;
  readonly #checksum = new WalChecksum(false);
  #used = 0;
  /** Bytes for the kernel since the last publication. */
  #storedBytes = 0;
  /** Those that it has not been handed yet; they follow each other and end at this file offset. */
  readonly #unstored: Uint8Array[] = [];
  #unstoredEnd = 0;
  /** File offset of `buffer[0]`. */
  #at = 0;
  readonly #pending: number[] = [];
  #blocks: WalIndexBlocks | undefined;
  /** Frames that the wal-index in memory of the applications is known to show; -1: not known. */
  #published = -1;
  #change = 0;
  /** The header that the kernel has been handed, and the file of the wal-index does not hold yet. */
  #unwrittenHeader: Uint8Array | undefined;
  /** Meanwhile the kernel has read the header that the file holds. */
  #hasReadOldHeader = false;

  constructor(db: Database, locks: DaemonLocks) {
    this.#db = db;
    this.#locks = locks;
  }

  /** The wal-index was truncated or created anew by an application. */
  forgetIndex(): void {
    this.#published = -1;
    this.#blocks = undefined;
  }

  /** Whether the applications' wal-index is known to be initialised. */
  get isPublished(): boolean {
    return this.#published >= 0;
  }

  /** The kernel reads these bytes of the wal-index from its file. */
  indexIsRead(offsetBytes: number): void {
    if (offsetBytes < 2 * WAL_INDEX_HEADER_SIZE) this.#hasReadOldHeader = true;
  }

  /** Adds a page to the transaction being built; the last one carries the commit size. */
  append(pgno: number, page: Uint8Array, commit: number): void {
    const { store, wal } = this.#db;
    const header = wal.header ?? this.#startWal();
    const frameSize = FRAME_HEADER_SIZE + store.pageSize;
    if (this.#pending.length === 0) {
      // The buffer was flushed at the end of the transaction before.
      this.#checksum.bigEndian = header.bigEndianChecksum;
      this.#checksum.set(wal.sum1, wal.sum2);
      this.#at = frameOffset(store.frames.count, store.pageSize);
      this.#used = 0;
    }
    buffer.set(page, this.#used + FRAME_HEADER_SIZE);
    const { salt1, salt2 } = header;
    const fields = { pgno, commit, salt1, salt2 };
    sealFrame(fields, this.#checksum, store.pageSize, buffer, this.#used);
    this.#used += frameSize;
    this.#pending.push(pgno);
    if (this.#used >= BUFFER_BYTES) this.flush();
  }

  /** Writes what was appended; nothing of it counts before `commit`. */
  flush(): void {
    if (this.#used === 0) return;
    this.#db.files.getOrCreate("wal").writeAt(buffer, 0, this.#used, this.#at);
    this.#tellKernel();
    this.#at += this.#used;
    this.#used = 0;
  }

  /**
   * Readers find the frames in the kernel's cache. What is queued for it takes memory, so of a large
   * transaction the kernel is only told that there is something to read.
   */
  #tellKernel(): void {
    this.#storedBytes += this.#used;
    if (this.#storedBytes <= MAX_STORED_BYTES) {
      if (this.#unstored.length > 0 && this.#unstoredEnd !== this.#at) this.#store();
      this.#unstored.push(buffer.slice(0, this.#used));
      this.#unstoredEnd = this.#at + this.#used;
    } else {
      this.#store();
      this.#db.kernel.invalidate("wal", this.#at, this.#used);
    }
  }

  /**
   * Once for all transactions that are shown together: each store is a trip through the thread pool.
   * Two of them at once would be wrong, because the kernel zeroes what is behind the end of the file.
   */
  #store(): void {
    if (this.#unstored.length === 0) return;
    const bytes = this.#unstored.length === 1 ? this.#unstored[0]! : Buffer.concat(this.#unstored);
    this.#db.kernel.store("wal", this.#unstoredEnd - bytes.length, bytes);
    this.#unstored.length = 0;
  }

  /** The frames appended so far become committed in this node's view. */
  commit(): void {
    const { store, wal, log } = this.#db;
    if (store.frames.count === 0) store.frames.baseTxid = log.txid - 1;
    for (const pgno of this.#pending) store.frames.append(pgno);
    this.#pending.length = 0;
    wal.appended(this.#checksum.s0, this.#checksum.s1);
  }

  /** Drops frames appended since the last commit. */
  rollback(): void {
    this.#pending.length = 0;
    this.#used = 0;
  }

  /**
   * Shows every committed frame to the applications. When none has the wal-index mapped there is
   * nothing to show: the next one to open the database builds it from the WAL.
   */
  *publish(): Job<void> {
    const { store, wal } = this.#db;
    const { frames } = store;
    this.flush();
    this.#store();
    this.#storedBytes = 0;
    const header = wal.header;
    yield* this.#withIndex(function* (this: LocalWal) {
      if (header === undefined) return;
      if (this.#published < 0) yield* this.#inspect(header);
      if (this.#published < 0 || this.#published === frames.count) return;
      this.#showFrames(header);
    });
  }

  /**
   * Changes the wal-index while applications use it. The bytes are on their way to the kernel for a
   * while: somebody who found nobody at the wal-index and built it anew meanwhile would get them on
   * top, a header without the entries that belong to it. So the daemon is there until they have
   * arrived, as a connection would be.
   */
  *#withIndex(change: (this: LocalWal) => Job<void>): Job<void> {
    const { wal } = this.#db;
    const isOpen = this.#locks.openCount("shm") > 0 && wal.header !== undefined;
    const index = isOpen ? this.#locks.joinIndex() : "none";
    if (index === "none") {
      this.forgetIndex();
      yield* this.#settle();
      return;
    }
    try {
      yield* change.call(this);
      yield* this.#settleIndex();
    } finally {
      this.#locks.leaveIndex();
    }
  }

  *#settle(): Job<void> {
    const { kernel, indexStores } = this.#db;
    const mark = indexStores.mark();
    yield (resume) => kernel.settled(resume);
    indexStores.arrived(mark);
  }

  #showFrames(header: WalHeader): void {
    const { frames } = this.#db.store;
    const blocks = this.#blocks ?? new WalIndexBlocks();
    for (let i = blocks.frameCount; i < frames.count; i++) blocks.append(frames.pgnoAt(i));
    this.#blocks = blocks;
    for (const dirty of blocks.dirtyBlocks(this.#published + 1)) {
      const block = blocks.block(dirty.block);
      const start = dirty.block * WAL_INDEX_BLOCK_SIZE;
      if (dirty.block > 0 && this.#db.files.size("shm") < start + WAL_INDEX_BLOCK_SIZE) {
        // Nobody has mapped this block yet: the kernel drops a part of a page it does not have,
        // and SQLite takes a file that is too short for an error.
        this.#storeIndexAhead(start, block);
        continue;
      }
      for (const range of dirtyByteRanges(dirty, MERGE_GAP_BYTES)) {
        this.#storeIndexAhead(start + range.start, block.subarray(range.start, range.end));
      }
    }
    this.#storeHeader(this.#indexHeader(header, frames.count));
    this.#published = frames.count;
  }

  /**
   * Starts the WAL over. Everything in it is in the database file and nobody reads from it: the
   * caller holds WRITE and all the read locks.
   */
  *restart(): Job<void> {
    const { files, kernel, store, wal } = this.#db;
    const old = wal.header;
    if (old === undefined) return;
    store.frames.reset();
    if (this.#locks.openCount("shm") === 0 && this.#locks.openCount("wal") === 0) {
      wal.setHeader(undefined);
      this.forgetIndex();
      files.get("wal")?.truncate(0);
      kernel.invalidate("wal", 0, 0);
      yield* this.#settle();
      return;
    }
    yield* this.startOver();
  }

  /**
   * Every connection finds an empty WAL, and with it new content of the database file, even of
   * another page size: SQLite takes that from the wal-index as well.
   */
  *startOver(): Job<void> {
    const old = this.#db.wal.header;
    const header =
      old === undefined ? this.#startWal() : this.#writeHeader(old.salt1, old.checkpointSequence);
    yield* this.#withIndex(function* (this: LocalWal) {
      this.#blocks = undefined;
      if (this.#published < 0) yield* this.#inspect(old ?? header);
      if (this.#published < 0) return;
      const info = new Uint8Array(WAL_INDEX_PREFIX_SIZE - WAL_CHECKPOINT_INFO_OFFSET);
      const readMarks = [0, 0, READ_MARK_NOT_USED, READ_MARK_NOT_USED, READ_MARK_NOT_USED];
      encodeWalCheckpointInfo({ backfill: 0, readMarks, backfillAttempted: 0 }, info, 0);
      this.#storeHeader(this.#indexHeader(header, 0));
      this.#storeIndex(WAL_CHECKPOINT_INFO_OFFSET, info);
      this.#published = 0;
    });
  }

  /**
   * Makes the wal-index that the first application to open it will find, in the place of whatever
   * the file holds. Nobody has it open yet.
   */
  *buildIndex(): Job<void> {
    this.forgetIndex();
    this.#db.files.getOrCreate("shm").truncate(0);
    yield* this.#writeIndex(true);
    // What is known of it counts only as long as somebody has it open.
    this.forgetIndex();
    yield* this.#settleIndex();
  }

  /** As SQLite's recovery does, if what applications have mapped is not a valid wal-index. */
  *mendIndex(): Job<void> {
    this.forgetIndex();
    if ((yield* this.#readIndex()) !== undefined) return;
    yield* this.#writeIndex(false);
    this.forgetIndex();
    yield* this.#settleIndex();
  }

  *#writeIndex(isNew: boolean): Job<void> {
    const { files, kernel, store, wal } = this.#db;
    // Of a database that is still empty SQLite does not ask for one.
    if (store.pageSize === 0) return;
    const header = wal.header ?? this.#startWal();
    const file = files.getOrCreate("shm");
    if (file.size() < WAL_INDEX_BLOCK_SIZE) {
      // A reader does not map a block that the file does not hold as a whole.
      file.truncate(WAL_INDEX_BLOCK_SIZE);
      kernel.invalidate("shm", 0, 0);
    }
    const { frames } = store;
    const blocks = new WalIndexBlocks();
    for (let i = 0; i < frames.count; i++) blocks.append(frames.pgnoAt(i));
    for (let i = 0; i < blocks.blockCount; i++) {
      // The header of the first block comes last.
      const start = i === 0 ? WAL_INDEX_PREFIX_SIZE : 0;
      this.#storeIndex(i * WAL_INDEX_BLOCK_SIZE + start, blocks.block(i).subarray(start));
    }
    if (isNew) {
      const info = new Uint8Array(WAL_INDEX_PREFIX_SIZE - WAL_CHECKPOINT_INFO_OFFSET);
      const none = READ_MARK_NOT_USED;
      const readMarks = [0, frames.count === 0 ? none : frames.count, none, none, none];
      encodeWalCheckpointInfo({ backfill: 0, readMarks, backfillAttempted: 0 }, info, 0);
      this.#storeIndex(WAL_CHECKPOINT_INFO_OFFSET, info);
    }
    yield* this.#settle();
    this.#change = randomBytes(4).readUInt32BE(0);
    this.#storeHeader(this.#indexHeader(header, frames.count));
  }

  *#readIndex(): Job<WalIndexHeader | undefined> {
    let bytes: Uint8Array | undefined;
    yield (resume) => {
      this.#db.kernel.retrieve("shm", 0, WAL_INDEX_PREFIX_SIZE, (data) => {
        bytes = data;
        resume();
      });
    };
    return bytes === undefined ? undefined : decodeWalIndexHeaderPair(bytes, 0);
  }

  /** Finds out what the applications' wal-index shows now. */
  *#inspect(wal: WalHeader): Job<void> {
    const header = yield* this.#readIndex();
    if (header === undefined) return;
    this.#change = header.change;
    this.#blocks = undefined;
    const matches = header.salt1 === wal.salt1 && header.salt2 === wal.salt2;
    // A wal-index of another WAL is rewritten from its first frame on.
    this.#published = matches ? Math.min(header.maxFrame, this.#db.store.frames.count) : 0;
  }

  #startWal(): WalHeader {
    return this.#writeHeader(randomBytes(4).readUInt32BE(0), 0);
  }

  /** SQLite counts salt-1 up and draws salt-2 anew at each restart. */
  #writeHeader(previousSalt1: number, checkpointSequence: number): WalHeader {
    const { files, kernel, store, wal } = this.#db;
    const bytes = new Uint8Array(WAL_HEADER_SIZE);
    const header = encodeWalHeader(
      {
        bigEndianChecksum: false,
        pageSize: store.pageSize,
        checkpointSequence: (checkpointSequence + 1) >>> 0,
        salt1: (previousSalt1 + 1) >>> 0,
        salt2: randomBytes(4).readUInt32BE(0),
      },
      bytes,
      0,
    );
    const isNew = !files.exists("wal");
    files.getOrCreate("wal").writeAt(bytes, 0, bytes.length, 0);
    if (isNew) kernel.invalidateName("wal");
    kernel.store("wal", 0, bytes);
    wal.setHeader(header);
    return header;
  }

  #indexHeader(wal: WalHeader, maxFrame: number): WalIndexHeader {
    this.#change = (this.#change + 1) >>> 0;
    return {
      change: this.#change,
      bigEndianChecksum: wal.bigEndianChecksum,
      pageSize: this.#db.store.pageSize,
      maxFrame,
      pageCount: this.#db.store.pageCount,
      frameChecksum1: this.#db.wal.sum1,
      frameChecksum2: this.#db.wal.sum2,
      salt1: wal.salt1,
      salt2: wal.salt2,
    };
  }

  /**
   * Both copies at once: readers accept them only when they are equal, and between two notifications
   * they would be different for so long that many take the wal-index for torn and want to mend it.
   *
   * Not into the file yet. The kernel may not have the page of the header and read it from there, while
   * the frames and entries that belong to it are still on their way to pages that it has.
   */
  #storeHeader(header: WalIndexHeader): void {
    const bytes = new Uint8Array(2 * WAL_INDEX_HEADER_SIZE);
    encodeWalIndexHeader(header, bytes, 0);
    encodeWalIndexHeader(header, bytes, WAL_INDEX_HEADER_SIZE);
    this.#unwrittenHeader = bytes;
    this.#hasReadOldHeader = false;
    this.#db.kernel.store("shm", 0, bytes);
  }

  /** Waits until the kernel has everything, and the file too. */
  *#settleIndex(): Job<void> {
    const { files, kernel } = this.#db;
    yield* this.#settle();
    const header = this.#unwrittenHeader;
    if (header === undefined) return;
    this.#unwrittenHeader = undefined;
    files.getOrCreate("shm").writeAt(header, 0, header.length, 0);
    if (!this.#hasReadOldHeader) return;
    // Perhaps after the new one had come, to a page that the kernel did not have.
    kernel.store("shm", 0, header);
    yield* this.#settle();
  }

  /** Into the file too: the kernel reads it when it does not have the page any more. */
  #storeIndex(offset: number, bytes: Uint8Array): void {
    this.#writeIndexFile(offset, bytes);
    this.#db.kernel.store("shm", offset, bytes);
  }

  #writeIndexFile(offset: number, bytes: Uint8Array): void {
    this.#db.files.getOrCreate("shm").writeAt(bytes, 0, bytes.length, offset);
    this.#db.indexStores.add(offset, bytes);
  }

  /** Entries of frames that the header does not count yet. */
  #storeIndexAhead(offset: number, bytes: Uint8Array): void {
    this.#writeIndexFile(offset, bytes);
    this.#db.kernel.storeAhead("shm", offset, bytes);
  }
}
