import { describe, expect, it } from "vitest";
import { Scrub } from "../../../src/database/scrub.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { DIRECTORY, open } from "./support/harness.ts";
import { MiniPager } from "./support/mini-pager.ts";
import { randomStep } from "./support/workload.ts";

const DATABASE = `${DIRECTORY}/database`;

/** A database of 20 pages of 512 bytes, opened anew: nothing is known of its pages. */
function opened(mode: "wal" | "delete" = "delete") {
  const first = new FakeDisk();
  const before = open(first);
  const pgnos = Array.from({ length: 20 }, (_, i) => i + 1);
  const pager = new MiniPager(before, new Random(1), { pageSize: 512 });
  pager.transaction({ pgnos, pageCount: 20 });
  pager.changeMode(mode);
  before.close();
  const disk = first.kill();
  const db = open(disk);
  const next = new MiniPager(db, new Random(2), { pageSize: 512, mode });
  next.committed = pager.committed;
  next.changeCounter = pager.changeCounter;
  return { disk, db, pager: next };
}

function flip(disk: FakeDisk, offset: number): void {
  const bytes = disk.content(DATABASE);
  const byte = new Uint8Array([(bytes[offset] ?? 0) ^ 1]);
  disk.open(DATABASE)?.writeAt(byte, 0, 1, offset);
}

/** Three pages at a time. */
function readAll(scrub: Scrub, between: () => void = () => undefined) {
  for (let i = 0; i < 1000; i++) {
    const step = scrub.step(3 * 512);
    if (step.kind !== "more") return step;
    between();
  }
  throw new Error("it never ends");
}

describe("a scrub", () => {
  it("finds nothing in a sound database, also while it is written", () => {
    for (const mode of ["wal", "delete"] as const) {
      const { db, pager } = opened(mode);
      const random = new Random(7);
      for (let round = 0; round < 30; round++) {
        const step = readAll(new Scrub(db), () => {
          randomStep(pager, random, { modes: [mode], dropChance: 0, changeModeChance: 0 });
        });
        expect(step.kind).toBe("done");
      }
      expect(db.status).toBe("ok");
    }
  });

  it("finds a bit that was flipped before, by the sum of all pages", () => {
    const { disk, db, pager } = opened();
    flip(disk, 7 * 512 + 100);
    // A commit elsewhere changes nothing about that.
    pager.transaction({ pgnos: [2], pageCount: 20 });
    const step = readAll(new Scrub(db));
    expect(step.kind).toBe("damaged");
    expect(db.status).toBe("quarantined");
    expect(db.reason).toMatch(/^the pages of .*\/database have checksum .*, its position is /);
    expect(db.reason).toContain("litefs repair -name app.db");
    // The next start need not read everything to know.
    const again = open(disk.kill());
    expect(again.status).toBe("quarantined");
    expect(again.reason).toBe(db.reason);
  });

  it("names the page whose checksum was known", () => {
    const { disk, db } = opened();
    expect(readAll(new Scrub(db)).kind).toBe("done");
    flip(disk, 7 * 512 + 100);
    expect(readAll(new Scrub(db)).kind).toBe("damaged");
    expect(db.reason).toContain("page 8 at offset 3584 of /data/dbs/app.db/database");
  });

  it("waits while somebody has written pages that are not committed", () => {
    const { disk, db, pager } = opened();
    const scrub = new Scrub(db);
    disk.failAt(1, "ENOSPC", (file) => file.includes("/log/"));
    expect(() => pager.transaction({ pgnos: [1, 5], pageCount: 20 })).toThrow();
    disk.recover();
    expect(db.hasOpenChanges).toBe(true);
    expect(scrub.step(1_000_000)).toEqual({ kind: "more", bytes: 0 });
    pager.recoverHotJournal();
    expect(readAll(scrub).kind).toBe("done");
  });

  it("has nothing to do for what is dropped or quarantined", () => {
    const { db, pager } = opened();
    pager.drop();
    expect(new Scrub(db).step(1000)).toEqual({ kind: "done", bytes: 0 });
    const other = opened().db;
    other.quarantine("a test");
    expect(new Scrub(other).step(1000)).toEqual({ kind: "done", bytes: 0 });
    expect(other.reason).toBe("a test");
  });
});
