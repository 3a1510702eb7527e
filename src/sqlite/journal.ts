import { assert } from "../lib/assert.ts";
import { lockPgno } from "./locks.ts";
import { isValidPageSize } from "./page-size.ts";
import { readFully, type ReadAt } from "./read-at.ts";
import { readUint32BE, writeUint32BE } from "./uint.ts";

/**
 * The rollback journal: the pages as they were before a transaction. Segments start at multiples of
 * the sector size; each is a header, padded to one sector, and records. All fields are big-endian.
 *
 * | header off | field                                        | record off  | field             |
 * |------------|----------------------------------------------|-------------|-------------------|
 * | 0          | magic d9d505f920a163d7                       | 0           | page number       |
 * | 8          | record count; ffffffff: up to the end        | 4           | the page          |
 * | 12         | nonce, where the checksums start             | 4+page size | checksum          |
 * | 16         | database size in pages before the transaction|             |                   |
 * | 20         | sector size (first header only)              |             |                   |
 * | 24         | page size (first header only)                |             |                   |
 *
 * SQLite writes the magic and the count only after it has synced the records, and touches the
 * database only after that. A header without magic, or with count 0, therefore announces pages that
 * are still unchanged in the database.
 */
export interface JournalHeader {
  readonly recordCount: number;
  readonly nonce: number;
  readonly initialPageCount: number;
  readonly sectorSize: number;
  readonly pageSize: number;
}

export const JOURNAL_HEADER_SIZE: number = 28;
/** Written with `synchronous=OFF`: records follow up to the end of the file. */
export const JOURNAL_RECORDS_TO_END: number = 0xffffffff;

const MAGIC: Uint8Array = Uint8Array.of(0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7);
/** SQLite's assumption on Linux until the first header says otherwise (setSectorSize). */
const DEFAULT_SECTOR_SIZE = 512;
const MIN_SECTOR_SIZE = 32;
const MAX_SECTOR_SIZE = 65536;
/** Page number and checksum around each page. */
const RECORD_OVERHEAD_BYTES = 8;

/** SQLite's longest path name on Unix; a longer super-journal name is no name. */
const MAX_PATH_BYTES = 512;
/** Name length, checksum and magic at the very end of a journal that belongs to a super-journal. */
const SUPER_JOURNAL_TRAILER_SIZE = 16;

/** The magic is present: the journal was synced, so the database may have been changed. */
export function isHotJournalHeader(bytes: Uint8Array, offset = 0): boolean {
  return MAGIC.every((byte, i) => bytes[offset + i] === byte);
}

/** How `journal_mode=PERSIST` ends a transaction. False when the bytes are not a whole header. */
export function isZeroHeader(bytes: Uint8Array, offset = 0): boolean {
  if (bytes.length - offset < JOURNAL_HEADER_SIZE) return false;
  for (let i = 0; i < JOURNAL_HEADER_SIZE; i++) {
    if (bytes[offset + i] !== 0) return false;
  }
  return true;
}

/** Fields as they stand; undefined without magic or when cut off. */
export function decodeJournalHeader(bytes: Uint8Array, offset: number): JournalHeader | undefined {
  if (bytes.length - offset < JOURNAL_HEADER_SIZE) return undefined;
  if (!isHotJournalHeader(bytes, offset)) return undefined;
  return {
    recordCount: readUint32BE(bytes, offset + 8),
    nonce: readUint32BE(bytes, offset + 12),
    initialPageCount: readUint32BE(bytes, offset + 16),
    sectorSize: readUint32BE(bytes, offset + 20),
    pageSize: readUint32BE(bytes, offset + 24),
  };
}

export function encodeJournalHeader(header: JournalHeader, out: Uint8Array, offset: number): void {
  assert(out.length - offset >= JOURNAL_HEADER_SIZE, "no room for a journal header");
  out.set(MAGIC, offset);
  writeUint32BE(out, offset + 8, header.recordCount);
  writeUint32BE(out, offset + 12, header.nonce);
  writeUint32BE(out, offset + 16, header.initialPageCount);
  writeUint32BE(out, offset + 20, header.sectorSize);
  writeUint32BE(out, offset + 24, header.pageSize);
}

