import { describe, expect, it } from "vitest";
import { encodeJournalHeader, journalPageChecksum } from "../../../src/sqlite/journal.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import { rollBackAbandoned } from "../../../src/database/demote.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { FakeLocks, finish } from "./support/fake-mount.ts";
import { checkConsistent, checkContent, contentOf, DIRECTORY, open } from "./support/harness.ts";
import type { Content } from "./support/mini-pager.ts";
import { MiniPager } from "./support/mini-pager.ts";

const SUPER_JOURNAL = "/litefs/main.db-mj1A2B3C9D4";
const PAGE_SIZE = 512;
const SECTOR = 512;

/** A journal with the old content of pages 1 and 2 that names a super-journal. */
function journalOf(content: Content, superJournal: string): Uint8Array {
  const nonce = 7;
  const pgnos = [1, 2];
  const name = new TextEncoder().encode(superJournal);
  const recordBytes = 4 + PAGE_SIZE + 4;
  // The name goes behind the last record, on a sector of its own, as SQLite does it.
  const nameAt = Math.ceil((SECTOR + pgnos.length * recordBytes) / SECTOR) * SECTOR + 4;
  const bytes = new Uint8Array(nameAt + name.length + 16);
  const view = new DataView(bytes.buffer);
  const { pageCount: initialPageCount } = content;
  const header = {
    recordCount: 2,
    nonce,
    initialPageCount,
    sectorSize: SECTOR,
    pageSize: PAGE_SIZE,
  };
  encodeJournalHeader(header, bytes, 0);
  for (const [i, pgno] of pgnos.entries()) {
    const at = SECTOR + i * recordBytes;
    view.setUint32(at, pgno);
    bytes.set(content.page(pgno, PAGE_SIZE), at + 4);
    view.setUint32(at + 4 + PAGE_SIZE, journalPageChecksum(nonce, bytes, at + 4, PAGE_SIZE));
  }
  view.setUint32(nameAt - 4, 0x40000000 / PAGE_SIZE + 1);
  bytes.set(name, nameAt);
  view.setUint32(nameAt + name.length, name.length);
  view.setUint32(
    nameAt + name.length + 4,
    name.reduce((sum, byte) => sum + byte, 0),
  );
  bytes.set(bytes.subarray(0, 8), nameAt + name.length + 8);
  return bytes;
}

/** A database in the middle of a transaction over several databases: all is written and synced. */
function inTheMiddle() {
  const disk = FakeDisk.prepared();
  const db = open(disk);
  const pager = new MiniPager(db, new Random(4), { pageSize: PAGE_SIZE });
  pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  const before = contentOf(db);
  const journal = journalOf(before, SUPER_JOURNAL);
  expect(db.write("journal", 0, journal, 0, journal.length)).toBe("ok");
  expect(db.sync("journal")).toBe("ok");
  const after = before.copy();
  for (const pgno of [1, 2]) {
    const page = before.page(pgno, PAGE_SIZE).slice();
    page[300] = (page[300] ?? 0) ^ pgno;
    after.pages.set(pgno, page);
    expect(db.write("database", (pgno - 1) * PAGE_SIZE, page, 0, PAGE_SIZE)).toBe("ok");
  }
  expect(db.sync("database")).toBe("ok");
  return { disk, db, before, after };
}

describe("a crash in the middle of a transaction over several databases", () => {
  const places = [
    ["in the mount", "/data/files/main.db-mj1A2B3C9D4"],
    ["in a directory of the mount", "/data/files/litefs/main.db-mj1A2B3C9D4"],
    ["where LiteFS kept it", "/data/dbs/main.db-mj1A2B3C9D4"],
    ["outside of the mount", SUPER_JOURNAL],
  ] as const;
  for (const [where, place] of places) {
    it(`is rolled back while the super-journal is there, ${where}`, () => {
      const { disk, db, before } = inTheMiddle();
      const { position } = db;
      disk.mkdir(place.slice(0, place.lastIndexOf("/")));
      disk.put(
        place,
        new TextEncoder().encode("/litefs/main.db-journal\0/litefs/app.db-journal\0"),
      );
      const again = open(disk.kill());
      expect(again.reason).toBe("");
      expect(again.position).toEqual(position);
      checkContent(again, before, PAGE_SIZE);
    });
  }

  for (const isEmpty of [false, true]) {
    it(`is committed when the super-journal is ${isEmpty ? "empty" : "gone"}`, () => {
      const { disk, db, after } = inTheMiddle();
      const { txid } = db.position;
      if (isEmpty) {
        disk.mkdir("/data/files");
        disk.put("/data/files/main.db-mj1A2B3C9D4", new Uint8Array(0));
      }
      for (const [how, crashed] of [
        ["kill", disk.kill()],
        ["power cut", disk.powerCut(new Random(1))],
      ] as const) {
        const again = open(crashed);
        expect(again.reason).toBe("");
        expect(again.position.txid, how).toBe(txid + 1);
        checkContent(again, after, PAGE_SIZE);
        expect(crashed.size(`${DIRECTORY}/journal`)).toBeUndefined();
        const position = formatPosition(again.position);
        const once = open(crashed.kill());
        expect(formatPosition(once.position)).toBe(position);
        checkConsistent(once);
      }
    });
  }

  it("is the same once more when the log had it already", () => {
    const { disk, db } = inTheMiddle();
    const journal = disk.content(`${DIRECTORY}/journal`);
    expect(db.unlink("journal")).toBe("ok");
    const { position } = db;
    const after = contentOf(db);
    // The removal of the journal's name did not reach the disk.
    disk.put(`${DIRECTORY}/journal`, journal);
    const again = open(disk.kill());
    expect(again.position.checksum).toEqual(position.checksum);
    checkContent(again, after, PAGE_SIZE);
  });

  it("is taken back when this node stopped being the primary: the log does not have it", () => {
    const { db, before } = inTheMiddle();
    const { position } = db;
    db.takeBackOpenChanges();
    expect(db.position).toEqual(position);
    checkContent(db, before, PAGE_SIZE);
  });
});

it("nobody but SQLite decides about it while the mount is there", () => {
  const { db } = inTheMiddle();
  const { position } = db;
  finish(rollBackAbandoned(db, new FakeLocks()));
  expect(db.hasHotJournal).toBe(true);
  // SQLite finds the super-journal gone, and ends the journal.
  expect(db.unlink("journal")).toBe("ok");
  expect(db.position.txid).toBe(position.txid + 1);
});
