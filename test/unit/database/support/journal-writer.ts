import { encodeJournalHeader, journalPageChecksum } from "../../../../src/sqlite/journal.ts";

export const SECTOR = 512;

/** Offsets and bytes of a rollback journal. */
export class JournalWriter {
  readonly #pageCount: number;
  readonly #pageSize: number;
  readonly #nonce: number;
  headerOffset = 0;
  #offset = 0;
  #records = 0;

  constructor(pageCount: number, pageSize: number, nonce: number) {
    this.#pageCount = pageCount;
    this.#pageSize = pageSize;
    this.#nonce = nonce;
  }

  header(isHot: boolean): Uint8Array {
    const bytes = new Uint8Array(SECTOR);
    const header = {
      recordCount: isHot ? 0xffffffff : 0,
      nonce: this.#nonce,
      initialPageCount: this.#pageCount,
      sectorSize: SECTOR,
      pageSize: this.#pageSize,
    };
    encodeJournalHeader(header, bytes, 0);
    if (!isHot) bytes.fill(0, 0, 12);
    this.#offset = this.headerOffset + SECTOR;
    this.#records = 0;
    return bytes;
  }

  *record(pgno: number, page: Uint8Array): Generator<readonly [number, Uint8Array]> {
    const word = (value: number): Uint8Array => {
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setUint32(0, value);
      return bytes;
    };
    yield [this.#offset, word(pgno)];
    yield [this.#offset + 4, page];
    yield [
      this.#offset + 4 + page.length,
      word(journalPageChecksum(this.#nonce, page, 0, page.length)),
    ];
    this.#offset += page.length + 8;
    this.#records++;
  }

  /** Magic and count: from here on the journal is hot. */
  seal(): Uint8Array {
    const bytes = new Uint8Array(28);
    const header = {
      recordCount: this.#records,
      nonce: this.#nonce,
      initialPageCount: this.#pageCount,
      sectorSize: SECTOR,
      pageSize: this.#pageSize,
    };
    encodeJournalHeader(header, bytes, 0);
    return bytes.subarray(0, 12);
  }

  /** Where the next header would be. */
  get endOffset(): number {
    return Math.ceil(this.#offset / SECTOR) * SECTOR;
  }

  nextSegment(): number {
    this.headerOffset = this.endOffset;
    return this.headerOffset;
  }
}
