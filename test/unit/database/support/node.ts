import type { Database } from "../../../../src/database/database.ts";
import type { DatabaseHost } from "../../../../src/database/host.ts";
import type { SyncHost } from "../../../../src/database/replica-waits.ts";
import { openDatabase } from "../../../../src/database/recover.ts";
import type { Logger } from "../../../../src/lib/log.ts";
import { Crc64, halvesToBigint, pageChecksum } from "../../../../src/ltx/crc64.ts";
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
  sync: SyncHost | undefined;
  readonly retiredFiles: { closeAll(): void }[] = [];
  readonly changes: string[] = [];
  /** False once the lease does not cover commits any more. */
  isCovered: () => boolean = () => true;
  isPrimary(): boolean {
    return this.primary;
  }
  mayCommit(): boolean {
    return this.primary && this.isCovered();
  }
  /** -1: the history never forks. */
  epoch = -1;
  historyEpoch(): number {
    return this.epoch;
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
