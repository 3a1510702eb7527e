import { describe, expect, test } from "vitest";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { checkContent, DIRECTORY, open } from "./support/harness.ts";
import { IoFailure, MiniPager } from "./support/mini-pager.ts";
import type { JournalMode } from "./support/mini-pager.ts";

const MODES: readonly JournalMode[] = ["delete", "truncate", "persist"];
const PAGES = [1, 2, 3, 4, 5, 6, 7, 8];
const PAGE_SIZE = 512;

/** A database that was opened anew: of what was before, the log will apply nothing again. */
function started(mode: JournalMode, seed = 1): { disk: FakeDisk; pager: MiniPager } {
  const first = new FakeDisk();
  first.mkdir("/data/dbs");
  const options = { pageSize: PAGE_SIZE, mode };
  const before = new MiniPager(open(first), new Random(seed), options);
  before.transaction({ pgnos: PAGES, pageCount: PAGES.length });
  first.syncAll();
  const disk = first.kill();
  const pager = new MiniPager(open(disk), new Random(seed), options);
  pager.committed = before.committed;
  pager.changeCounter = before.changeCounter;
  pager.transaction({ pgnos: [2], pageCount: PAGES.length });
  return { disk, pager };
}

/** A commit that fails after all is written and synced, and is taken back by means of the journal. */
function rollBack(disk: FakeDisk, pager: MiniPager): void {
  disk.failAt(1, "ENOSPC", (file, kind) => kind === "write" && file.includes("/log/"));
  expect(() => pager.transaction({ pgnos: PAGES, pageCount: PAGES.length })).toThrow(IoFailure);
  disk.recover();
  pager.recoverHotJournal();
}

/** How often each file of the database directory is synced by what is done. */
function syncsOf(disk: FakeDisk, action: () => void): Record<string, number> {
  const counts: Record<string, number> = {};
  disk.onSynced = (file) => {
    const name = file.slice(DIRECTORY.length + 1).replace(/^log\/.*/, "log");
    counts[name] = (counts[name] ?? 0) + 1;
  };
  action();
  disk.onSynced = () => undefined;
  return counts;
}

describe.each(MODES)("%s", (mode) => {
  test("a commit syncs the log, and not the database file as well", () => {
    const { disk, pager } = started(mode);
    const commit = (): void => {
      pager.transaction({ pgnos: [3, 5], pageCount: PAGES.length });
    };
    expect(syncsOf(disk, commit)).toMatchObject({ log: 1 });
    expect(syncsOf(disk, commit)).not.toHaveProperty("database");
  });

  test("a rollback of what was written already syncs the database file", () => {
    const { disk, pager } = started(mode);
    expect(syncsOf(disk, () => rollBack(disk, pager))).toHaveProperty("database", 1);
  });

  test("whatever of the commits and of a rollback a power cut leaves, nothing is lost", () => {
    for (let seed = 1; seed <= 150; seed++) {
      const { disk, pager } = started(mode, seed);
      for (let i = 0; i < seed % 4; i++) {
        pager.transaction({ pgnos: [1 + ((seed + i) % 8)], pageCount: PAGES.length });
      }
      if (seed % 3 === 0) rollBack(disk, pager);
      else pager.transaction({ pgnos: PAGES, pageCount: PAGES.length, spillEvery: 2 });
      // The end of the journal is often durable by chance; here it always is.
      if (seed % 2 === 0) disk.syncDirectory(DIRECTORY);
      const db = open(disk.powerCut(new Random(seed)));
      expect(db.reason).toBe("");
      checkContent(db, pager.committed, PAGE_SIZE);
    }
  });

  test("it is made up for when nobody uses the database any more", () => {
    const { disk, pager } = started(mode);
    pager.transaction({ pgnos: [3], pageCount: PAGES.length });
    expect(pager.db.files.owesDatabaseSync).toBe(true);
    expect(syncsOf(disk, () => pager.db.rest())).toHaveProperty("database", 1);
    expect(pager.db.files.owesDatabaseSync).toBe(false);
    expect(pager.db.log.state.durableTxid).toBe(pager.db.log.txid - 1);
  });
});

test("after as much log as recovery should have to apply at most, the file is synced", () => {
  const { disk, pager } = started("delete");
  let files = 0;
  const syncs = syncsOf(disk, () => {
    const before = pager.db.log.sizeBytes;
    while (pager.db.log.sizeBytes - before < 5 * 1024 * 1024) {
      pager.transaction({ pgnos: PAGES, pageCount: PAGES.length });
      files++;
    }
  });
  expect(files).toBeGreaterThan(100);
  expect(syncs).toHaveProperty("database", 1);
  expect(pager.db.log.state.durableTxid).toBeGreaterThan(100);
});

test("a disk that fails when it is made up for is reported, not passed over", () => {
  const { disk, pager } = started("delete");
  pager.transaction({ pgnos: [3], pageCount: PAGES.length });
  disk.failFrom(1, "EIO", (file, kind) => kind === "sync" && file.endsWith("/database"));
  pager.db.rest();
  expect(pager.db.status).toBe("quarantined");
});
