import type { Database } from "../../../src/database/database.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import type { Position } from "../../../src/lib/position.ts";
import { lockPgno } from "../../../src/sqlite/locks.ts";
import { Content } from "../database/support/mini-pager.ts";
import type { Attempt } from "../database/support/mini-pager.ts";
import { contentChecksum, contentOf } from "../database/support/node.ts";

const ZERO: Position = { txid: 0, checksum: 0n };

/** What a database holds at one position. */
export interface State {
  readonly position: Position;
  readonly content: Content;
  readonly pageSize: number;
  /** The positions it followed: a deletion is the same whatever was deleted. */
  readonly parents: Set<string>;
}

/** An invariant that does not hold. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/**
 * Remembers what every position that one database ever had must hold, whichever node was there, and
 * what its application was told.
 */
export class Oracle {
  readonly #states = new Map<string, State>();
  /** By TXID, what preceded a transaction that is in a log and that nobody has seen yet. */
  readonly #unseen = new Map<number, Position>();
  /** The newest position of the primary that a power cut must leave. */
  durable: Position = ZERO;
  /** The newest position of the primary that a killed process must leave. */
  acknowledged: Position = ZERO;

  constructor() {
    const empty = {
      position: ZERO,
      content: new Content(),
      pageSize: 0,
      parents: new Set<string>(),
    };
    this.#states.set(formatPosition(ZERO), empty);
  }

  get(position: Position): State {
    const state = this.#states.get(formatPosition(position));
    if (state === undefined) throw new Violation(`${formatPosition(position)} never was`);
    return state;
  }

  has(position: Position): boolean {
    return this.#states.has(formatPosition(position));
  }

  learn(position: Position, content: Content, pageSize: number, after: Position): void {
    const text = formatPosition(position);
    const known = this.#states.get(text);
    if (known === undefined) {
      const parents = new Set([formatPosition(after)]);
      this.#states.set(text, { position, content, pageSize, parents });
    } else if (position.txid > after.txid) known.parents.add(formatPosition(after));
  }

  /**
   * A commit whose writer was interrupted: it is there as a whole, with what the writer had in mind,
   * or not at all.
   */
  settle(db: Database, attempt: Attempt | undefined, after: Position = this.acknowledged): void {
    const { position } = db;
    if (attempt === undefined) return;
    // What is written without a journal and without a sync may be taken, and then found otherwise
    // after a power cut.
    const isTwice = attempt.isLoose === true && position.txid === after.txid + 2;
    if (position.txid !== after.txid + 1 && !isTwice) return;
    if (this.has(position)) {
      if (contentIsEmpty(attempt)) this.learn(position, attempt.content, 0, after);
      return;
    }
    const found = contentOf(db);
    if (attempt.isLoose === true) {
      if (isTwice) this.#unseen.set(after.txid + 1, after);
      this.learn(position, found, db.store.pageSize, after);
      return;
    }
    const { written } = attempt;
    const isWhole =
      found.pageCount === attempt.content.pageCount &&
      [...written].every(
        ([pgno, page]) =>
          pgno > found.pageCount || isSameBut(pgno, found.page(pgno, page.length), page),
      );
    if (!isWhole) throw new Violation(`${formatPosition(position)} is not what was written`);
    const before = this.get(after).content;
    for (const [pgno, page] of before.pages) {
      if (written.has(pgno) || pgno > found.pageCount || attempt.pageSize !== page.length) continue;
      if (Buffer.compare(found.page(pgno, page.length), page) !== 0) {
        throw new Violation(`page ${pgno} was not written, and is not what it was`);
      }
    }
    this.learn(position, found, attempt.pageSize, after);
  }

  /**
   * A replica passes what was taken from a writer without a journal just before the power cut after
   * which its primary found something else in the file. Only the checksum says what it must hold.
   */
  passed(db: Database): void {
    const after = this.#unseen.get(db.position.txid);
    if (after === undefined || this.has(db.position)) return;
    this.learn(db.position, contentOf(db), db.store.pageSize, after);
  }

  /** Whether `older` is `newer` or what led to it. */
  leadsTo(older: Position, newer: Position): boolean {
    const wanted = formatPosition(older);
    const seen = new Set([formatPosition(newer)]);
    for (const at of seen) {
      if (at === wanted) return true;
      for (const parent of this.#states.get(at)?.parents ?? []) seen.add(parent);
    }
    return false;
  }

  /** Position, content and checksum of a database agree with each other and with its history. */
  check(db: Database, who: string): void {
    const { position, store } = db;
    const state = this.get(position);
    const at = `${who} at ${formatPosition(position)}`;
    if (store.pageCount !== state.content.pageCount) {
      throw new Violation(`${at} has ${store.pageCount} pages, not ${state.content.pageCount}`);
    }
    if (store.pageCount === 0) return;
    const { pageSize } = state;
    if (store.pageSize !== pageSize) {
      throw new Violation(`${at} has pages of ${store.pageSize} bytes, not ${pageSize}`);
    }
    const found = contentOf(db);
    for (let pgno = 1; pgno <= found.pageCount; pgno++) {
      if (pgno === lockPgno(pageSize)) continue;
      const [a, b] = [found.page(pgno, pageSize), state.content.page(pgno, pageSize)];
      if (Buffer.compare(a, b) !== 0) throw new Violation(`${at}: page ${pgno} is of another time`);
    }
    if (contentChecksum(found, pageSize) !== position.checksum) {
      throw new Violation(`${at}: the checksum is not that of its pages`);
    }
  }
}

/** The change counter may have been raised, which its writer would have seen next. */
function isSameBut(pgno: number, found: Uint8Array, written: Uint8Array): boolean {
  const page = written.slice();
  for (const offset of pgno === 1 ? [24, 92] : []) {
    page.set(found.subarray(offset, offset + 4), offset);
  }
  return Buffer.compare(found, page) === 0;
}

function contentIsEmpty({ content }: Attempt): boolean {
  return content.pageCount === 0;
}
