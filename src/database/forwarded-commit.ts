import type { LtxHeader } from "../ltx/header.ts";
import type { Position } from "../lib/position.ts";
import type { Files, OpenFile } from "./files.ts";
import type { LtxBytes } from "./log/received-record.ts";

/**
 * Decides about commits on a node that is not the primary: another node has lent it the right to
 * write a database, and has the last word.
 */
export interface CommitArbiter {
  /** `decided` is called once, after this has returned. */
  submit(commit: ForwardedCommit, decided: (isCommitted: boolean) => void): void;
  /**
   * Has the primary bring everything up to a position onto its disk. `done` is called once, after
   * this has returned; with false when that cannot be had in time.
   */
  makeDurable(position: Position, done: (isDurable: boolean) => void): void;
}

/** One transaction on its way to the primary. */
export interface ForwardedCommit {
  /** Where the database stands after it. */
  readonly position: Position;
  /** The LTX file; undefined when it is so large that it went into a file. */
  readonly ltx: Uint8Array | undefined;
  readonly path: string | undefined;
  /** The application wants it to survive a power cut once it is told of the commit. */
  readonly isDurable: boolean;
}

/**
 * Whether a commit must be on the primary's disk. "when-synced": when the application syncs, which in
 * WAL mode it does, or does not do, after the commit.
 */
export type Durability = "now" | "never" | "when-synced";

/** What became of a submitted commit. */
export type Decision = "committed" | "refused" | "unchanged";

/** The LTX file of a forwarded commit and where it leads. */
export interface SpooledCommit {
  readonly header: LtxHeader;
  readonly postHi: number;
  readonly postLo: number;
  readonly spool: LtxSpool;
}

const MEMORY_MAX_BYTES = 4 * 1024 * 1024;
const FIRST_BYTES = 16 * 1024;

/** Takes an LTX file as it is encoded: into memory up to a bound, and beyond it into a file. */
export class LtxSpool {
  readonly #files: Files;
  readonly #path: string;
  #memory = new Uint8Array(FIRST_BYTES);
  #file: OpenFile | undefined;
  #lengthBytes = 0;

  constructor(files: Files, path: string) {
    this.#files = files;
    this.#path = path;
  }

  add(bytes: Uint8Array): void {
    const end = this.#lengthBytes + bytes.length;
    if (this.#file === undefined && end > MEMORY_MAX_BYTES) this.#startFile();
    if (this.#file !== undefined) {
      this.#file.writeAt(bytes, 0, bytes.length, this.#lengthBytes);
    } else {
      if (end > this.#memory.length) this.#grow(end);
      this.#memory.set(bytes, this.#lengthBytes);
    }
    this.#lengthBytes = end;
  }

  get ltx(): Uint8Array | undefined {
    return this.#file === undefined ? this.#memory.subarray(0, this.#lengthBytes) : undefined;
  }
  get path(): string | undefined {
    return this.#file === undefined ? undefined : this.#path;
  }

  get bytes(): LtxBytes {
    const { ltx } = this;
    if (ltx !== undefined) return { lengthBytes: ltx.length, pieces: () => [ltx] };
    return { lengthBytes: this.#lengthBytes, pieces: () => this.#pieces() };
  }

  discard(): void {
    if (this.#file === undefined) return;
    this.#file.close();
    this.#file = undefined;
    this.#files.remove(this.#path);
  }

  #grow(neededBytes: number): void {
    const grown = new Uint8Array(Math.max(neededBytes, this.#memory.length * 2));
    grown.set(this.#memory.subarray(0, this.#lengthBytes));
    this.#memory = grown;
  }

  #startFile(): void {
    const file = this.#files.open(this.#path, { create: true });
    if (file === undefined) throw new Error(`cannot create ${this.#path}`);
    file.truncate(0);
    file.writeAt(this.#memory, 0, this.#lengthBytes, 0);
    this.#memory = new Uint8Array(0);
    this.#file = file;
  }

  *#pieces(): Generator<Uint8Array> {
    const piece = new Uint8Array(1024 * 1024);
    for (let at = 0; at < this.#lengthBytes;) {
      const count = this.#file?.readAt(piece, 0, piece.length, at) ?? 0;
      if (count === 0) return;
      yield piece.subarray(0, count);
      at += count;
    }
  }
}
