import { pageCrc, Crc64 } from "../ltx/crc64.ts";
import type { ChangedPages } from "./commit.ts";
import type { PageStore } from "./page-store.ts";

/** Pages of an open transaction that are kept at hand; beyond it they are read again at commit. */
const ARENA_MAX_BYTES = 4 * 1024 * 1024;
const crc = new Crc64();
const reread = new Uint8Array(65536);

/**
 * The frames of a WAL transaction that has not committed yet, with the CRC of each page, computed
 * once, as it came in. Page bytes are kept up to a bound; the WAL has them all.
 */
export class OpenTransaction implements ChangedPages {
  readonly #store: PageStore;
  #pgnos = new Uint32Array(64);
  #crcs = new Int32Array(128);
  /** Running WAL checksum after each frame, to go back when SQLite overwrites one. */
  #sums = new Uint32Array(128);
  #arena = new Uint8Array(0);
  /** Frames whose bytes are in the arena: always the first ones. */
  #arenaFrames = 0;
  /** Index of the first frame in the WAL. */
  firstFrame = 0;
  frameCount = 0;
  /** Bytes of the newest frame, still in the request buffer of the mount. */
  #lastPage: Uint8Array | undefined;
  #lastStart = 0;

  /** The result of `seal`: frame numbers (relative) in page order, newest version each. */
  #order: number[] = [];
  count = 0;
  pageStart = 0;

  constructor(store: PageStore) {
    this.#store = store;
  }

  reset(firstFrame: number): void {
    this.firstFrame = firstFrame;
    this.frameCount = 0;
    this.#arenaFrames = 0;
    this.#lastPage = undefined;
    // A large transaction must not leave its memory behind.
    if (this.#arena.length > 256 * 1024) this.#arena = new Uint8Array(0);
    if (this.#pgnos.length > 16384) {
      this.#pgnos = new Uint32Array(64);
      this.#crcs = new Int32Array(128);
      this.#sums = new Uint32Array(128);
    }
  }

  /** Drops the frames from an index of the WAL on; SQLite writes them anew. */
  truncate(frameIndex: number): void {
    const keep = Math.max(0, frameIndex - this.firstFrame);
    if (keep >= this.frameCount) return;
    this.frameCount = keep;
    this.#arenaFrames = Math.min(this.#arenaFrames, keep);
    this.#lastPage = undefined;
  }

  append(pgno: number, page: Uint8Array, start: number, sum1: number, sum2: number): void {
    const index = this.frameCount;
    if (index === this.#pgnos.length) this.#grow();
    this.#keepLastPage();
    pageCrc(crc, pgno, page, start, this.#store.pageSize);
    this.#pgnos[index] = pgno;
    this.#crcs[index * 2] = crc.hi;
    this.#crcs[index * 2 + 1] = crc.lo;
    this.#sums[index * 2] = sum1;
    this.#sums[index * 2 + 1] = sum2;
    this.#lastPage = page;
    this.#lastStart = start;
    this.frameCount++;
  }

  /** The request buffer is about to be reused: the newest page must move if it is still needed. */
  releasePage(): void {
    this.#keepLastPage();
  }

  sum1(frameIndex: number): number {
    return this.#sums[(frameIndex - this.firstFrame) * 2] ?? 0;
  }

  sum2(frameIndex: number): number {
    return this.#sums[(frameIndex - this.firstFrame) * 2 + 1] ?? 0;
  }

  pgnoOfFrame(index: number): number {
    return this.#pgnos[index] ?? 0;
  }

  /** Fixes what the transaction leaves behind: newest frame per page up to the commit size. */
  seal(pageCount: number): void {
    const order = this.#order;
    order.length = 0;
    if (this.frameCount === 1) {
      if (this.#accepts(0, pageCount)) order.push(0);
    } else {
      const newest = new Map<number, number>();
      for (let i = 0; i < this.frameCount; i++) {
        if (this.#accepts(i, pageCount)) newest.set(this.#pgnos[i] ?? 0, i);
      }
      for (const index of newest.values()) order.push(index);
      order.sort((a, b) => (this.#pgnos[a] ?? 0) - (this.#pgnos[b] ?? 0));
    }
    this.count = order.length;
  }

  #accepts(index: number, pageCount: number): boolean {
    const pgno = this.#pgnos[index] ?? 0;
    return pgno <= pageCount && pgno !== this.#store.lockPgno;
  }

  pgno(index: number): number {
    return this.#pgnos[this.#order[index] ?? 0] ?? 0;
  }
  crcHi(index: number): number {
    return this.#crcs[(this.#order[index] ?? 0) * 2] ?? 0;
  }
  crcLo(index: number): number {
    return this.#crcs[(this.#order[index] ?? 0) * 2 + 1] ?? 0;
  }

  page(index: number): Uint8Array {
    const frame = this.#order[index] ?? 0;
    if (frame === this.frameCount - 1 && this.#lastPage !== undefined) {
      this.pageStart = this.#lastStart;
      return this.#lastPage;
    }
    if (frame < this.#arenaFrames) {
      this.pageStart = frame * this.#store.pageSize;
      return this.#arena;
    }
    this.#store.readFrame(this.firstFrame + frame, reread, 0);
    this.pageStart = 0;
    return reread;
  }

  #keepLastPage(): void {
    const page = this.#lastPage;
    if (page === undefined) return;
    this.#lastPage = undefined;
    const index = this.frameCount - 1;
    const pageSize = this.#store.pageSize;
    const end = (index + 1) * pageSize;
    if (this.#arenaFrames !== index || end > ARENA_MAX_BYTES) return;
    if (end > this.#arena.length) {
      const grown = new Uint8Array(Math.max(16 * pageSize, this.#arena.length * 2));
      grown.set(this.#arena);
      this.#arena = grown;
    }
    this.#arena.set(page.subarray(this.#lastStart, this.#lastStart + pageSize), index * pageSize);
    this.#arenaFrames = index + 1;
  }

  #grow(): void {
    const length = this.#pgnos.length * 2;
    const pgnos = new Uint32Array(length);
    pgnos.set(this.#pgnos);
    this.#pgnos = pgnos;
    const crcs = new Int32Array(length * 2);
    crcs.set(this.#crcs);
    this.#crcs = crcs;
    const sums = new Uint32Array(length * 2);
    sums.set(this.#sums);
    this.#sums = sums;
  }
}
