import { describe, expect, it } from "vitest";
import { checkpointLocalWal } from "../../../src/database/checkpoint.ts";
import type { Database } from "../../../src/database/database.ts";
import type { ApplyResult } from "../../../src/database/engine.ts";
import { LocalWal } from "../../../src/database/local-wal.ts";
import { reopenDatabase } from "../../../src/database/recover.ts";
import { applySnapshot } from "../../../src/database/replace.ts";
import { Snapshot } from "../../../src/database/snapshot.ts";
import { errorCode } from "../../../src/lib/errors.ts";
import { halvesToBigint } from "../../../src/ltx/crc64.ts";
import { runJob } from "../../../src/database/host.ts";
import { SHARED_LAST, WAL_READ2_LOCK } from "../../../src/sqlite/locks.ts";
import { decodeWalIndexHeaderPair } from "../../../src/sqlite/wal-index-header.ts";
import { FakeDisk, PowerCut, Random } from "./support/fake-disk.ts";
import { emptyIndex, FakeKernel, FakeLocks, finish } from "./support/fake-mount.ts";
import {
  checkConsistent,
  checkContent,
  contentChecksum,
  DIRECTORY,
  open,
} from "./support/harness.ts";
import { Content, MiniPager } from "./support/mini-pager.ts";
import { encodeSnapshot } from "./support/encode-snapshot.ts";
import { content, mountedNode } from "./support/mounted-node.ts";
import { randomStep } from "./support/workload.ts";

const RECEIVED = `${DIRECTORY}/snapshot.ltx.tmp`;

/** A node with a database of its own, in either mode, about to be replaced. */
function node(mode: "wal" | "delete", opens: number) {
  const parts = mountedNode(mode, opens);
  const { disk, host, db, locks, local } = parts;
  host.primary = false;
  const replace = (ltx: Uint8Array): ApplyResult => {
    disk.put(RECEIVED, ltx);
    return finish(applySnapshot(db, local, locks, RECEIVED));
  };
  return { ...parts, replace };
}

