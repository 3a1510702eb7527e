import { describe, expect, it } from "vitest";
import { applyTransactions } from "../../../src/database/apply.ts";
import type { ApplyResult } from "../../../src/database/engine.ts";
import type { ForwardedCommit } from "../../../src/database/forwarded-commit.ts";
import { runJob } from "../../../src/database/host.ts";
import { applySnapshot } from "../../../src/database/replace.ts";
import { SHARED_FIRST } from "../../../src/sqlite/locks.ts";
import { Random } from "./support/fake-disk.ts";
import type { FakeLocks } from "./support/fake-mount.ts";
import { checkConsistent, checkContent, DIRECTORY, open, readAll } from "./support/harness.ts";
import { encodeSnapshot } from "./support/encode-snapshot.ts";
import { mountedNode } from "./support/mounted-node.ts";

const RECEIVED = `${DIRECTORY}/snapshot.ltx.tmp`;

function block(mode: "wal" | "delete", locks: FakeLocks): void {
  if (mode === "wal") locks.block("shm", 120);
  else locks.block("database", SHARED_FIRST);
}

describe.each(["wal", "delete"] as const)(
  "a database that is quarantined while something waits, in mode %s",
  (mode) => {
    it("a snapshot that waits for a lock does not mix with what is damaged", () => {
      const { disk, db, host, locks, local, pager } = mountedNode(mode, 1);
      host.primary = false;
      const other = { committed: pager.committed.copy() };
      // The histories differ in one page.
      other.committed.pages.set(
        4,
        pager.committed.page(4, 512).map((b) => b ^ 5),
      );
      disk.put(RECEIVED, encodeSnapshot(other.committed, 512, 40));
      block(mode, locks);
      let result: ApplyResult | undefined;
      let failure: unknown;
      runJob(
        applySnapshot(db, local, locks, RECEIVED),
        (r) => (result = r),
        (e) => (failure = e),
      );
      expect(result).toBeUndefined();
      db.quarantine("its file cannot be made durable: EIO", "disk");
      locks.release();
      expect(failure).toBeUndefined();
      expect(result).toBeDefined();
      if (db.status === "ok") checkContent(db, other.committed, 512);
      if (db.status === "ok") expect(db.files.isRevoked).toBe(false);
    });

    it("stays quarantined when a transaction is applied that waited for a lock", () => {
      const { db, host, locks, local } = mountedNode(mode, 1);
      const other = mountedNode(mode, 1);
      const before = db.position;
      other.pager.transaction({ pgnos: [4], pageCount: 5 });
      const ltx = readAll(other.disk, other.db, before) ?? [];
      host.primary = false;
      block(mode, locks);
      let result: ApplyResult | undefined;
      runJob(
        applyTransactions(db, local, locks, ltx),
        (r) => (result = r),
        () => undefined,
      );
      expect(result).toBeUndefined();
      // The scrub has found that a page is not what was written there.
      db.condemn("page 2 is not what was written there");
      locks.release();
      expect(result?.kind).toBe("quarantined");
      expect(db.status).toBe("quarantined");
    });

    it("stays quarantined when the primary has taken a forwarded commit", () => {
      const { db, host, pager } = mountedNode(mode, 1);
      host.primary = false;
      let answer: (() => void) | undefined;
      db.arbiter = {
        submit: (_commit: ForwardedCommit, decided) => (answer = () => decided(true)),
        makeDurable: (_position, done) => done(true),
      };
      pager.synchronous = "off";
      pager.waitForOthers = () => {
        let found = "never";
        db.whenDecided((final) => (found = final));
        db.condemn("page 2 is not what was written there");
        answer?.();
        return found;
      };
      pager.transaction({ pgnos: [4], pageCount: 5 });
      expect(db.status).toBe("quarantined");
    });
  },
);

it("a sync that has failed is not tried again at the end of loose writes", () => {
  const { disk, db, pager } = mountedNode("delete", 1);
  const wrong: number[] = [];
  expect(db.files.owesDatabaseSync).toBe(true);
  const page = pager.committed.page(2, 512).map((b) => b ^ 3);
  expect(db.write("database", 512, page, 0, 512)).toBe("ok");
  disk.failAt(1, "EIO", (file, kind) => kind === "sync" && file.endsWith("/database"));
  expect(() => db.sync("database")).toThrow("EIO");
  disk.recover();
  expect([db.status, db.quarantineCause]).toEqual(["quarantined", "disk"]);
  const told = db.endLooseWrites();
  expect(told).toBeDefined();
  const isLifted = db.status !== "quarantined";
  // As with the next thing that is synced.
  db.log.sync();
  const after = open(disk.powerCut(new Random(1)));
  try {
    checkConsistent(after);
  } catch {
    wrong.push(1);
  }
  expect({ wrong, isLifted }).toEqual({ wrong: [], isLifted: false });
});
