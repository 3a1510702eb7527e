import { CHECKSUM_FLAG_HI, Crc64, halvesToBigint, pageChecksum } from "../ltx/crc64.ts";
import { formatChecksum, formatPosition } from "../lib/position.ts";
import type { Database } from "./database.ts";
import type { ScrubStep } from "./engine.ts";
import { remedyFor } from "./remedy.ts";

const crc = new Crc64();
const page = new Uint8Array(65536);

/**
 * Reads a whole database, a few pages at a time between two requests of the kernel, and compares it
 * with what is known: a page that was read or written before with its checksum, and in the end the
 * sum of all with the position. Writers are neither stopped nor slowed, because a commit keeps the
 * table of checksums right by itself. What differs condemns the database.
 */
export class Scrub {
  readonly #db: Database;
  #nextPgno = 1;

  constructor(db: Database) {
    this.#db = db;
  }

  step(maxBytes: number): ScrubStep {
    const { status, store, hasOpenChanges } = this.#db;
    if (status !== "ok" || store.pageCount === 0) return { kind: "done", bytes: 0 };
    // The file has pages that are not committed, which nobody knows a checksum of.
    if (hasOpenChanges) return { kind: "more", bytes: 0 };
    const last = this.#nextPgno + Math.max(1, Math.floor(maxBytes / store.pageSize)) - 1;
    const until = Math.min(store.pageCount, last);
    const bytes = Math.max(0, until - this.#nextPgno + 1) * store.pageSize;
    for (; this.#nextPgno <= until; this.#nextPgno++) {
      const problem = this.#check(this.#nextPgno);
      if (problem !== undefined) return this.#condemn(problem);
    }
    if (this.#nextPgno <= store.pageCount) return { kind: "more", bytes };
    const problem = this.#checkSum();
    return problem === undefined ? { kind: "done", bytes } : this.#condemn(problem);
  }

  /** What is wrong with a page; notes its checksum when it was not known. */
  #check(pgno: number): string | undefined {
    const { store } = this.#db;
    const { checksums, pageSize } = store;
    if (pgno === store.lockPgno) return undefined;
    if (!checksums.get(pgno)) {
      store.loadChecksum(pgno);
      return undefined;
    }
    const { hi, lo } = checksums;
    store.readPage(pgno, page, 0);
    pageChecksum(crc, pgno, page, 0, pageSize);
    if (crc.hi === hi && crc.lo === lo) return undefined;
    const isInWal = store.frames.newest(pgno) >= 0;
    const file = this.#db.files.pathOf(isInWal ? "wal" : "database");
    return `page ${pgno} at offset ${(pgno - 1) * pageSize} of ${file} is not what was written there`;
  }

  #checkSum(): string | undefined {
    const { store, log, files, position } = this.#db;
    let hi = 0;
    let lo = 0;
    for (let pgno = 1; pgno <= store.pageCount; pgno++) {
      if (pgno === store.lockPgno) continue;
      store.loadChecksum(pgno);
      hi ^= store.checksums.hi;
      lo ^= store.checksums.lo;
    }
    hi |= CHECKSUM_FLAG_HI;
    if (hi === log.checksumHi && lo === log.checksumLo) return undefined;
    return (
      `the pages of ${files.pathOf("database")} have checksum ` +
      `${formatChecksum(halvesToBigint(hi, lo))}, its position is ${formatPosition(position)}`
    );
  }

  #condemn(problem: string): ScrubStep {
    const reason = `${problem}; ${remedyFor(this.#db.name)}`;
    this.#db.condemn(reason);
    return { kind: "damaged", reason };
  }
}
