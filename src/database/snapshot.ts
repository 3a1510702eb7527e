import { LitefsError } from "../lib/errors.ts";
import type { OpenFile } from "./files.ts";
import { lockPgno } from "../sqlite/locks.ts";
import type { PageStore } from "./page-store.ts";

const CHUNK_BYTES = 1024 * 1024;

/**
 * A consistent copy of a database at one position, read piece by piece while writers go on. A page
 * that is about to change before it was read is first copied to a side file: what was not read yet
 * and did not change is still where it was.
 */
export class Snapshot {
  readonly txid: number;
  readonly checksumHi: number;
  readonly checksumLo: number;
  readonly pageSize: number;
  readonly pageCount: number;
  readonly timestampMs: number;
  readonly #store: PageStore;
  readonly #sidePath: string;
  readonly #preserved = new Map<number, number>();
  readonly #page: Uint8Array;
  #side: OpenFile | undefined;
  #nextPgno = 1;
  #abandoned = false;

  constructor(
    store: PageStore,
    at: { txid: number; checksumHi: number; checksumLo: number; timestampMs: number },
    sidePath: string,
  ) {
    this.#store = store;
    this.#sidePath = sidePath;
    this.txid = at.txid;
    this.checksumHi = at.checksumHi;
    this.checksumLo = at.checksumLo;
    this.timestampMs = at.timestampMs;
    this.pageSize = store.pageSize;
    this.pageCount = store.pageCount;
    this.#page = new Uint8Array(store.pageSize);
    store.snapshots.add(this);
  }

  preserve(pgno: number, store: PageStore): void {
    if (pgno < this.#nextPgno || pgno > this.pageCount || this.#preserved.has(pgno)) return;
    this.#side ??= store.files.files.open(this.#sidePath, { create: true });
    store.readPage(pgno, this.#page, 0);
    const offset = this.#preserved.size * this.pageSize;
    this.#side?.writeAt(this.#page, 0, this.pageSize, offset);
    this.#preserved.set(pgno, offset);
  }

  abandon(): void {
    this.#abandoned = true;
  }

  /** The next pages in order, about a mebibyte of them; undefined at the end. */
  next(): { pgnos: Uint32Array; data: Uint8Array } | undefined {
    if (this.#abandoned) {
      throw new LitefsError("SNAPSHOT_ABANDONED", "the database was replaced during a snapshot");
    }
    // Never written: it has no page, and not even a page size.
    if (this.pageCount === 0) return undefined;
    // Not the store's: the database may have been dropped meanwhile.
    const skip = lockPgno(this.pageSize);
    const limit = Math.max(1, Math.floor(CHUNK_BYTES / this.pageSize));
    const pgnos = new Uint32Array(limit);
    const data = new Uint8Array(limit * this.pageSize);
    let count = 0;
    for (; count < limit && this.#nextPgno <= this.pageCount; this.#nextPgno++) {
      if (this.#nextPgno === skip) continue;
      pgnos[count] = this.#nextPgno;
      this.#read(this.#nextPgno, data, count * this.pageSize);
      count++;
    }
    if (count === 0) return undefined;
    return { pgnos: pgnos.slice(0, count), data: data.subarray(0, count * this.pageSize) };
  }

  #read(pgno: number, out: Uint8Array, at: number): void {
    const offset = this.#preserved.get(pgno);
    if (offset === undefined) this.#store.readPage(pgno, out, at);
    else this.#side?.readAt(out, at, this.pageSize, offset);
  }

  close(): void {
    this.#store.snapshots.delete(this);
    this.#side?.close();
    if (this.#side !== undefined) this.#store.files.files.remove(this.#sidePath);
    this.#side = undefined;
  }
}