describe("a snapshot replaces a database", () => {
  for (const [mode, opens, pageSize] of [
    ["wal", 1, 512],
    ["wal", 1, 1024],
    ["wal", 0, 512],
    ["delete", 1, 512],
    ["delete", 1, 2048],
    ["delete", 0, 512],
  ] as const) {
    const what = `in mode ${mode} with ${opens} readers, by pages of ${pageSize} bytes`;
    it(what, () => {
      const { disk, db, locks, local, replace } = node(mode, opens);
      const next = content(77, 9, mode, pageSize);
      expect(replace(encodeSnapshot(next, pageSize, 40)).kind).toBe("applied");
      expect(db.position).toEqual({ txid: 40, checksum: contentChecksum(next, pageSize) });
      checkContent(db, next, pageSize);
      expect(locks.held.size).toBe(0);
      expect(disk.list(`${DIRECTORY}/diverged`)).toHaveLength(1);
      finish(checkpointLocalWal(db, local, locks));
      checkContent(db, next, pageSize);
      const after = disk.kill();
      checkContent(open(after), next, pageSize);
      const left = after.list(DIRECTORY).filter((name) => name.startsWith("snapshot"));
      expect(left).toEqual([]);
    });

    it(`${what}, and the power goes at any moment`, () => {
      const next = content(77, 9, mode, pageSize);
      const snapshot = encodeSnapshot(next, pageSize, 40);
      for (let nth = 1; ; nth++) {
        const { disk, db, replace, pager } = node(mode, opens);
        disk.put(RECEIVED, snapshot);
        const before = db.position;
        disk.cutAt(nth);
        let isOver = false;
        try {
          isOver = replaceAgain(replace);
        } catch (error) {
          if (!(error instanceof PowerCut)) throw error;
        }
        for (const after of [disk.powerCut(new Random(nth)), disk.kill()]) {
          const reopened = open(after);
          expect(reopened.reason, `cut at ${nth}`).toBe("");
          if (reopened.position.txid === before.txid) checkContent(reopened, pager.committed, 512);
          else checkContent(reopened, next, pageSize);
        }
        if (isOver) break;

        function replaceAgain(run: typeof replace): boolean {
          const put = disk.put.bind(disk);
          disk.put = () => undefined;
          try {
            return run(snapshot).kind === "applied";
          } finally {
            disk.put = put;
          }
        }
      }
    });

    it(`${what}, and any operation fails`, () => {
      const next = content(77, 9, mode, pageSize);
      const snapshot = encodeSnapshot(next, pageSize, 40);
      for (let nth = 1; ; nth++) {
        const { disk, db, locks, local, pager } = node(mode, opens);
        disk.put(RECEIVED, snapshot);
        const before = db.position;
        disk.failAt(nth, "ENOSPC");
        let result: ApplyResult | undefined;
        try {
          result = finish(applySnapshot(db, local, locks, RECEIVED));
        } catch (error) {
          // Nothing has changed yet, and the database goes on serving what it has.
          expect(errorCode(error)).toBe("ENOSPC");
          expect(db.status).toBe("ok");
          expect(db.position).toEqual(before);
          checkContent(db, pager.committed, 512);
        }
        disk.recover();
        expect(locks.held.size).toBe(0);
        expect(result?.kind).not.toBe("mismatch");
        if (result?.kind === "quarantined") {
          expect(db.reason).toContain("could not be replaced by a snapshot: ENOSPC");
          // The disk has space again: no restart is needed.
          expect(reopenDatabase(db)).toBe(true);
          if (db.position.txid === before.txid) checkContent(db, pager.committed, 512);
          else checkContent(db, next, pageSize);
        }
        const reopened = open(disk.kill());
        expect(reopened.reason, `operation ${nth}`).toBe("");
        if (reopened.position.txid === before.txid) checkContent(reopened, pager.committed, 512);
        else checkContent(reopened, next, pageSize);
        if (result?.kind === "applied") break;
      }
    });
  }

  it("of another page size shows itself to connections in WAL mode between two transactions", () => {
    const { db, disk, locks, local } = node("wal", 1);
    const kernel = new FakeKernel();
    db.kernel = kernel;
    kernel.shm = emptyIndex(512);
    const next = content(77, 9, "wal", 2048);
    disk.put(RECEIVED, encodeSnapshot(next, 2048, 40));
    locks.block("shm", WAL_READ2_LOCK);
    // Idle connections have this one; it is nothing to wait for.
    locks.block("database", SHARED_LAST);
    let result: ApplyResult | undefined;
    const start = (): void =>
      runJob(
        applySnapshot(db, local, locks, RECEIVED),
        (applied) => (result = applied),
        (error: unknown) => expect.fail(String(error)),
      );
    start();
    expect(result).toBeUndefined();
    expect(db.position.txid).toBe(3);
    locks.release();
    expect(result?.kind).toBe("applied");
    expect(locks.held.size).toBe(0);
    const header = decodeWalIndexHeaderPair(kernel.shm ?? new Uint8Array(0), 0);
    expect(header).toMatchObject({ pageSize: 2048, pageCount: 9, maxFrame: 0 });
    checkContent(db, next, 2048);
    checkContent(open(disk.kill()), next, 2048);
  });

  it("what an interrupted snapshot left does not mix with the next one", () => {
    const first = node("delete", 0);
    first.disk.put(RECEIVED, encodeSnapshot(content(5, 7), 512, 900));
    first.disk.failAt(1, "EIO", (file) => file.endsWith("/log"));
    finish(applySnapshot(first.db, first.local, first.locks, RECEIVED));
    first.disk.onOperation = () => undefined;
    const disk = first.disk.kill();
    const db = open(disk);
    const next = content(6, 4);
    disk.put(RECEIVED, encodeSnapshot(next, 512, 40));
    const locks = new FakeLocks();
    expect(finish(applySnapshot(db, new LocalWal(db, locks), locks, RECEIVED)).kind).toBe(
      "applied",
    );
    expect(db.position.txid).toBe(40);
    checkContent(open(disk.kill()), next, 512);
  });

  it("a quarantined database is healed, and everything of it is kept", () => {
    const { disk, db } = node("delete", 0);
    db.close();
    const segment = `${DIRECTORY}/log/0000000000000001.seg`;
    const log = disk.content(segment);
    log[200] = (log[200] ?? 0) ^ 1;
    disk.put(segment, log);
    const file = disk.content(`${DIRECTORY}/database`);
    const after = disk.kill();
    const damaged = open(after);
    expect(damaged.status).toBe("quarantined");
    const next = content(6, 4);
    after.put(RECEIVED, encodeSnapshot(next, 512, 40));
    const locks = new FakeLocks();
    const local = new LocalWal(damaged, locks);
    expect(finish(applySnapshot(damaged, local, locks, RECEIVED)).kind).toBe("applied");
    expect(damaged.status).toBe("ok");
    checkContent(damaged, next, 512);
    const [kept] = after.list(`${DIRECTORY}/quarantine`);
    expect(after.content(`${DIRECTORY}/quarantine/${kept}/log/0000000000000001.seg`)).toEqual(log);
    expect(after.content(`${DIRECTORY}/quarantine/${kept}/database`)).toEqual(file);
    checkContent(open(after.kill()), next, 512);
  });
});

