import { describe, expect, it } from "vitest";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import {
  applyTo,
  checkConsistent,
  checkContent,
  FakeHost,
  open,
  readAll,
} from "./support/harness.ts";
import { Content, IoFailure, MiniPager } from "./support/mini-pager.ts";
import { randomStep } from "./support/workload.ts";

describe("what SQLite's pager writes becomes transactions", () => {
  for (const pageSize of [512, 4096, 65536]) {
    for (const bigEndian of [false, true]) {
      const steps = pageSize === 65536 ? 40 : 120;
      it(`random work, page size ${pageSize}, ${bigEndian ? "big" : "little"}-endian WAL`, () => {
        for (let seed = 1; seed <= (pageSize === 65536 ? 3 : 12); seed++) {
          const random = new Random(seed * 7919 + pageSize + Number(bigEndian));
          const disk = new FakeDisk();
          const db = open(disk);
          const pager = new MiniPager(db, random, { pageSize, bigEndian });
          const history: string[] = [];
          try {
            for (let i = 0; i < steps; i++) {
              const before = db.position;
              history.push(randomStep(pager, random));
              checkContent(db, pager.committed, pageSize);
              expect(db.position.txid - before.txid).toBeLessThanOrEqual(1);
            }
            const ltx = readAll(disk, db);
            expect(ltx).toBeDefined();
            const replica = new Content();
            applyTo(replica, ltx ?? [], pageSize);
            checkContent(db, replica, pageSize);
          } catch (error) {
            throw new Error(`seed ${seed}, after: ${history.slice(-4).join("; ")}`, {
              cause: error,
            });
          }
        }
      });
    }
  }
});

describe("rollbacks", () => {
  for (const mode of ["delete", "truncate", "persist"] as const) {
    it(`a rollback after a spill leaves no transaction in mode ${mode}`, () => {
      const { db, pager } = filled(mode);
      const before = db.position;
      pager.transaction({ pgnos: [2, 3, 4, 5], pageCount: 9, spillEvery: 2, rollBack: true });
      expect(db.position).toEqual(before);
      checkContent(db, pager.committed, 512);
    });
  }

  it("a rolled back first transaction leaves an empty database", () => {
    const disk = new FakeDisk();
    const db = open(disk);
    const pager = new MiniPager(db, new Random(3), { pageSize: 512 });
    pager.transaction({ pgnos: [1, 2, 3], pageCount: 3, spillEvery: 1, rollBack: true });
    expect(db.position.txid).toBe(0);
    pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
    expect(db.position.txid).toBe(1);
    checkContent(db, pager.committed, 512);
  });
});

describe("a commit that is refused", () => {
  it("when the node is not the primary at the commit point, in the WAL", () => {
    const { db, host, pager } = filled("wal");
    let before = db.position;
    for (const spillEvery of [0, 1]) {
      // Refused at each write of the transaction in turn, the commit frame's page among them.
      let refusals = 0;
      for (;;) {
        let calls = 0;
        host.isPrimary = () => ++calls <= refusals;
        try {
          pager.transaction({ pgnos: [2, 3], pageCount: 6, spillEvery });
          break;
        } catch (error) {
          expect(error).toBeInstanceOf(IoFailure);
        }
        refusals++;
        expect(db.position).toEqual(before);
        checkContent(db, pager.committed, 512);
      }
      expect(refusals).toBeGreaterThan(3);
      expect(db.position.txid).toBe(before.txid + 1);
      before = db.position;
    }
    host.isPrimary = () => true;
    pager.transaction({ pgnos: [2, 3], pageCount: 6 });
    expect(db.position.txid).toBe(before.txid + 1);
    checkContent(db, pager.committed, 512);
  });

  it("when the log is full, in the WAL: its frame is made invalid", () => {
    const { disk, db, pager } = filled("wal");
    const before = db.position;
    const walSize = db.files.size("wal");
    disk.failAt(1, "ENOSPC", (file) => file.includes("/log/"));
    expect(() => pager.transaction({ pgnos: [3], pageCount: 6 })).toThrow(IoFailure);
    disk.onOperation = () => undefined;
    expect(db.position).toEqual(before);
    const wal = disk.content("/data/dbs/app.db/wal");
    expect(wal.subarray(walSize).every((byte) => byte === 0)).toBe(true);
    pager.transaction({ pgnos: [3], pageCount: 6 });
    checkContent(db, pager.committed, 512);
    expect(db.position.txid).toBe(before.txid + 1);
  });

  it("when the kernel cuts the write in two, and SQLite tries the second half again", () => {
    const { disk, db, pager } = filled("wal");
    const before = db.position;
    const write = db.write.bind(db);
    db.write = (kind, offset, data, start, length) => {
      if (kind !== "wal" || length !== 512) return write(kind, offset, data, start, length);
      const half = length / 2;
      const first = write(kind, offset, data, start, half);
      if (first !== "ok") return first;
      const second = write(kind, offset + half, data, start + half, half);
      // write(2) returns a short count then, and SQLite writes the rest once more.
      return second === "ok" ? second : write(kind, offset + half, data, start + half, half);
    };
    disk.failAt(1, "ENOSPC", (file) => file.includes("/log/"));
    expect(() => pager.transaction({ pgnos: [3], pageCount: 6 })).toThrow(IoFailure);
    disk.onOperation = () => undefined;
    expect(db.position).toEqual(before);
    pager.transaction({ pgnos: [3], pageCount: 6 });
    expect(db.position.txid).toBe(before.txid + 1);
    checkContent(db, pager.committed, 512);
  });

  for (const mode of ["delete", "truncate", "persist"] as const) {
    it(`when the log is full, in mode ${mode}: the journal stays and is played back`, () => {
      const { disk, db, pager } = filled(mode);
      const before = db.position;
      disk.failAt(1, "ENOSPC", (file) => file.includes("/log/"));
      expect(() => pager.transaction({ pgnos: [3, 5], pageCount: 8 })).toThrow(IoFailure);
      disk.onOperation = () => undefined;
      pager.recoverHotJournal();
      expect(db.position).toEqual(before);
      checkContent(db, pager.committed, 512);
      pager.transaction({ pgnos: [3], pageCount: 7 });
      expect(db.position.txid).toBe(before.txid + 1);
      checkContent(db, pager.committed, 512);
    });
  }
});

