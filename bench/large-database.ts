import * as fs from "node:fs";
import * as path from "node:path";
import Database from "better-sqlite3";
import { nodeFiles } from "../src/database/files.ts";
import { TransactionLog } from "../src/database/log/transaction-log.ts";
import { Crc64, pageChecksum } from "../src/ltx/crc64.ts";
import { DatabaseChecksum } from "../src/ltx/database-checksum.ts";

const PAGE_SIZE = 4096;
/** A trunk page of the freelist: next trunk, number of leaves, leaves; the last six stay unused. */
const LEAVES_PER_TRUNK = PAGE_SIZE / 4 - 8;
const LOCK_PAGE = 0x4000_0000 / PAGE_SIZE + 1;

/**
 * Puts a valid database of many gigabytes into a data directory, in about a second: all pages but
 * a few are on the freelist, whose leaves SQLite never reads, so they stay holes of the file. Its
 * log begins at a position with the database's true checksum.
 */
export function createLargeDatabase(dataDirectory: string, sizeBytes: number): void {
  const directory = path.join(dataDirectory, "dbs", "large.db");
  fs.mkdirSync(directory, { recursive: true });
  const file = path.join(directory, "database");
  const usedPages = createSmallDatabase(file);
  const pageCount = Math.floor(sizeBytes / PAGE_SIZE);
  const fd = fs.openSync(file, "r+");
  fs.ftruncateSync(fd, pageCount * PAGE_SIZE);
  const checksum = new DatabaseChecksum();
  const crc = new Crc64();
  const page = Buffer.alloc(PAGE_SIZE);
  const toggle = (pgno: number): void => {
    pageChecksum(crc, pgno, page, 0, PAGE_SIZE);
    checksum.toggle(crc.hi, crc.lo);
  };
  writeHeader(fd, pageCount, usedPages + 1);
  for (let pgno = 1; pgno <= usedPages; pgno++) {
    fs.readSync(fd, page, 0, PAGE_SIZE, (pgno - 1) * PAGE_SIZE);
    toggle(pgno);
  }
  const leaves = { count: 0, xor: 0 };
  for (let trunk = usedPages + 1; trunk <= pageCount;) {
    const next = fillTrunk(page, trunk, pageCount, leaves);
    fs.writeSync(fd, page, 0, PAGE_SIZE, (trunk - 1) * PAGE_SIZE);
    toggle(trunk);
    trunk = next;
  }
  toggleZeroPages(leaves, toggle, page);
  fs.fsyncSync(fd);
  fs.closeSync(fd);
  const log = TransactionLog.open(nodeFiles, path.join(directory, "log"));
  log.appendBase(
    { txid: 1, hi: checksum.hi, lo: checksum.lo },
    { pageSize: PAGE_SIZE, pageCount, timestampMs: Date.now(), durableTxid: 1 },
  );
  log.close();
}

/** Returns its number of pages. */
function createSmallDatabase(file: string): number {
  const db = new Database(file);
  db.pragma(`page_size = ${PAGE_SIZE}`);
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)");
  db.close();
  return fs.statSync(file).size / PAGE_SIZE;
}

/** Bytes 28, 32 and 36 of the header: pages, first trunk of the freelist, pages on it. */
function writeHeader(fd: number, pageCount: number, firstTrunk: number): void {
  const lockPages = pageCount >= LOCK_PAGE ? 1 : 0;
  const words = Buffer.alloc(12);
  words.writeUInt32BE(pageCount, 0);
  words.writeUInt32BE(firstTrunk, 4);
  words.writeUInt32BE(pageCount - firstTrunk + 1 - lockPages, 8);
  fs.writeSync(fd, words, 0, 12, 28);
}

/** Returns the number of the next trunk page, beyond the end when this is the last. */
function fillTrunk(
  page: Buffer,
  trunk: number,
  pageCount: number,
  leaves: { count: number; xor: number },
): number {
  page.fill(0);
  let next = trunk + 1;
  let count = 0;
  for (; next <= pageCount && count < LEAVES_PER_TRUNK; next++) {
    if (next === LOCK_PAGE) continue;
    page.writeUInt32BE(next, 8 + count * 4);
    count++;
    leaves.count++;
    leaves.xor ^= next;
  }
  if (next === LOCK_PAGE) next++;
  page.writeUInt32BE(next <= pageCount ? next : 0, 0);
  page.writeUInt32BE(count, 4);
  return next;
}

/**
 * A CRC is affine in what it is fed, so the checksums of an odd number of zero pages XOR to that
 * of the zero page whose number is the XOR of theirs. One page with the number 0 makes it odd.
 */
function toggleZeroPages(
  leaves: { readonly count: number; readonly xor: number },
  toggle: (pgno: number) => void,
  page: Buffer,
): void {
  page.fill(0);
  toggle(leaves.xor);
  if (leaves.count % 2 === 0) toggle(0);
}
