import * as fs from "node:fs";
import * as path from "node:path";
import { nodeFiles, writeFileAtomically } from "../database/files.ts";
import { errorCode, LitefsError } from "../lib/errors.ts";

/**
 * The term whose history this node has, kept in `<data>/term` as a decimal number: the highest term
 * in which it was the primary, or had everything that the primary of the term had. Terms grow with
 * every change of the primary, so of two nodes the one of the later term has what the cluster agreed
 * on last, however many transactions the other has: those may be its own alone. (Raft compares the
 * term of the last entry before the length of the log for the same reason, §5.4.1.)
 *
 * 0 where no election has ever been: with a static lease, and in data of an older version.
 */
export class TermStore {
  readonly #file: string;
  #term: number;

  private constructor(file: string, term: number) {
    this.#file = file;
    this.#term = term;
  }

  /** Reads what is stored. A damaged file is an error and stays as it is. */
  static open(dataDirectory: string): TermStore {
    const file = path.join(dataDirectory, "term");
    const text = readIfPresent(file);
    if (text === undefined) return new TermStore(file, 0);
    const term = /^\d{1,16}\n?$/.test(text) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(term)) {
      throw new LitefsError(
        "TERM_DAMAGED",
        `${file} does not hold a term (found ${JSON.stringify(text.slice(0, 40))}): remove it, and this node leaves the lease to others that have the data`,
      );
    }
    return new TermStore(file, term);
  }

  get current(): number {
    return this.#term;
  }

  /** Durable when it returns: what is acknowledged in a term counts on it. Never goes back. */
  advanceTo(term: number): void {
    if (term <= this.#term) return;
    try {
      writeFileAtomically(nodeFiles, this.#file, Buffer.from(`${term}\n`));
    } catch (cause) {
      throw new LitefsError("TERM_UNWRITABLE", `cannot write ${this.#file}`, { cause });
    }
    this.#term = term;
  }
}

function readIfPresent(file: string): string | undefined {
  try {
    return fs.readFileSync(file, "latin1");
  } catch (cause) {
    if (errorCode(cause) === "ENOENT") return undefined;
    throw new LitefsError("TERM_UNREADABLE", `cannot read ${file}`, { cause });
  }
}