/** Samples every 200th byte from the end: it is to notice records that never reached the disk. */
export function journalPageChecksum(
  nonce: number,
  bytes: Uint8Array,
  pageOffset: number,
  pageSize: number,
): number {
  assert(pageOffset + pageSize <= bytes.length, "journal checksum past its buffer");
  let sum = nonce;
  for (let i = pageSize - 200; i > 0; i -= 200) sum += bytes[pageOffset + i]!;
  return sum >>> 0;
}

export interface JournalScan {
  /** The journal's own. Playback uses it even if page 1 of the database already says otherwise. */
  readonly pageSize: number;
  readonly sectorSize: number;
  /** To roll back, also give the database this size: cut it, or extend it with zeros. */
  readonly initialPageCount: number;
  readonly segmentCount: number;
  /** Records handed to the visitor. */
  readonly recordCount: number;
}

/** `page` is a view that the next record overwrites. */
export type OnJournalRecord = (pgno: number, page: Uint8Array) => void;

/**
 * Visits, in file order, the records that SQLite would play back from a hot journal
 * (pager_playback). Undefined when there is no valid first header: the database is then unchanged.
 *
 * What recovery does in the cases that are easy to get wrong:
 * - Count 0 means no records, and the scan goes on with the next header. Counting them from the
 *   file size is right only for a process that rolls back its own transaction.
 * - Count ffffffff means all whole records of the file after one sector.
 * - Sector and page size come from the first header alone; page size 0 is the database's.
 * - A page beyond the initial size is skipped, without a look at its checksum.
 * - Page number 0, the lock page and a wrong checksum end the scan, as do a cut record and a header
 *   without magic.
 *
 * Whether the journal is hot at all is for the caller to find out: SQLite also wants a first byte
 * other than zero, nobody holding RESERVED, a database that is not empty, and the super-journal, if
 * one is named, to exist.
 */
export function readJournal(
  file: ReadAt,
  sizeBytes: number,
  databasePageSize: number,
  onRecord?: OnJournalRecord,
): JournalScan | undefined {
  const first = readSegmentHeader(file, sizeBytes, 0, DEFAULT_SECTOR_SIZE);
  if (first === undefined) return undefined;
  const pageSize = first.pageSize === 0 ? databasePageSize : first.pageSize;
  const { sectorSize, initialPageCount } = first;
  if (!isValidPageSize(pageSize) || !isValidSectorSize(sectorSize)) return undefined;

  const reader = new RecordReader(file, sizeBytes, pageSize, initialPageCount, onRecord);
  let segmentCount = 0;
  for (let header: JournalHeader | undefined = first; header !== undefined;) {
    segmentCount++;
    const count =
      header.recordCount === JOURNAL_RECORDS_TO_END
        ? Math.floor((sizeBytes - sectorSize) / (pageSize + RECORD_OVERHEAD_BYTES))
        : header.recordCount;
    reader.offsetBytes += sectorSize;
    if (!reader.readSegment(count, header.nonce)) break;
    reader.offsetBytes = Math.ceil(reader.offsetBytes / sectorSize) * sectorSize;
    header = readSegmentHeader(file, sizeBytes, reader.offsetBytes, sectorSize);
  }
  return { pageSize, sectorSize, initialPageCount, segmentCount, recordCount: reader.recordCount };
}

class RecordReader {
  /** Where the next header or record starts. */
  offsetBytes = 0;
  recordCount = 0;
  readonly #file: ReadAt;
  readonly #sizeBytes: number;
  readonly #pageSize: number;
  readonly #initialPageCount: number;
  readonly #onRecord: OnJournalRecord | undefined;
  readonly #record: Uint8Array;
  readonly #page: Uint8Array;

