import { expect, test } from "vitest";
import type { ForwardedCommit } from "../../../src/database/forwarded-commit.ts";
import type { Position } from "../../../src/lib/position.ts";
import { FakeDisk, Random } from "../database/support/fake-disk.ts";
import { FakeKernel } from "../database/support/fake-mount.ts";
import { FakeHost, open } from "../database/support/harness.ts";
import { IoFailure, MiniPager } from "../database/support/mini-pager.ts";
import type { JournalMode, Synchronous } from "../database/support/mini-pager.ts";

const PAGE_SIZE = 512;
const CHANGE = { pgnos: [2, 4], pageCount: 4 };

/** An application on a replica, and what the primary is asked to do for it. */
class Replica {
  readonly host = new FakeHost();
  readonly pager: MiniPager;
  readonly db;
  /** Of each commit, whether the primary was to sync along with it. */
  readonly sent: boolean[] = [];
  readonly asked: Position[] = [];
  isDurable = true;

  constructor(mode: JournalMode) {
    const disk = new FakeDisk();
    disk.mkdir("/data/dbs");
    this.db = open(disk, this.host);
    const { db } = this;
    db.kernel = new FakeKernel();
    this.pager = new MiniPager(db, new Random(1), { pageSize: PAGE_SIZE, mode });
    this.pager.transaction({ pgnos: [1, 2, 3, 4], pageCount: 4 });
    this.host.primary = false;
    let answer: (() => void) | undefined;
    db.arbiter = {
      submit: ({ isDurable }: ForwardedCommit, decided) => {
        this.sent.push(isDurable);
        answer = () => decided(true);
      },
      makeDurable: (position, done) => {
        this.asked.push(position);
        answer = () => done(this.isDurable);
      },
    };
    this.pager.waitForOthers = () => {
      let found = "later";
      if (db.isUndecided) db.whenDecided((final) => (found = final));
      else db.whenSynced((final) => (found = final));
      answer?.();
      return found;
    };
  }

  commit(synchronous: Synchronous): void {
    this.pager.synchronous = synchronous;
    this.pager.transaction(CHANGE);
  }
}

test("in WAL mode the primary syncs when the application does", () => {
  const replica = new Replica("wal");
  // Whoever it is, the first commit is taken for one that is followed by a sync.
  replica.commit("normal");
  replica.commit("normal");
  replica.commit("normal");
  expect(replica.sent).toEqual([true, false, false]);
  expect(replica.asked).toEqual([]);
  // The sync comes after the commit, which the primary may have in its memory alone.
  replica.commit("full");
  expect(replica.sent.at(-1)).toBe(false);
  expect(replica.asked).toEqual([replica.db.position]);
  replica.commit("full");
  replica.commit("full");
  expect(replica.sent.slice(-2)).toEqual([true, true]);
  expect(replica.asked).toHaveLength(1);
});

test("a sync that the primary cannot confirm fails, and only that one", () => {
  const replica = new Replica("wal");
  replica.commit("normal");
  replica.isDurable = false;
  replica.commit("normal");
  expect(() => replica.commit("full")).toThrow(new IoFailure("io"));
  // SQLite has rolled it back; the log has it.
  expect(replica.db.suspect).toBe(true);
  expect(replica.db.position.txid).toBe(4);
  expect(replica.db.sync("wal")).toBe("ok");
});

test("without the right to write, and as the primary, a sync is an affair of this node", () => {
  const replica = new Replica("wal");
  replica.commit("normal");
  replica.commit("normal");
  replica.host.primary = true;
  expect(replica.db.sync("wal")).toBe("ok");
  replica.host.primary = false;
  replica.db.arbiter = undefined;
  expect(replica.db.sync("wal")).toBe("ok");
  expect(replica.asked).toEqual([]);
});

test.each(["delete", "truncate", "persist"] as const)("%s: synced before it is sent", (mode) => {
  const replica = new Replica(mode);
  replica.commit("full");
  replica.commit("off");
  expect(replica.sent).toEqual([true, false]);
  expect(replica.asked).toEqual([]);
});
