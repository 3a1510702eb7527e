import type { FormatError } from "../lib/errors.ts";
import { CHECKSUM_FLAG_HI, Crc64, pageChecksum, pageCrc } from "../ltx/crc64.ts";
import {
  committedPageCount,
  DATABASE_HEADER_SIZE,
  parseDatabaseHeader,
} from "../sqlite/database-header.ts";
import type { DatabaseHeader } from "../sqlite/database-header.ts";
import { lockPgno } from "../sqlite/locks.ts";
import type { ChangedPages } from "./commit.ts";
import type { OpenFile } from "./files.ts";
import type { PageChecksums } from "./page-checksums.ts";

const crc = new Crc64();
const page = new Uint8Array(65536);

/** The header of a database file, or why it is not one. */
export function readDatabaseHeader(file: OpenFile): DatabaseHeader | FormatError {
  const bytes = new Uint8Array(DATABASE_HEADER_SIZE);
  const count = file.readAt(bytes, 0, DATABASE_HEADER_SIZE, 0);
  return parseDatabaseHeader(bytes.subarray(0, count));
}

/**
 * Size of the database in pages by SQLite's own rule, but never more than the file has: a header
 * that claims more is damage, and pages that do not exist cannot be replicated.
 */
export function databasePageCount(header: DatabaseHeader, fileSizeBytes: number): number {
  const inFile = Math.ceil(fileSizeBytes / header.pageSize);
  return Math.min(committedPageCount(header, fileSizeBytes), inFile);
}

/** A file that was put there from outside, or torn, may end within a page. */
export function padLastPage(file: OpenFile, pageSize: number, pageCount: number): void {
  if (file.size() < pageCount * pageSize) file.truncate(pageCount * pageSize);
}

/** Checksum of all pages of a file, read in order; fills the table on the way. */
export function checksumFile(
  file: OpenFile,
  pageSize: number,
  pageCount: number,
  checksums: PageChecksums,
): { hi: number; lo: number } {
  const skip = lockPgno(pageSize);
  let hi = 0;
  let lo = 0;
  for (let pgno = 1; pgno <= pageCount; pgno++) {
    if (pgno === skip) continue;
    readPage(file, pgno, pageSize);
    pageChecksum(crc, pgno, page, 0, pageSize);
    checksums.set(pgno, crc.hi, crc.lo);
    hi ^= crc.hi;
    lo ^= crc.lo;
  }
  return { hi: hi | CHECKSUM_FLAG_HI, lo };
}

function readPage(file: OpenFile, pgno: number, pageSize: number): void {
  const count = file.readAt(page, 0, pageSize, (pgno - 1) * pageSize);
  if (count < pageSize) page.fill(0, count, pageSize);
}

/** Every page of a database file as one transaction. Pages are read when asked for. */
export class AllPages implements ChangedPages {
  readonly #file: OpenFile;
  readonly #pageSize: number;
  readonly #lockPgno: number;
  readonly count: number;
  readonly pageStart = 0;
  readonly #crcs: Int32Array;

  constructor(file: OpenFile, pageSize: number, pageCount: number) {
    this.#file = file;
    this.#pageSize = pageSize;
    this.#lockPgno = lockPgno(pageSize);
    this.count = pageCount < this.#lockPgno ? pageCount : pageCount - 1;
    this.#crcs = new Int32Array(this.count * 2);
    for (let i = 0; i < this.count; i++) {
      readPage(file, this.pgno(i), pageSize);
      pageCrc(crc, this.pgno(i), page, 0, pageSize);
      this.#crcs[i * 2] = crc.hi;
      this.#crcs[i * 2 + 1] = crc.lo;
    }
  }

  pgno(index: number): number {
    return index + 1 < this.#lockPgno ? index + 1 : index + 2;
  }
  crcHi(index: number): number {
    return this.#crcs[index * 2] ?? 0;
  }
  crcLo(index: number): number {
    return this.#crcs[index * 2 + 1] ?? 0;
  }
  page(index: number): Uint8Array {
    readPage(this.#file, this.pgno(index), this.#pageSize);
    return page;
  }
}