  constructor(
    file: ReadAt,
    sizeBytes: number,
    pageSize: number,
    initialPageCount: number,
    onRecord: OnJournalRecord | undefined,
  ) {
    this.#file = file;
    this.#sizeBytes = sizeBytes;
    this.#pageSize = pageSize;
    this.#initialPageCount = initialPageCount;
    this.#onRecord = onRecord;
    this.#record = new Uint8Array(pageSize + RECORD_OVERHEAD_BYTES);
    this.#page = this.#record.subarray(4, 4 + pageSize);
  }

  /** False at the first record that ends the scan. */
  readSegment(count: number, nonce: number): boolean {
    const record = this.#record;
    const pageSize = this.#pageSize;
    for (let i = 0; i < count; i++) {
      if (this.offsetBytes + record.length > this.#sizeBytes) return false;
      if (!readFully(this.#file, record, 0, record.length, this.offsetBytes)) return false;
      this.offsetBytes += record.length;
      const pgno = readUint32BE(record, 0);
      if (pgno === 0 || pgno === lockPgno(pageSize)) return false;
      if (pgno > this.#initialPageCount) continue;
      const expected = readUint32BE(record, 4 + pageSize);
      if (journalPageChecksum(nonce, record, 4, pageSize) !== expected) return false;
      this.recordCount++;
      this.#onRecord?.(pgno, this.#page);
    }
    return true;
  }
}

/** A header counts only when its whole sector is in the file. */
function readSegmentHeader(
  file: ReadAt,
  sizeBytes: number,
  offsetBytes: number,
  sectorSize: number,
): JournalHeader | undefined {
  if (offsetBytes + sectorSize > sizeBytes) return undefined;
  const bytes = new Uint8Array(JOURNAL_HEADER_SIZE);
  if (!readFully(file, bytes, 0, JOURNAL_HEADER_SIZE, offsetBytes)) return undefined;
  return decodeJournalHeader(bytes, 0);
}

function isValidSectorSize(sectorSize: number): boolean {
  return (
    sectorSize >= MIN_SECTOR_SIZE &&
    sectorSize <= MAX_SECTOR_SIZE &&
    (sectorSize & (sectorSize - 1)) === 0
  );
}

/**
 * The super-journal that a transaction over several databases named at the end of each journal:
 * when that file is gone or empty, the transaction was committed and the journal must not be played
 * back. The last to roll back deletes it.
 *
 * | off from the end | field                                            |
 * |------------------|--------------------------------------------------|
 * | −16−n            | name, n bytes, "…-mjXXXXXX9XX" in hex digits     |
 * | −16              | n                                                |
 * | −12              | sum of the bytes of the name                     |
 * | −8               | magic                                            |
 */
export function readSuperJournalName(file: ReadAt, sizeBytes: number): string | undefined {
  const nameEnd = sizeBytes - SUPER_JOURNAL_TRAILER_SIZE;
  if (nameEnd < 0) return undefined;
  const trailer = new Uint8Array(SUPER_JOURNAL_TRAILER_SIZE);
  if (!readFully(file, trailer, 0, trailer.length, nameEnd)) return undefined;
  const lengthBytes = readUint32BE(trailer, 0);
  if (lengthBytes === 0 || lengthBytes > MAX_PATH_BYTES || lengthBytes > nameEnd) return undefined;
  if (!isHotJournalHeader(trailer, 8)) return undefined;

  const nameBytes = new Uint8Array(lengthBytes);
  if (!readFully(file, nameBytes, 0, lengthBytes, nameEnd - lengthBytes)) return undefined;
  const checksum = readUint32BE(trailer, 4);
  let unsignedSum = 0;
  let signedSum = 0;
  for (const byte of nameBytes) {
    unsignedSum += byte;
    signedSum += (byte << 24) >> 24;
  }
  // SQLite adds C chars, which are signed on x86 and unsigned on ARM.
  if (checksum !== unsignedSum >>> 0 && checksum !== signedSum >>> 0) return undefined;
  const name = new TextDecoder("utf-8", { ignoreBOM: true }).decode(nameBytes);
  return /-mj[0-9a-f]{6}9[0-9a-f]{2}$/i.test(name) ? name : undefined;
}
