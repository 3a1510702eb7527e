import { isSnapshot, type LtxHeader } from "./header.ts";
import { lockPgno } from "./lock-page.ts";

/**
 * Which page may come next in an LTX file. Encoder and decoder ask the same object, so that what
 * we write is what we accept. Answers are texts: a broken rule is a bug on the one side and a bad
 * file on the other.
 */
export class PageOrder {
  readonly #header: LtxHeader;
  readonly #lockPgno: number;
  #previousPgno = 0;

  constructor(header: LtxHeader) {
    this.#header = header;
    this.#lockPgno = lockPgno(header.pageSize);
  }

  /** Undefined when `pgno` may follow; then it counts as written. */
  next(pgno: number): string | undefined {
    const { commit } = this.#header;
    if (pgno < 1 || pgno > commit) return `page ${pgno} is outside the database (1…${commit})`;
    if (pgno === this.#lockPgno) return `page ${pgno} is the lock page, which holds no data`;
    if (isSnapshot(this.#header)) {
      const expected = this.#after(this.#previousPgno);
      if (pgno !== expected) return `a snapshot has page ${pgno} where page ${expected} must be`;
    } else if (pgno <= this.#previousPgno) {
      return `page ${pgno} comes after page ${this.#previousPgno}`;
    }
    this.#previousPgno = pgno;
    return undefined;
  }

  /** Undefined when the file may end here. */
  end(): string | undefined {
    const { commit } = this.#header;
    if (isSnapshot(this.#header) && this.#after(this.#previousPgno) <= commit) {
      return `a snapshot ends after page ${this.#previousPgno} of ${commit}`;
    }
    return undefined;
  }

  #after(pgno: number): number {
    return pgno + 1 === this.#lockPgno ? pgno + 2 : pgno + 1;
  }
}
