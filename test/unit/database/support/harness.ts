import { expect } from "vitest";
import type { Database } from "../../../../src/database/database.ts";
import type { LargeLtx } from "../../../../src/database/engine.ts";
import type { DatabaseHost } from "../../../../src/database/host.ts";
import { LogReader } from "../../../../src/database/log/log-reader.ts";
import { openDatabase } from "../../../../src/database/recover.ts";
import type { Logger } from "../../../../src/lib/log.ts";
import type { Position } from "../../../../src/lib/position.ts";
import { ZERO_POSITION } from "../../../../src/lib/position.ts";
import { Crc64, halvesToBigint, pageChecksum } from "../../../../src/ltx/crc64.ts";
import { LtxDecoder } from "../../../../src/ltx/decoder.ts";
import { lockPgno } from "../../../../src/sqlite/locks.ts";
import type { FakeDisk } from "./fake-disk.ts";
import { Content } from "./mini-pager.ts";

export const DIRECTORY = "/data/dbs/app.db";

export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

export class FakeHost implements DatabaseHost {
  primary = true;
  readonly nodeId = 0x1122334455667788n;
  logger: Logger = silentLogger;
  keepAside = { maxCount: 4, maxBytes: 0 };
  now = 1_700_000_000_000;
  readonly retiredFiles: { closeAll(): void }[] = [];
  readonly changes: string[] = [];
  isPrimary(): boolean {
    return this.primary;
  }
  nowMs(): number {
    return ++this.now;
  }
  changed(name: string): void {
    this.changes.push(name);
  }
  retired(files: { closeAll(): void }): void {
    this.retiredFiles.push(files);
  }
}

export function open(disk: FakeDisk, host: DatabaseHost = new FakeHost()): Database {
  disk.mkdir(DIRECTORY);
  return openDatabase("app.db", host, disk, DIRECTORY);
}

const crc = new Crc64();

/** The checksum of the whole content, from nothing but its pages. */
export function contentChecksum(content: Content, pageSize: number): bigint {
  let hi = 0;
  let lo = 0;
  for (let pgno = 1; pgno <= content.pageCount; pgno++) {
    if (pgno === lockPgno(pageSize)) continue;
    pageChecksum(crc, pgno, content.page(pgno, pageSize), 0, pageSize);
    hi ^= crc.hi;
    lo ^= crc.lo;
  }
  return halvesToBigint(hi | 0x80000000, lo);
}

/** What the committed view of a database holds. */
export function contentOf(db: Database): Content {
  const content = new Content();
  const { store } = db;
  content.pageCount = store.pageCount;
  for (let pgno = 1; pgno <= store.pageCount; pgno++) {
    if (pgno === store.lockPgno) continue;
    const page = new Uint8Array(store.pageSize);
    store.readPage(pgno, page, 0);
    content.pages.set(pgno, page);
  }
  return content;
}

/** The database's position is the checksum of what it holds. */
export function checkConsistent(db: Database): void {
  if (db.store.pageCount === 0) return;
  expect(db.position.checksum).toBe(contentChecksum(contentOf(db), db.store.pageSize));
}

/** The committed view is exactly the model. */
export function checkContent(db: Database, model: Content, pageSize: number): void {
  expect(db.store.pageCount).toBe(model.pageCount);
  const content = contentOf(db);
  for (let pgno = 1; pgno <= model.pageCount; pgno++) {
    if (pgno === lockPgno(pageSize)) continue;
    const same = Buffer.compare(content.page(pgno, pageSize), model.page(pgno, pageSize)) === 0;
    if (!same) expect.fail(`page ${pgno} of ${model.pageCount} differs from the model`);
  }
  if (model.pageCount > 0) {
    expect(db.position.checksum).toBe(contentChecksum(model, pageSize));
  }
}

export interface Transaction {
  readonly position: Position;
  readonly ltx: Uint8Array;
}

/** Every transaction in the log after a position, through the reader that replication uses. */
export function readAll(
  disk: FakeDisk,
  db: Database,
  after: Position = ZERO_POSITION,
  maxBytes = 100_000,
  reader: LogReader = new LogReader(disk, DIRECTORY),
): Uint8Array[] | undefined {
  const result: Uint8Array[] = [];
  const end = { ...db.log.end, position: db.position };
  for (let at = after; at.txid < end.position.txid;) {
    const read = reader.read(at, end, maxBytes);
    if (read.kind === "unavailable") return undefined;
    const ltx = read.kind === "large" ? [wholeOf(read.ltx)] : read.ltx;
    expect(ltx.length).toBeGreaterThan(0);
    result.push(...ltx.map((bytes) => bytes.slice()));
    at = read.end;
  }
  return result;
}

/** A large transaction, read in uneven pieces. */
function wholeOf(ltx: LargeLtx): Uint8Array {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < ltx.lengthBytes; at += 1_000_003) pieces.push(ltx.read(at, 1_000_003));
  return Buffer.concat(pieces);
}

/** Applies LTX files to a content, as an independent replica would; checks every checksum. */
export function applyTo(content: Content, files: readonly Uint8Array[], pageSize: number): void {
  for (const ltx of files) {
    const before = content.pageCount === 0 ? undefined : contentChecksum(content, pageSize);
    const decoder = new LtxDecoder({
      onPage: (pgno, data) => content.pages.set(pgno, data.slice()),
    });
    decoder.push(ltx);
    const { header, trailer } = decoder.end();
    if (before !== undefined) expect(header.preApplyChecksum).toBe(before);
    for (const pgno of content.pages.keys()) {
      if (pgno > header.commit) content.pages.delete(pgno);
    }
    content.pageCount = header.commit;
    if (header.commit > 0) {
      expect(trailer.postApplyChecksum).toBe(contentChecksum(content, pageSize));
    }
  }
}