it("a WAL with pages of another size than the database's is refused, in whatever pieces", () => {
  const disk = new FakeDisk();
  const db = open(disk);
  const pager = new MiniPager(db, new Random(1), { pageSize: 1024 });
  pager.transaction({ pgnos: [1, 2], pageCount: 2 });
  const other = open(new FakeDisk());
  const otherPager = new MiniPager(other, new Random(2), { pageSize: 512 });
  otherPager.transaction({ pgnos: [1, 2], pageCount: 2 });
  otherPager.changeMode("wal");
  otherPager.transaction({ pgnos: [2], pageCount: 2 });
  const source = other.files.get("wal");
  const bytes = new Uint8Array(source?.size() ?? 0);
  source?.readAt(bytes, 0, bytes.length, 0);
  expect(bytes.length).toBeGreaterThan(512);
  const before = db.position;
  for (const piece of [bytes.length, 32, 20]) {
    const outcomes = [];
    for (let at = 0; at < bytes.length; at += piece) {
      outcomes.push(db.write("wal", at, bytes, at, Math.min(piece, bytes.length - at)));
    }
    expect(outcomes, `in pieces of ${piece}`).toContain("io");
    expect(db.truncate("wal", 0)).toBe("ok");
  }
  expect(db.position).toEqual(before);
  pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  checkContent(db, pager.committed, 1024);
});

describe("any operation of the disk may fail", () => {
  for (const code of ["ENOSPC", "EIO"] as const) {
    for (const mode of ["wal", "delete", "persist"] as const) {
      it(`${code} in mode ${mode}: the database stays at a position it really has`, () => {
        for (let nth = 1; nth <= 60; nth++) {
          const { disk, db, pager } = filled(mode, nth);
          const random = new Random(nth);
          disk.failAt(nth, code);
          const applied: string[] = [];
          for (let i = 0; i < 12; i++) {
            try {
              applied.push(randomStep(pager, random, { changeModeChance: 0, dropChance: 0 }));
            } catch (error) {
              if (!(error instanceof IoFailure)) throw error;
              applied.push(`failed: ${error.message}`);
              disk.onOperation = () => undefined;
              break;
            }
          }
          disk.onOperation = () => undefined;
          const reopened = open(disk.kill());
          try {
            expect(reopened.reason).toBe("");
            checkConsistent(reopened);
            expect(reopened.position.txid).toBeGreaterThanOrEqual(db.position.txid);
            if (reopened.position.txid === db.position.txid) {
              expect(reopened.position).toEqual(db.position);
            }
          } catch (error) {
            throw new Error(`operation ${nth}: ${applied.slice(-3).join("; ")}`, { cause: error });
          }
        }
      });
    }
  }
});

function filled(mode: "wal" | "delete" | "truncate" | "persist", seed = 1) {
  const disk = new FakeDisk();
  const host = new FakeHost();
  const db = open(disk, host);
  const pager = new MiniPager(db, new Random(seed), { pageSize: 512 });
  pager.transaction({ pgnos: [1, 2, 3, 4, 5, 6], pageCount: 6 });
  pager.changeMode(mode);
  pager.transaction({ pgnos: [2, 4], pageCount: 6 });
  checkContent(db, pager.committed, 512);
  return { disk, host, db, pager };
}

it("a file that is cut to its committed size after the commit is no change", () => {
  const { disk, db, pager } = filled("delete");
  pager.transaction({ pgnos: [2], pageCount: 3 });
  expect(db.log.isLoose).toBe(false);
  const before = disk.operations;
  expect(db.endLooseWrites()).toBe("ok");
  expect(disk.operations).toBe(before);
  checkContent(db, pager.committed, 512);
});
