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

export interface Attempt {
  readonly content: Content;
  readonly pageSize: number;
  /** The pages of `content` that are known; what else is new is whatever lay there. */
  readonly written: ReadonlyMap<number, Uint8Array>;
  /** Without a journal: what is there when it is cut short is the database from then on. */
  readonly isLoose?: boolean;
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

export interface WalTransactionState {
  readonly mark: number;
  /** Frame of each page that this transaction has written already. */
  readonly written: Map<number, number>;
  recheckFrom: number;
  content?: Map<number, Uint8Array>;
  commits?: Map<number, number>;
}
