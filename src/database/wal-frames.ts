const NONE: Uint32Array<ArrayBuffer> = new Uint32Array(0);
/** Room for as many frames stays when a WAL starts over. */
const KEPT_FRAMES = 4096;

/**
 * Which page each committed frame of the local WAL holds, and where the newest version of each
 * page is. Frames count from 0. 4 bytes per frame and one map entry per distinct page.
 */
export class WalFrames {
  #pgnos = NONE;
  // Made with the first frame: a database at rest, of which there may be thousands, has none.
  #newest: Map<number, number> | undefined;
  #unwritten: Set<number> | undefined;
  /** Those of them that a checkpoint had written, and the file has lost. */
  #lost: Set<number> | undefined;
  /** Where the database stood before the first of the frames. */
  baseTxid = 0;
  count = 0;

  /** Pages whose newest version the database file does not have yet. */
  get unwritten(): Set<number> {
    this.#unwritten ??= new Set<number>();
    return this.#unwritten;
  }

  append(pgno: number): void {
    if (this.count === this.#pgnos.length) {
      const grown = new Uint32Array(Math.max(64, this.#pgnos.length * 2));
      grown.set(this.#pgnos);
      this.#pgnos = grown;
    }
    this.#pgnos[this.count] = pgno;
    this.#newest ??= new Map<number, number>();
    this.#newest.set(pgno, this.count);
    this.unwritten.add(pgno);
    this.#lost?.delete(pgno);
    this.count++;
  }

  /** The database file may have lost any page of these frames: all of them are to be written again. */
  forgetWritten(): void {
    this.markUnwrittenAfter(0);
  }

  /** How many pages of a database of this size no checkpoint has written in their newest version. */
  missingPages(pageCount: number): number {
    let count = 0;
    for (const pgno of this.#unwritten ?? []) {
      if (pgno <= pageCount && this.#lost?.has(pgno) !== true) count++;
    }
    return count;
  }

  /** Frame index of the newest version of a page, or -1 when the WAL does not hold it. */
  newest(pgno: number): number {
    return this.#newest?.get(pgno) ?? -1;
  }

  /** Gives back what is kept for the next frames. */
  rest(): void {
    if (this.count === 0) this.#pgnos = NONE;
  }

  pgnoAt(frameIndex: number): number {
    return this.#pgnos[frameIndex] ?? 0;
  }

  /** The database file has lost what it had of the pages behind a page. */
  markUnwrittenAfter(pgno: number): void {
    for (const held of this.#newest?.keys() ?? []) {
      if (held <= pgno || this.unwritten.has(held)) continue;
      this.unwritten.add(held);
      this.#lost ??= new Set<number>();
      this.#lost.add(held);
    }
  }

  /** Frames that hold a page, newest first. */
  *versions(pgno: number): Generator<number> {
    for (let i = this.count - 1; i >= 0; i--) if (this.#pgnos[i] === pgno) yield i;
  }

  reset(): void {
    this.count = 0;
    this.#newest = undefined;
    this.#unwritten = undefined;
    this.#lost = undefined;
    if (this.#pgnos.length > KEPT_FRAMES) this.#pgnos = NONE;
  }
}
