import { describe, expect, it } from "vitest";
import { applySnapshot } from "../../../src/database/replace.ts";
import { reopenDatabase } from "../../../src/database/recover.ts";
import { settleAfterDemotion, rollBackAbandoned } from "../../../src/database/demote.ts";
import { runJob } from "../../../src/database/host.ts";
import { errorCode } from "../../../src/lib/errors.ts";
import { Random } from "./support/fake-disk.ts";
import { FakeLocks, finish } from "./support/fake-mount.ts";
import type { FakeHost } from "./support/harness.ts";
import { checkConsistent, checkContent, DIRECTORY, open } from "./support/harness.ts";
import { IoFailure, MiniPager } from "./support/mini-pager.ts";
import { encodeSnapshot } from "./support/encode-snapshot.ts";
import { content, mountedNode } from "./support/mounted-node.ts";

const RECEIVED = `${DIRECTORY}/snapshot.ltx.tmp`;

function node(mode: "wal" | "delete", opens: number) {
  const parts = mountedNode(mode, opens);
  parts.host.primary = false;
  return parts;
}

describe("two snapshots of the same TXID, of two histories", () => {
  it("do not mix when the node is killed while the second waits for its turn", () => {
    const { disk, db, locks, local } = node("wal", 1);
    const first = content(77, 5, "wal");
    disk.put(RECEIVED, encodeSnapshot(first, 512, 40));
    expect(finish(applySnapshot(db, local, locks, RECEIVED)).kind).toBe("applied");
    checkContent(db, first, 512);
    const position = db.position;
    // A second primary, whose history has come to the same number; an application holds the write lock.
    disk.put(RECEIVED, encodeSnapshot(content(78, 9, "wal"), 512, 40));
    locks.block("shm", 120);
    runJob(
      applySnapshot(db, local, locks, RECEIVED),
      () => undefined,
      () => undefined,
    );
    expect(db.position).toEqual(position);
    const after = open(disk.kill());
    expect(after.position).toEqual(position);
    // Either it says that it is damaged, or it is what its position says.
    if (after.status === "ok") checkConsistent(after);
  });

  it("do not mix when the disk is full for the second, and then the node is killed", () => {
    const { disk, db, locks, local } = node("wal", 1);
    const first = content(77, 5, "wal");
    disk.put(RECEIVED, encodeSnapshot(first, 512, 40));
    expect(finish(applySnapshot(db, local, locks, RECEIVED)).kind).toBe("applied");
    const position = db.position;
    disk.put(RECEIVED, encodeSnapshot(content(78, 9, "wal"), 512, 40));
    disk.failAt(1, "ENOSPC", (file, kind) => kind === "write" && file.includes("log.new"));
    expect(() => finish(applySnapshot(db, local, locks, RECEIVED))).toThrow("ENOSPC");
    disk.recover();
    expect(db.position).toEqual(position);
    const after = open(disk.kill());
    expect(after.position).toEqual(position);
    if (after.status === "ok") checkConsistent(after);
  });
});

describe("a change of the page size whose commit fails", () => {
  it("leaves no checksums of what was never committed, rolled back", () => {
    const { disk, db, host, pager } = node("delete", 0);
    host.primary = true;
    disk.failFrom(1, "ENOSPC", (file, kind) => kind === "write" && file.endsWith(".seg"));
    expect(() => pager.vacuum(1024, 4)).toThrow(IoFailure);
    disk.recover();
    expect(db.hasOpenChanges).toBe(true);
    // SQLite plays the journal back, and dies before it has removed it; or this node is deposed.
    for (let pgno = 1; pgno <= pager.committed.pageCount; pgno++) {
      db.write("database", (pgno - 1) * 512, pager.committed.page(pgno, 512), 0, 512);
    }
    db.truncate("database", pager.committed.pageCount * 512);
    db.sync("database");
    finish(rollBackAbandoned(db, new FakeLocks()));
    expect(db.hasOpenChanges).toBe(false);
    checkContent(db, pager.committed, 512);
    const next = new MiniPager(db, new Random(4), { pageSize: 512 });
    next.committed = pager.committed;
    next.changeCounter = 1000;
    next.transaction({ pgnos: [2], pageCount: 5 });
    checkContent(db, next.committed, 512);
  });

  it("leaves none on a node that is deposed", () => {
    const { disk, db, host, pager } = node("delete", 0);
    host.primary = true;
    disk.failFrom(1, "ENOSPC", (file, kind) => kind === "write" && file.endsWith(".seg"));
    expect(() => pager.vacuum(1024, 4)).toThrow(IoFailure);
    disk.recover();
    host.primary = false;
    finish(settleAfterDemotion(db, new FakeLocks()));
    expect(db.hasOpenChanges).toBe(false);
    checkContent(db, pager.committed, 512);
    host.primary = true;
    const next = new MiniPager(db, new Random(4), { pageSize: 512 });
    next.committed = pager.committed;
    next.changeCounter = 1000;
    next.transaction({ pgnos: [2], pageCount: 5 });
    checkContent(db, next.committed, 512);
  });
});

describe("no file stays open", () => {
  for (const mode of ["wal", "delete"] as const) {
    it(`when a snapshot cannot be written, ${mode}`, () => {
      const leaks: string[] = [];
      for (let nth = 1; ; nth++) {
        const { disk, db, locks, local } = node(mode, 1);
        disk.put(RECEIVED, encodeSnapshot(content(77, 9, mode), 512, 40));
        db.rest();
        db.files.closeAll();
        const before = disk.openHandles;
        let operation = "";
        let n = 0;
        disk.onOperation = (kind, file) => {
          if (kind === "read" || kind === "open" || ++n !== nth) return;
          operation = `${kind} ${file}`;
          throw Object.assign(new Error(`ENOSPC: ${operation}`), { code: "ENOSPC", errno: -28 });
        };
        let result: string | undefined;
        try {
          result = finish(applySnapshot(db, local, locks, RECEIVED)).kind;
        } catch (error) {
          expect(errorCode(error)).toBe("ENOSPC");
        }
        disk.recover();
        if (db.status === "quarantined") reopenDatabase(db);
        db.rest();
        db.log.release();
        for (const files of (db.host as FakeHost).retiredFiles) files.closeAll();
        if (disk.openHandles > before) leaks.push(`${operation}: ${disk.openHandles - before}`);
        if (result === "applied") break;
      }
      expect(leaks).toEqual([]);
    });
  }
});
