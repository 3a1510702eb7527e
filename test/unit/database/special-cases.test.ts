import { describe, expect, it } from "vitest";
import { checkpointLocalWal } from "../../../src/database/checkpoint.ts";
import type { Database } from "../../../src/database/database.ts";
import { LocalWal } from "../../../src/database/local-wal.ts";
import { SHARED_FIRST } from "../../../src/sqlite/locks.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { FakeKernel, FakeLocks, finish } from "./support/fake-mount.ts";
import {
  applyTo,
  checkConsistent,
  checkContent,
  contentChecksum,
  contentOf,
  DIRECTORY,
  FakeHost,
  open,
  readAll,
} from "./support/harness.ts";
import { Content, MiniPager } from "./support/mini-pager.ts";

/** The file of another database, as cp would write it. */
function sourceFile(pageSize: number, pageCount: number): Uint8Array {
  const disk = new FakeDisk();
  const pager = new MiniPager(open(disk), new Random(2), { pageSize });
  const pgnos = Array.from({ length: pageCount }, (_, i) => i + 1);
  pager.transaction({ pgnos, pageCount });
  return disk.content(`${DIRECTORY}/database`);
}

function copyIn(db: Database, file: Uint8Array, chunkBytes: number): string {
  db.files.getOrCreate("database");
  const outcomes = [db.truncate("database", 0)];
  for (let at = 0; at < file.length; at += chunkBytes) {
    const length = Math.min(chunkBytes, file.length - at);
    outcomes.push(db.write("database", at, file, at, length));
  }
  outcomes.push(db.endLooseWrites());
  return outcomes.find((outcome) => outcome !== "ok") ?? "ok";
}

describe("a file that is copied into the mount", () => {
  it("becomes one transaction, also over an older database and with another page size", () => {
    const disk = new FakeDisk();
    const db = open(disk);
    const first = sourceFile(512, 40);
    expect(copyIn(db, first, 8192)).toBe("ok");
    expect(db.position.txid).toBe(1);
    expect(disk.content(`${DIRECTORY}/database`)).toEqual(first);
    checkConsistent(db);
    const ltx = readAll(disk, db);
    expect(ltx).toHaveLength(1);
    const replica = new Content();
    applyTo(replica, ltx ?? [], 512);
    checkContent(db, replica, 512);

    expect(copyIn(db, sourceFile(512, 7), 1000)).toBe("ok");
    expect(db.position.txid).toBe(2);
    expect(db.store.pageCount).toBe(7);
    checkConsistent(db);
    const before = db.position;

    expect(copyIn(db, sourceFile(4096, 9), 131_072)).toBe("ok");
    expect(db.position.txid).toBe(3);
    expect(db.store.pageSize).toBe(4096);
    checkConsistent(db);
    // Pages of another size follow no transaction: a replica needs a snapshot.
    expect(readAll(disk, db, before)).toBeUndefined();
    const again = open(disk.kill());
    expect(again.position).toEqual(db.position);
    checkConsistent(again);
  });

  it("is a transaction even if its checksum is that of the file before", () => {
    const disk = new FakeDisk();
    const db = open(disk);
    const file = sourceFile(512, 12);
    copyIn(db, file, 4096);
    const before = db.position;
    // The same bits in two pages: the changes of their checksums cancel each other out.
    const alike = file.slice();
    for (const pgno of [3, 8])
      alike[(pgno - 1) * 512 + 77] = (file[(pgno - 1) * 512 + 77] ?? 0) ^ 5;
    expect(copyIn(db, alike, 4096)).toBe("ok");
    expect(db.position).toEqual({ txid: before.txid + 1, checksum: before.checksum });
    const replica = new Content();
    applyTo(replica, readAll(disk, db) ?? [], 512);
    checkContent(db, replica, 512);
    expect(replica.page(8, 512)).toEqual(alike.subarray(7 * 512, 8 * 512));
  });

  it("is refused when it is no database, and over one in WAL mode that is in use", () => {
    const db = open(new FakeDisk());
    expect(copyIn(db, new Uint8Array(4096).fill(65), 4096)).toBe("unsupported");
    const pager = new MiniPager(db, new Random(1), { pageSize: 512 });
    pager.transaction({ pgnos: [1, 2], pageCount: 2 });
    pager.changeMode("wal");
    pager.transaction({ pgnos: [2], pageCount: 2 });
    const before = db.position;
    expect(copyIn(db, sourceFile(512, 5), 4096)).not.toBe("ok");
    expect(db.position).toEqual(before);
    checkContent(db, pager.committed, 512);
  });

  it("opens again when it does not end with a page", () => {
    for (const change of [-100, 100, 1000]) {
      const disk = new FakeDisk();
      const db = open(disk);
      const file = sourceFile(512, 12);
      const odd = new Uint8Array(file.length + change);
      odd.set(file.subarray(0, odd.length));
      expect(copyIn(db, odd, 8192)).toBe("ok");
      expect(db.store.pageCount).toBe(12);
      const again = open(disk.kill());
      expect(again.reason).toBe("");
      expect(again.position).toEqual(db.position);
      checkConsistent(again);

      const plain = new FakeDisk();
      plain.mkdir(DIRECTORY);
      plain.put(`${DIRECTORY}/database`, odd);
      const { position } = open(plain);
      const reopened = open(plain.kill());
      expect(reopened.reason).toBe("");
      expect(reopened.position).toEqual(position);
    }
  });

  for (const killAfter of [0, 1, 3]) {
    it(`is the database after a kill in the middle, ${killAfter} pieces in`, () => {
      const disk = new FakeDisk();
      const db = open(disk);
      copyIn(db, sourceFile(512, 20), 8192);
      const { txid } = db.position;
      const next = sourceFile(512, 24);
      next[600] = (next[600] ?? 0) ^ 1;
      for (let i = 0; i < killAfter; i++) db.write("database", i * 2048, next, i * 2048, 2048);
      const again = open(disk.kill());
      expect(again.reason).toBe("");
      checkConsistent(again);
      expect(again.position.txid).toBe(killAfter === 0 ? txid : txid + 1);
    });
  }
});