describe("a snapshot that is read while writers go on", () => {
  it("gives exactly the state at its position", () => {
    for (let seed = 1; seed <= 10; seed++) {
      const random = new Random(seed);
      const db = open(new FakeDisk());
      const pager = new MiniPager(db, random, { pageSize: 65536 / 2 });
      const running: { snapshot: Snapshot; model: Content; read: Content }[] = [];
      const options = { modes: ["wal", "delete", "persist"] as const, dropChance: 0 };
      for (let i = 0; i < 50; i++) {
        randomStep(pager, random, options);
        if (random.chance(0.3)) {
          running.push({
            snapshot: take(db, i),
            model: pager.committed.copy(),
            read: new Content(),
          });
        }
        for (const [index, { snapshot, model, read }] of running.entries()) {
          if (random.chance(0.5)) continue;
          const pages = snapshot.next();
          for (const [at, pgno] of pages?.pgnos.entries() ?? []) {
            const { pageSize } = snapshot;
            read.pages.set(
              pgno,
              pages?.data.slice(at * pageSize, (at + 1) * pageSize) ?? read.page(0, 0),
            );
          }
          if (pages !== undefined) continue;
          read.pageCount = model.pageCount;
          const checksum = halvesToBigint(snapshot.checksumHi, snapshot.checksumLo);
          if (model.pageCount > 0) expect(contentChecksum(read, snapshot.pageSize)).toBe(checksum);
          snapshot.close();
          running.splice(index, 1);
          break;
        }
      }
      checkConsistent(db);
    }
  });

  it("is abandoned, not wrong, when there is no room for what it needs", () => {
    const disk = new FakeDisk();
    const db = open(disk);
    const pager = new MiniPager(db, new Random(1), { pageSize: 512 });
    pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
    const snapshot = take(db, 1);
    disk.failAt(1, "ENOSPC", (file) => file.endsWith(".side"));
    pager.transaction({ pgnos: [2], pageCount: 3 });
    checkContent(db, pager.committed, 512);
    expect(() => snapshot.next()).toThrow("replaced during a snapshot");
  });
});

function take(db: Database, id: number): Snapshot {
  const { txid, checksumHi, checksumLo, state } = db.log;
  const at = { txid, checksumHi, checksumLo, timestampMs: state.timestampMs };
  return new Snapshot(db.store, at, db.files.pathOf(`snapshot-${id}.side`));
}

it("what a snapshot's reader left behind at a kill goes at the next start", () => {
  const disk = new FakeDisk();
  const db = open(disk);
  const pager = new MiniPager(db, new Random(1), { pageSize: 512 });
  pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  take(db, 1);
  pager.transaction({ pgnos: [2], pageCount: 3 });
  expect(disk.list(DIRECTORY)).toContain("snapshot-1.side");
  const after = disk.kill();
  open(after);
  expect(after.list(DIRECTORY)).not.toContain("snapshot-1.side");
});
