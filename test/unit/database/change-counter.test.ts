import { describe, expect, it } from "vitest";
import { counterAfter, jumpOf } from "../../../src/database/change-counter.ts";
import type { Database } from "../../../src/database/database.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { checkConsistent, checkContent, contentOf, FakeHost, open } from "./support/harness.ts";
import { JournalWriter } from "./support/journal-writer.ts";
import { MiniPager } from "./support/mini-pager.ts";
import type { JournalMode } from "./support/mini-pager.ts";

const PAGE_SIZE = 512;
const MODES = ["delete", "truncate", "persist", "memory"] as const;
const FAR = 1 << 24;

function countersOf(db: Database): readonly [counter: number, ofSize: number] {
  const page = contentOf(db).page(1, PAGE_SIZE);
  const view = new DataView(page.buffer, page.byteOffset);
  return [view.getUint32(24), view.getUint32(92)];
}

/** A database with three pages that a process before has made. */
function opened(mode: JournalMode, disk: FakeDisk = new FakeDisk()) {
  const first = new MiniPager(open(disk), new Random(1), { pageSize: PAGE_SIZE, mode });
  first.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  first.transaction({ pgnos: [2], pageCount: 3 });
  const committed = first.committed;
  first.db.close();
  const host = new FakeHost();
  host.epoch = 0;
  const db = open(disk, host);
  const pager = new MiniPager(db, new Random(2), { pageSize: PAGE_SIZE, mode });
  pager.reopen(committed, PAGE_SIZE);
  pager.mode = mode;
  return { disk, host, db, pager };
}

describe("the change counter", () => {
  it("steps by what SQLite makes it, unless that is nothing or back", () => {
    expect(counterAfter(5, 6, undefined)).toBeUndefined();
    expect(counterAfter(5, 9, undefined)).toBeUndefined();
    expect(counterAfter(0xffffffff, 0, undefined)).toBeUndefined();
    expect(counterAfter(5, 5, undefined)).toBe(6);
    expect(counterAfter(5_000_000, 6, undefined)).toBe(5_000_001);
    expect(counterAfter(0xffffffff, 0xffffffff, undefined)).toBe(0);
    expect(counterAfter(5, 6, FAR)).toBe(FAR + 5);
    expect(counterAfter(0xffffffff, 0, FAR)).toBe(FAR - 1);
  });

  it("jumps far, and never twice alike", () => {
    const jumps = new Set<number>();
    for (let ms = 0; ms < 1000; ms++) {
      for (const nodeId of [1n, 2n ** 40n + 2n]) jumps.add(jumpOf(nodeId, 1_700_000_000_000 + ms));
    }
    expect(jumps.size).toBeGreaterThan(1_990);
    for (const jump of jumps) {
      expect(jump).toBeGreaterThanOrEqual(FAR);
      expect(jump).toBeLessThan(2 ** 31);
    }
  });
});

