import { FormatError } from "../lib/errors.ts";
import {
  COUNTER_OFFSET,
  counterAfter,
  jumpOf,
  setCounter,
  SIZE_COUNTER_OFFSET,
} from "./change-counter.ts";
import type { Database } from "./database.ts";
import type { DirtyPages } from "./dirty-pages.ts";
import type { OpenFile } from "./files.ts";
import { readDatabaseHeader } from "./whole-database.ts";

/** Sees to the change counter of what a database's rollback modes commit, see change-counter.ts. */
export class CounterKeeper {
  readonly #db: Database;
  readonly #dirty: DirtyPages;
  /** In which this history has been told apart from others. */
  #epoch = -1;

  constructor(db: Database, dirty: DirtyPages) {
    this.#db = db;
    this.#dirty = dirty;
  }

  /**
   * Fixes what the transaction leaves behind, its change counter included. One without a journal need
   * not count: with MEMORY or OFF SQLite does, and who writes bytes into the file does not expect it.
   */
  seal(pageCount: number, isLoose: boolean): void {
    const { host, store } = this.#db;
    const dirty = this.#dirty;
    dirty.seal(pageCount);
    const epoch = host.historyEpoch();
    // Nobody has a new database in his cache.
    if (store.pageCount === 0) this.#epoch = epoch;
    if (store.pageCount === 0 || pageCount === 0) return;
    const jump = this.#epoch === epoch ? undefined : jumpOf(host.nodeId, host.nowMs());
    if (isLoose && jump === undefined) return;
    const counter = counterAfter(dirty.counterBefore, dirty.counterWritten, jump);
    if (counter !== undefined && dirty.isChanged) dirty.setCounter(counter, pageCount);
  }

  /** Puts the counter of the sealed transaction into the file, and before the eyes of applications. */
  write(): void {
    const { counter } = this.#dirty;
    if (counter !== undefined) this.#put(this.#db.files.getOrCreate("database"), counter);
  }

  /** A database that is about to be read as a whole jumps as well. */
  jumpInFile(file: OpenFile): void {
    const { host, store } = this.#db;
    if (store.pageCount === 0 || this.#epoch === host.historyEpoch()) return;
    const header = readDatabaseHeader(file);
    const before = header instanceof FormatError ? 0 : header.changeCounter;
    this.#put(file, (before + jumpOf(host.nodeId, host.nowMs())) >>> 0);
  }

  committed(): void {
    this.#epoch = this.#db.host.historyEpoch();
  }

  #put(file: OpenFile, counter: number): void {
    const { kernel } = this.#db;
    const header = new Uint8Array(SIZE_COUNTER_OFFSET + 4);
    file.readAt(header, 0, header.length, 0);
    setCounter(header, counter);
    for (const offset of [COUNTER_OFFSET, SIZE_COUNTER_OFFSET]) {
      file.writeAt(header, offset, 4, offset);
      kernel.store("database", offset, header.subarray(offset, offset + 4));
    }
    // Whoever locks the database next may have a page with just the counter that SQLite wrote.
    this.#db.owesKernel = true;
  }
}
