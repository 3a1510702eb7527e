/**
 * Checksums of the pages of the committed database, filled as pages are first touched, so that
 * opening a database of any size reads none of it. FLAG (bit 63) is set in every real checksum,
 * so a zero high half means "not known yet".
 *
 * Two 32-bit halves per page in chunks of 512 pages: 8 bytes per page that was ever touched.
 */
export class PageChecksums {
  static readonly #CHUNK_PAGES = 512;
  readonly #chunks: (Int32Array | undefined)[] = [];
  /** Halves of the checksum that `get` found last. */
  hi = 0;
  lo = 0;

  /** Loads the checksum of a page into hi and lo; false when it is not known. */
  get(pgno: number): boolean {
    const index = pgno - 1;
    const chunk = this.#chunks[(index / PageChecksums.#CHUNK_PAGES) | 0];
    if (chunk === undefined) return false;
    const slot = (index % PageChecksums.#CHUNK_PAGES) * 2;
    const hi = chunk[slot] ?? 0;
    if (hi === 0) return false;
    this.hi = hi;
    this.lo = chunk[slot + 1] ?? 0;
    return true;
  }

  set(pgno: number, hi: number, lo: number): void {
    const index = pgno - 1;
    const chunkIndex = (index / PageChecksums.#CHUNK_PAGES) | 0;
    let chunk = this.#chunks[chunkIndex];
    if (chunk === undefined) {
      chunk = new Int32Array(PageChecksums.#CHUNK_PAGES * 2);
      this.#chunks[chunkIndex] = chunk;
    }
    const slot = (index % PageChecksums.#CHUNK_PAGES) * 2;
    chunk[slot] = hi;
    chunk[slot + 1] = lo;
  }

  /** Forgets pages beyond the end of the database. */
  truncate(pageCount: number): void {
    const keep = Math.ceil(pageCount / PageChecksums.#CHUNK_PAGES);
    if (this.#chunks.length > keep) this.#chunks.length = keep;
    const last = this.#chunks[keep - 1];
    const used = pageCount % PageChecksums.#CHUNK_PAGES;
    if (last !== undefined && used !== 0) last.fill(0, used * 2);
  }

  clear(): void {
    this.#chunks.length = 0;
  }
}