describe("the page that holds the lock bytes", () => {
  for (const mode of ["delete", "wal"] as const) {
    it(`is in no transaction and no checksum, mode ${mode}`, () => {
      const pageSize = 65536;
      const lock = 0x40000000 / pageSize + 1;
      const disk = new FakeDisk();
      const db = open(disk);
      const pager = new MiniPager(db, new Random(1), { pageSize });
      pager.transaction({ pgnos: [1, 2], pageCount: 2 });
      pager.changeMode(mode);
      // Up to the page before it, so that not a whole gibibyte of pages is a gap in the next one.
      db.store.pageCount = lock - 3;
      pager.committed.pageCount = lock - 3;
      const blank = new Content();
      blank.pageCount = lock - 3;
      for (const [pgno, page] of pager.committed.pages) blank.pages.set(pgno, page);
      const sum = contentChecksum(blank, pageSize);
      db.log.checksumHi = Number(BigInt.asIntN(32, sum >> 32n));
      db.log.checksumLo = Number(BigInt.asIntN(32, sum));
      const before = db.position;
      pager.transaction({ pgnos: [2, lock - 1, lock + 1], pageCount: lock + 1 });
      const [ltx] = readAllAfter(disk, db, before);
      const pages = new Set<number>();
      const replica = blank.copy();
      applyTo(replica, [ltx ?? new Uint8Array(0)], pageSize);
      for (const pgno of replica.pages.keys()) if (pgno > 2) pages.add(pgno);
      expect([...pages].sort((a, b) => a - b)).toEqual([lock - 2, lock - 1, lock + 1]);
    });
  }
});

