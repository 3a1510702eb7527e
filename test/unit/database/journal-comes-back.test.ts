import { describe, expect, it } from "vitest";
import { applyTransactions } from "../../../src/database/apply.ts";
import { checkpointLocalWal } from "../../../src/database/checkpoint.ts";
import { settleAfterDemotion } from "../../../src/database/demote.ts";
import { LocalWal } from "../../../src/database/local-wal.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { FakeKernel, FakeLocks, finish } from "./support/fake-mount.ts";
import { checkConsistent, checkContent, FakeHost, open, readAll } from "./support/harness.ts";
import { MiniPager } from "./support/mini-pager.ts";

const PAGE_SIZE = 65536;

function node(mode: "wal" | "delete" | "truncate") {
  const disk = FakeDisk.prepared();
  const host = new FakeHost();
  const db = open(disk, host);
  const locks = new FakeLocks();
  db.kernel = new FakeKernel();
  const local = new LocalWal(db, locks);
  const pager = new MiniPager(db, new Random(9), { pageSize: PAGE_SIZE, synchronous: "normal" });
  pager.transaction({ pgnos: [1, 2, 3, 4, 5], pageCount: 5 });
  if (mode !== "delete") pager.changeMode(mode);
  pager.transaction({ pgnos: [3], pageCount: 5 });
  return { disk, host, db, locks, local, pager };
}

describe("a journal in TRUNCATE mode that comes back after its node was deposed", () => {
  for (const mode of ["truncate", "delete"] as const) {
    it(mode, () => {
      const wrong: number[] = [];
      for (let seed = 1; seed <= 12; seed++) {
        const { disk, host, db, locks, local } = node(mode);
        const other = node(mode);
        const before = db.position;
        expect(other.db.position).toEqual(before);
        // This node is not the primary any more; the other one goes on.
        host.primary = false;
        finish(settleAfterDemotion(db, locks));
        for (let i = 0; i < 20; i++) {
          other.pager.transaction({ pgnos: [1, 2, 4, 5], pageCount: 5 });
        }
        const ltx = readAll(other.disk, other.db, before, 1);
        for (const file of ltx ?? []) {
          expect(finish(applyTransactions(db, local, locks, [file])).kind).toBe("applied");
        }
        checkContent(db, other.pager.committed, PAGE_SIZE);
        expect(db.log.state.durableTxid).toBeGreaterThan(before.txid);
        const after = open(disk.powerCut(new Random(seed)));
        expect(after.reason).toBe("");
        try {
          checkConsistent(after);
        } catch {
          wrong.push(seed);
        }
      }
      expect(wrong).toEqual([]);
    });
  }
});

describe("a checkpoint by litefs", () => {
  it("does not take for durable what an application has written meanwhile", () => {
    const wrong: number[] = [];
    for (let seed = 1; seed <= 12; seed++) {
      const { disk, db, locks, local, pager } = node("wal");
      pager.synchronous = "off";
      const kernel = new FakeKernel();
      db.kernel = kernel;
      pager.transaction({ pgnos: [2, 3, 4], pageCount: 5 });
      let isDone = false;
      kernel.onSettling = () => {
        // After its pages were written and synced, and before it has the locks to start the WAL over.
        if (isDone || db.store.frames.unwritten.size > 0 || db.store.frames.count === 0) return;
        isDone = true;
        pager.transaction({ pgnos: [2, 5], pageCount: 5 });
        pager.transaction({ pgnos: [3], pageCount: 5 });
        pager.checkpoint();
      };
      finish(checkpointLocalWal(db, local, locks));
      expect(isDone).toBe(true);
      db.log.sync();
      const after = open(disk.powerCut(new Random(seed)));
      try {
        expect(after.reason).toBe("");
        checkConsistent(after);
      } catch {
        wrong.push(seed);
      }
    }
    expect(wrong).toEqual([]);
  });
});
