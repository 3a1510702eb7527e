import { FormatError } from "../lib/errors.ts";
import { pageSizeFromUint16 } from "./page-size.ts";
import { readUint16BE, readUint32BE } from "./uint.ts";

/**
 * The first 100 bytes of page 1, big-endian. Only the fields a file system needs are decoded.
 *
 * | off | size | field                                                            |
 * |-----|------|------------------------------------------------------------------|
 * | 0   | 16   | "SQLite format 3\0"                                              |
 * | 16  | 2    | page size, 1 means 65536                                         |
 * | 18  | 1    | write version: 1 rollback journal, 2 WAL                         |
 * | 19  | 1    | read version, same values                                        |
 * | 20  | 1    | bytes reserved at the end of each page                           |
 * | 24  | 4    | change counter                                                   |
 * | 28  | 4    | database size in pages, see `committedPageCount`                 |
 * | 40  | 4    | schema cookie                                                    |
 * | 92  | 4    | change counter at which the size was stored ("version-valid-for")|
 */
export interface DatabaseHeader {
  readonly pageSize: number;
  readonly writeVersion: number;
  readonly readVersion: number;
  readonly reservedBytes: number;
  readonly changeCounter: number;
  readonly pageCount: number;
  readonly schemaCookie: number;
  readonly versionValidFor: number;
}

export const DATABASE_HEADER_SIZE: number = 100;

const MAGIC: Uint8Array = new TextEncoder().encode("SQLite format 3\0");

/**
 * Returns the error instead of throwing it: whether a foreign file is a failure is for the caller
 * to say. The versions are not restricted, because SQLite itself opens a file with an unknown write
 * version read-only.
 */
export function parseDatabaseHeader(bytes: Uint8Array, offset = 0): DatabaseHeader | FormatError {
  if (bytes.length - offset < DATABASE_HEADER_SIZE) {
    return new FormatError(
      "SQLITE_HEADER_TRUNCATED",
      `a SQLite database starts with ${DATABASE_HEADER_SIZE} header bytes, got ${bytes.length - offset}`,
    );
  }
  for (let i = 0; i < MAGIC.length; i++) {
    if (bytes[offset + i] !== MAGIC[i]) {
      return new FormatError(
        "SQLITE_HEADER_MAGIC",
        "the file is not a SQLite database: it does not start with 'SQLite format 3'",
      );
    }
  }
  const pageSizeField = readUint16BE(bytes, offset + 16);
  const pageSize = pageSizeFromUint16(pageSizeField);
  if (pageSize === undefined) {
    return new FormatError(
      "SQLITE_HEADER_PAGE_SIZE",
      `the SQLite header holds the invalid page size ${pageSizeField}`,
    );
  }
  return {
    pageSize,
    writeVersion: bytes[offset + 18]!,
    readVersion: bytes[offset + 19]!,
    reservedBytes: bytes[offset + 20]!,
    changeCounter: readUint32BE(bytes, offset + 24),
    pageCount: readUint32BE(bytes, offset + 28),
    schemaCookie: readUint32BE(bytes, offset + 40),
    versionValidFor: readUint32BE(bytes, offset + 92),
  };
}

/** Both versions are 2 exactly while the database is in WAL mode. */
export function isWalMode(header: Pick<DatabaseHeader, "writeVersion" | "readVersion">): boolean {
  return header.writeVersion === 2 && header.readVersion === 2;
}

/**
 * The size SQLite itself would believe (btree.c, lockBtree): writers older than 3.7.0 bump the
 * change counter but leave the stored size alone, so it counts only when both counters agree.
 * Otherwise the file decides; a partial last page counts as a page, as in pagerPagecount.
 */
export function committedPageCount(
  header: Pick<DatabaseHeader, "pageSize" | "pageCount" | "changeCounter" | "versionValidFor">,
  fileSizeBytes: number,
): number {
  if (header.pageCount > 0 && header.changeCounter === header.versionValidFor) {
    return header.pageCount;
  }
  return Math.ceil(fileSizeBytes / header.pageSize);
}
