import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { F_RDLCK, F_WRLCK } from "../../../src/fuse/constants.ts";
import { LockTable } from "../../../src/filesystem/lock-table.ts";
import { WAL_READ0_LOCK, WAL_READ4_LOCK, WAL_WRITE_LOCK } from "../../../src/sqlite/locks.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { open } from "./support/harness.ts";
import { MiniPager } from "./support/mini-pager.ts";
import type { Synchronous } from "./support/mini-pager.ts";

/** A database in WAL mode, and the files that were synced or read since. */
function watched(synchronous: Synchronous) {
  const disk = new FakeDisk();
  const db = open(disk);
  const pager = new MiniPager(db, new Random(3), { pageSize: 512, synchronous });
  const pgnos = Array.from({ length: 2000 }, (_, i) => i + 1);
  pager.transaction({ pgnos, pageCount: pgnos.length });
  pager.changeMode("wal");
  pager.transaction({ pgnos: [2], pageCount: pgnos.length });
  const seen: string[] = [];
  const watch = (kind: string): void => {
    seen.length = 0;
    disk.onOperation = (operation, file) => {
      if (operation === kind) seen.push(path.basename(file));
    };
  };
  return { disk, pager, seen, watch };
}

describe("number 16: a commit syncs what the application syncs", () => {
  it("nothing with NORMAL in WAL mode, and the log, once, with FULL", () => {
    const normal = watched("normal");
    normal.watch("sync");
    for (let i = 0; i < 10; i++) normal.pager.transaction({ pgnos: [3, 4], pageCount: 2000 });
    expect(normal.seen).toEqual([]);

    const full = watched("full");
    full.watch("sync");
    for (let i = 0; i < 10; i++) full.pager.transaction({ pgnos: [3, 4], pageCount: 2000 });
    expect(full.seen).toHaveLength(10);
    for (const file of full.seen) expect(file).toMatch(/^[0-9a-f]{16}\.seg$/);
  });
});

it("number 26: opening a database reads next to nothing of it", () => {
  const { disk, pager } = watched("full");
  pager.checkpoint();
  pager.restartWal();
  const after = disk.kill();
  let reads = 0;
  after.onOperation = (kind, file) => {
    if (kind === "read" && file.endsWith("/database")) reads++;
  };
  expect(open(after).store.pageCount).toBe(2000);
  expect(reads).toBeLessThan(10);
});

it("number 27: what a lock owner and a WAL took is given back", () => {
  const table = new LockTable();
  for (let owner = 1; owner <= 1000; owner++) {
    table.set(owner, 0, owner, 1, WAL_READ0_LOCK, WAL_READ0_LOCK, F_RDLCK);
    table.set(owner, 0, owner, 1, WAL_WRITE_LOCK, WAL_WRITE_LOCK, F_WRLCK);
    table.releaseOwner(owner, 0);
  }
  expect(table.size).toBe(0);

  const { pager } = watched("normal");
  for (let i = 0; i < 500; i++) pager.transaction({ pgnos: [3, 4], pageCount: 2000 });
  const { frames } = pager.db.store;
  expect(frames.count).toBeGreaterThan(1000);
  pager.checkpoint();
  pager.restartWal();
  pager.transaction({ pgnos: [5], pageCount: 2000 });
  expect(frames.count).toBe(1);
  expect(frames.unwritten.size).toBe(1);
});

it("number 29: a range that is refused leaves nothing behind", () => {
  const table = new LockTable();
  table.set(1, 0, 1, 1, WAL_READ4_LOCK, WAL_READ4_LOCK, F_RDLCK);
  const all = [WAL_READ0_LOCK, WAL_READ4_LOCK, F_WRLCK] as const;
  expect(table.conflict(2, 0, false, ...all)).toMatchObject({ ownerLo: 1 });
  // A third one gets every byte but that.
  expect(table.conflict(3, 0, false, WAL_READ0_LOCK, WAL_READ4_LOCK - 1, F_WRLCK)).toBeUndefined();
  expect(table.size).toBe(1);
});
