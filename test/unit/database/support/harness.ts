import { expect } from "vitest";
import type { Database } from "../../../../src/database/database.ts";
import type { LargeLtx } from "../../../../src/database/engine.ts";
import { LogReader } from "../../../../src/database/log/log-reader.ts";
import type { Position } from "../../../../src/lib/position.ts";
import { ZERO_POSITION } from "../../../../src/lib/position.ts";
import { LtxDecoder } from "../../../../src/ltx/decoder.ts";
import { lockPgno } from "../../../../src/sqlite/locks.ts";
import type { FakeDisk } from "./fake-disk.ts";
import type { Content } from "./mini-pager.ts";
import { contentChecksum, contentOf, DIRECTORY } from "./node.ts";

export { contentChecksum, contentOf, DIRECTORY, FakeHost, open, silentLogger } from "./node.ts";

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