describe.each(MODES)("in mode %s", (mode) => {
  it("jumps in the first transaction after the history may have forked, and only there", () => {
    const { db, host, pager } = opened(mode);
    const [before] = countersOf(db);
    const seen: number[] = [];
    for (const epoch of [0, 0, 1, 1]) {
      host.epoch = epoch;
      pager.transaction({ pgnos: [2, 4], pageCount: 4 });
      checkContent(db, pager.committed, PAGE_SIZE);
      const [counter, ofSize] = countersOf(db);
      expect(ofSize).toBe(counter);
      seen.push(counter);
    }
    const [a = 0, b = 0, c = 0, d = 0] = seen;
    expect((a - before) >>> 0).toBeGreaterThanOrEqual(FAR);
    expect(b).toBe(a + 1);
    expect((c - b) >>> 0).toBeGreaterThanOrEqual(FAR);
    expect(d).toBe((c + 1) >>> 0);
  });

  it("does not jump in a new database: nobody can have its pages", () => {
    const host = new FakeHost();
    host.epoch = 0;
    const db = open(new FakeDisk(), host);
    const pager = new MiniPager(db, new Random(3), { pageSize: PAGE_SIZE, mode });
    pager.transaction({ pgnos: [1, 2], pageCount: 2 });
    pager.transaction({ pgnos: [2], pageCount: 2 });
    expect(countersOf(db)[0]).toBe(2);
  });

  it("is the same after a kill and after a power cut", () => {
    for (const crash of ["kill", "power cut"]) {
      const { db, disk, pager } = opened(mode);
      pager.transaction({ pgnos: [2, 3], pageCount: 3 });
      const { position } = db;
      const after = contentOf(db);
      const again = open(crash === "kill" ? disk.kill() : disk.powerCut(new Random(5)));
      expect(again.reason).toBe("");
      expect(again.position).toEqual(position);
      checkContent(again, after, PAGE_SIZE);
      checkConsistent(again);
    }
  });

  it("is told to the kernel before the application goes on", () => {
    const { db, pager } = opened(mode);
    const stored: string[] = [];
    db.kernel = {
      ...db.kernel,
      store: (kind, offset, data) => stored.push(`${kind} ${offset} ${data.length}`),
    };
    pager.transaction({ pgnos: [2], pageCount: 3 });
    expect(stored).toEqual(["database 24 4", "database 92 4"]);
    expect(db.owesKernel).toBe(true);
  });
});

/** As a connection with `locking_mode=EXCLUSIVE` after its first transaction: page 1 stays as it is. */
function writeUncounted(db: Database, value: number, nonce: number): void {
  const before = contentOf(db);
  const journal = new JournalWriter(before.pageCount, PAGE_SIZE, nonce);
  const write = (kind: "journal" | "database", offset: number, data: Uint8Array): void => {
    expect(db.write(kind, offset, data, 0, data.length)).toBe("ok");
  };
  db.files.getOrCreate("journal");
  write("journal", 0, journal.header(false));
  for (const [offset, data] of journal.record(2, before.page(2, PAGE_SIZE))) {
    write("journal", offset, data);
  }
  write("journal", journal.headerOffset, journal.seal());
  expect(db.sync("journal")).toBe("ok");
  write("database", PAGE_SIZE, before.page(2, PAGE_SIZE).slice().fill(value, 100, 200));
  expect(db.sync("database")).toBe("ok");
}

describe("a transaction that SQLite does not count", () => {
  it("is counted, since on replicas others look after each", () => {
    const { db, host, pager } = opened("delete");
    host.epoch = -1;
    pager.transaction({ pgnos: [2], pageCount: 3 });
    const [before] = countersOf(db);
    for (let i = 1; i <= 3; i++) {
      writeUncounted(db, i, i);
      const { txid } = db.position;
      expect(db.unlink("journal")).toBe("ok");
      expect(db.position.txid).toBe(txid + 1);
      expect(countersOf(db)).toEqual([before + i, before + i]);
      checkConsistent(db);
    }
  });

  it("is not there when its journal cannot be removed, and its counter neither", () => {
    const { db, disk } = opened("delete");
    const before = contentOf(db);
    const { position } = db;
    writeUncounted(db, 7, 7);
    disk.failAt(1, "EIO", (_file, kind) => kind === "remove");
    expect(db.unlink("journal")).toBe("io");
    expect(db.position).toEqual(position);
    const page1 = new Uint8Array(PAGE_SIZE);
    db.store.readDatabasePage(1, page1, 0);
    expect(page1).toEqual(before.page(1, PAGE_SIZE));
  });
});

describe("bytes that are written without a journal", () => {
  it("are a transaction, and not counted: who writes them does not expect it", () => {
    const { db, host, pager } = opened("memory");
    host.epoch = -1;
    pager.transaction({ pgnos: [2], pageCount: 3 });
    const before = countersOf(db);
    const { txid } = db.position;
    expect(db.write("database", PAGE_SIZE + 40, Uint8Array.of(1, 2, 3, 4), 0, 4)).toBe("ok");
    expect(db.endLooseWrites()).toBe("ok");
    expect(db.position.txid).toBe(txid + 1);
    expect(countersOf(db)).toEqual(before);
    checkConsistent(db);
  });
});
