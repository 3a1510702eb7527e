import { expect, it } from "vitest";
import type { Database } from "../../../src/database/database.ts";
import { decodeShelved, encodeShelved } from "../../../src/database/shelf-file.ts";
import { readShelf, readShelfHead, writeShelf } from "../../../src/database/shelf-file.ts";
import { shelve, takeFromShelf } from "../../../src/database/shelved-database.ts";
import type { ShelvedDatabase } from "../../../src/database/shelved-database.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { checkConsistent, checkContent } from "./support/harness.ts";
import { DIRECTORY, FakeHost, open } from "./support/harness.ts";
import { MiniPager } from "./support/mini-pager.ts";

/** A database that a first run has written and a second has found in order: it is at rest. */
function atRest(transactions = 3) {
  const first = FakeDisk.prepared();
  const db = open(first);
  const pager = new MiniPager(db, new Random(5), {
    pageSize: 512,
    mode: "delete",
    synchronous: "full",
  });
  for (let i = 0; i < transactions; i++) pager.transaction({ pgnos: [1, 2 + i], pageCount: 5 + i });
  db.close();
  db.files.closeAll();
  const disk = first.kill();
  const again = open(disk);
  again.close();
  const shelved = shelve(again);
  if (shelved === undefined) throw new Error("it is not at rest");
  return { disk: disk.kill(), shelved: decodeShelved(encodeShelved(shelved)), pager };
}

function take(disk: FakeDisk, shelved: ShelvedDatabase): Database | undefined {
  return takeFromShelf(shelved, new FakeHost(), disk, DIRECTORY);
}

function write(disk: FakeDisk, name: string, offset: number): void {
  const file = disk.open(`${DIRECTORY}/${name}`, { create: true });
  file?.writeAt(Uint8Array.of(7), 0, 1, offset);
  file?.close();
}

function lastSegment(disk: FakeDisk): string {
  const name = disk.list(`${DIRECTORY}/log`).filter((other) => other.endsWith(".seg"));
  return `log/${name.sort().at(-1)}`;
}

it("a database from the shelf is what it was, and goes on", () => {
  const { disk, shelved, pager } = atRest();
  const db = take(disk, shelved);
  expect(db?.position).toEqual(pager.db.position);
  if (db === undefined) return;
  checkContent(db, pager.committed, 512);
  checkConsistent(db);
  const next = new MiniPager(db, new Random(9), {
    pageSize: 512,
    mode: "delete",
    synchronous: "full",
  });
  next.reopen(pager.committed, 512);
  next.transaction({ pgnos: [1, 4], pageCount: 9 });
  expect(db.log.txid).toBe(shelved.log.txid + 1);
  checkConsistent(db);
  // What was committed and synced then is there, whatever the power leaves.
  for (let seed = 1; seed <= 40; seed++) {
    checkContent(open(disk.powerCut(new Random(seed))), next.committed, 512);
  }
});

it("a database is shelved after retention has emptied its log", () => {
  const { disk } = atRest();
  const db = open(disk);
  db.log.rotateIfOlderThan(Infinity);
  db.log.enforceRetention(Infinity);
  db.close();
  const shelved = shelve(db);
  expect(shelved?.log.segments.at(-1)?.firstTxid).toBe(db.log.txid + 1);
  const next = disk.kill();
  expect(shelved && take(next, shelved)?.position).toEqual(db.position);
});

it.each([
  ["its file was written", (disk: FakeDisk) => write(disk, "database", 600)],
  ["its file is longer", (disk: FakeDisk) => write(disk, "database", 100_000)],
  ["its file is gone", (disk: FakeDisk) => disk.remove(`${DIRECTORY}/database`)],
  ["there is a WAL", (disk: FakeDisk) => write(disk, "wal", 0)],
  ["there is a journal", (disk: FakeDisk) => write(disk, "journal", 0)],
  ["it was quarantined", (disk: FakeDisk) => write(disk, "quarantined", 0)],
  ["its log is longer", (disk: FakeDisk) => write(disk, lastSegment(disk), 100_000)],
  [
    "its log has one segment more",
    (disk: FakeDisk) => write(disk, `log/${"0".repeat(14)}99.seg`, 0),
  ],
  ["its log is gone", (disk: FakeDisk) => disk.removeDirectory(`${DIRECTORY}/log`)],
])("it is not taken for what it was when %s", (_, change) => {
  const { disk, shelved } = atRest();
  expect(take(disk, shelved)?.name).toBe("app.db");
  change(disk);
  expect(take(disk, shelved)).toBeUndefined();
});

it("nor when a power cut has destroyed the end of its log, which looks the same", () => {
  let lost = 0;
  for (let seed = 1; seed <= 60; seed++) {
    const { disk, shelved, pager } = atRest();
    const after = disk.powerCut(new Random(seed));
    const db = take(after, shelved);
    if (db === undefined) lost++;
    checkContent(db ?? open(after), pager.committed, 512);
  }
  expect(lost).toBeGreaterThan(0);
  expect(lost).toBeLessThan(60);
});

it("nor when its first page is no header, although nobody seems to have written it", () => {
  const { disk, shelved } = atRest();
  write(disk, "database", 3);
  const file = disk.identify(`${DIRECTORY}/database`);
  if (file === undefined) throw new Error("it is there");
  expect(take(disk, { ...shelved, file })).toBeUndefined();
  expect(open(disk).status).toBe("quarantined");
});

it("what is in use, or owes something, is not shelved", () => {
  const { disk, shelved } = atRest();
  const db = take(disk, shelved);
  if (db === undefined) throw new Error("it is at rest");
  expect(shelve(db)).toEqual(shelved);
  db.isLent = true;
  expect(shelve(db)).toBeUndefined();
  db.isLent = false;
  db.quarantine("for a test");
  expect(shelve(db)).toBeUndefined();
});

it("the shelf says in which boot it was written, and is known by its digest", () => {
  const { disk, shelved } = atRest();
  expect(readShelfHead(disk, "/data")).toBeUndefined();
  expect(readShelf(disk, "/data")).toBeUndefined();
  const line = encodeShelved({ ...shelved, name: "größer.db" });
  const digest = writeShelf(disk, "/data", [encodeShelved(shelved), line]);
  expect(digest).toMatch(/^[0-9a-f]{64}$/);
  const killed = disk.kill();
  expect(readShelfHead(killed, "/data")).toEqual({ isOfThisBoot: true, digest });
  expect(readShelf(killed, "/data")).toMatchObject({ isOfThisBoot: true, digest });
  const next = killed.powerCut(new Random(3));
  expect(readShelfHead(next, "/data")).toEqual({ isOfThisBoot: false, digest });
  expect([...(readShelf(next, "/data")?.lines ?? [])]).toEqual([
    ["app.db", encodeShelved(shelved)],
    ["größer.db", line],
  ]);
});
