import { expect, test } from "vitest";
import type { ForwardedCommit } from "../../../src/database/forwarded-commit.ts";
import { FakeDisk, Random } from "../database/support/fake-disk.ts";
import { FakeKernel } from "../database/support/fake-mount.ts";
import { checkContent, FakeHost, open } from "../database/support/harness.ts";
import { IoFailure, MiniPager } from "../database/support/mini-pager.ts";

function replica(mode: "wal" | "delete") {
  const disk = new FakeDisk();
  disk.mkdir("/data/dbs");
  const host = new FakeHost();
  const db = open(disk, host);
  db.kernel = new FakeKernel();
  const pager = new MiniPager(db, new Random(1), { pageSize: 512, mode: "delete" });
  pager.transaction({ pgnos: [1, 2, 3, 4], pageCount: 4 });
  pager.changeMode(mode);
  pager.transaction({ pgnos: [2], pageCount: 4 });
  host.primary = false;
  let answer: (() => void) | undefined;
  db.arbiter = {
    submit: (_commit: ForwardedCommit, decided) => (answer = () => decided(true)),
    makeDurable: (_position, done) => (answer = () => done(true)),
  };
  pager.waitForOthers = () => {
    let found = "never answered";
    if (db.isUndecided) db.whenDecided((final) => (found = final));
    else db.whenSynced((final) => (found = final));
    try {
      answer?.();
    } catch (error) {
      // As the mount thread does with what a message leads to.
      found += `: ${String(error)}`;
    }
    return found;
  };
  return { disk, host, db, pager };
}

for (const mode of ["wal", "delete"] as const) {
  test(`a forwarded commit is answered although the log here has no room, ${mode}`, () => {
    const { disk, db, pager } = replica(mode);
    const { committed } = pager;
    disk.failFrom(1, "ENOSPC", (file, kind) => kind === "write" && file.endsWith(".seg"));
    // As after each checkpoint: it is noted when there is room again.
    db.files.syncDatabase();
    db.log.sync();
    db.log.noteDurable(db.log.txid, "now");
    let told = "";
    try {
      pager.transaction({ pgnos: [2, 4], pageCount: 4 });
    } catch (error) {
      if (!(error instanceof IoFailure)) throw error;
      told = error.message;
    }
    expect(told).toBe("io");
    expect(db.isUndecided).toBe(false);
    disk.recover();
    checkContent(db, committed, 512);
  });
}

test.each(["refused", "committed"])(
  "10: %s, and the database file cannot be written",
  (decision) => {
    const { disk, host, db, pager } = replica("delete");
    // As after a change of who is the primary: the change counter jumps.
    host.epoch = 5;
    db.arbiter = {
      submit: (_commit: ForwardedCommit, decided) => {
        queueMicrotask(() => undefined);
        answer = () => {
          disk.failFrom(1, "EIO", (file, kind) => kind === "write" && file.endsWith("/database"));
          decided(decision === "committed");
        };
      },
      makeDurable: (_position, done) => done(true),
    };
    let answer: (() => void) | undefined;
    let found = "never answered";
    pager.waitForOthers = () => {
      db.whenDecided((final) => (found = final));
      try {
        answer?.();
      } catch (error) {
        found += `: ${String(error)}`;
      }
      return found;
    };
    expect(() => pager.transaction({ pgnos: [2, 4], pageCount: 4 })).toThrow(IoFailure);
    expect(found).toBe("io");
    expect(db.isUndecided).toBe(false);
  },
);