function readAllAfter(disk: FakeDisk, db: Database, after: Database["position"]): Uint8Array[] {
  const last = after.txid;
  const end = db.position;
  // The position before was set by hand, so the reader cannot know it: the record is read itself.
  const name = disk.list(`${DIRECTORY}/log`).find((file) => file.endsWith(".seg")) ?? "";
  const log = disk.content(`${DIRECTORY}/log/${name}`);
  const view = new DataView(log.buffer, log.byteOffset);
  const found: Uint8Array[] = [];
  for (let at = 0; at + 40 <= log.length;) {
    const length = Number(view.getBigUint64(at + 8));
    const txid = Number(view.getBigUint64(at + 16));
    if (view.getUint32(at + 4) === 1 && txid > last && txid <= end.txid) {
      found.push(log.slice(at + 40, at + 40 + length));
    }
    at += 40 + length;
  }
  return found;
}

it("a database that grows by a large hole gets a new base, not a transaction full of zeros", () => {
  const pageSize = 65536;
  const disk = new FakeDisk();
  const db = open(disk);
  const pager = new MiniPager(db, new Random(1), { pageSize });
  pager.transaction({ pgnos: [1, 2], pageCount: 2 });
  const before = db.position.txid;
  const pageCount = 1100;
  pager.committed.pageCount = pageCount;
  const header = new Uint8Array(pageSize);
  db.files.get("database")?.readAt(header, 0, pageSize, 0);
  new DataView(header.buffer).setUint32(28, pageCount);
  expect(db.write("database", 0, header, 0, pageSize)).toBe("ok");
  const last = new Uint8Array(pageSize).fill(7);
  expect(db.write("database", (pageCount - 1) * pageSize, last, 0, pageSize)).toBe("ok");
  expect(db.endLooseWrites()).toBe("ok");
  expect(db.position.txid).toBe(before + 1);
  expect(db.store.pageCount).toBe(pageCount);
  checkConsistent(db);
  expect(db.log.sizeBytes).toBeLessThan(1024 * 1024);
  const again = open(disk.kill());
  expect(again.position).toEqual(db.position);
  checkConsistent(again);
});

describe("a database that is dropped", () => {
  it("goes on with its numbers, and its old files stay with whoever has them open", () => {
    const disk = new FakeDisk();
    const host = new FakeHost();
    const db = open(disk, host);
    const pager = new MiniPager(db, new Random(1), { pageSize: 512 });
    pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
    const old = db.files;
    const file = disk.content(`${DIRECTORY}/database`);
    pager.drop();
    expect(db.status).toBe("deleted");
    expect(db.position).toEqual({ txid: 2, checksum: 0x8000000000000000n });
    const bytes = new Uint8Array(file.length);
    expect(old.get("database")?.readAt(bytes, 0, bytes.length, 0)).toBe(file.length);
    expect(bytes).toEqual(file);
    expect(host.retiredFiles).toEqual([old]);
    expect(open(disk.kill()).status).toBe("deleted");
    const again = open(disk.kill());
    const next = new MiniPager(again, new Random(8), { pageSize: 1024 });
    next.transaction({ pgnos: [1, 2], pageCount: 2 });
    expect(again.position.txid).toBe(3);
    checkContent(again, next.committed, 1024);
    expect(contentOf(open(disk.kill())).pageCount).toBe(2);
  });
});

it("a WAL is not started over under one who came meanwhile with locking_mode=EXCLUSIVE", () => {
  const disk = new FakeDisk();
  disk.mkdir("/data/dbs");
  const db = open(disk);
  const pager = new MiniPager(db, new Random(5), { pageSize: 512 });
  pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  pager.changeMode("wal");
  pager.transaction({ pgnos: [2], pageCount: 3 });
  const locks = new FakeLocks();
  const kernel = new FakeKernel();
  db.kernel = kernel;
  // While the daemon waits for the kernel; such a connection takes no lock of the wal-index.
  kernel.onSettling = () => locks.block("database", SHARED_FIRST);
  const before = db.wal.header;
  expect(finish(checkpointLocalWal(db, new LocalWal(db, locks), locks))).toBe(false);
  expect(db.wal.header).toEqual(before);
  kernel.onSettling = () => undefined;
  pager.transaction({ pgnos: [3], pageCount: 3 });
  checkContent(db, pager.committed, 512);
  locks.release();
  expect(finish(checkpointLocalWal(db, new LocalWal(db, locks), locks))).toBe(true);
});
