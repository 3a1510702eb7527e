import { expect, it } from "vitest";
import { reopenDatabase } from "../../../src/database/recover.ts";
import { FakeDisk, Random, systemError } from "./support/fake-disk.ts";
import { checkContent, FakeHost, open } from "./support/harness.ts";
import { IoFailure, MiniPager } from "./support/mini-pager.ts";

it("what was refused is not committed by opening the database anew", () => {
  const disk = new FakeDisk();
  disk.mkdir("/data/dbs");
  const host = new FakeHost();
  const db = open(disk, host);
  const pager = new MiniPager(db, new Random(9), { pageSize: 512 });
  pager.transaction({ pgnos: [1, 2, 3, 4, 5], pageCount: 5 });
  pager.changeMode("wal");
  pager.transaction({ pgnos: [2], pageCount: 5 });
  const before = db.position;
  // The lease runs out while the record is written; then the disk fails to take it back.
  let asked = 0;
  host.isCovered = () => ++asked % 2 === 1 || (disk.failFrom(1, "EIO"), false);
  expect(() => pager.transaction({ pgnos: [3], pageCount: 5 })).toThrow(IoFailure);
  expect(db.position).toEqual(before);
  expect([db.status, db.quarantineCause]).toEqual(["quarantined", "disk"]);
  disk.recover();
  host.isCovered = () => true;
  expect(reopenDatabase(db)).toBe(true);
  expect(db.position).toEqual(before);
  checkContent(db, pager.committed, 512);
});

for (const mode of ["delete", "truncate"] as const) {
  it(`what SQLite has rolled back does not come back after a power cut, ${mode}`, () => {
    for (let seed = 1; seed < 60; seed++) {
      const disk = FakeDisk.prepared();
      const db = open(disk);
      const pager = new MiniPager(db, new Random(5), { pageSize: 512, mode });
      for (let i = 0; i < 12; i++) pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
      const before = pager.committed;
      const { position } = db;
      // The log has the transaction, durably, and then its journal cannot be ended.
      let isLogged = false;
      disk.onSynced = (file) => (isLogged ||= file.endsWith(".seg"));
      disk.onOperation = (kind, file) => {
        const isEnd = kind === "remove" || kind === "truncate";
        if (!isLogged || !isEnd || !file.endsWith("/journal")) return;
        disk.recover();
        throw systemError("EIO", file);
      };
      expect(() => pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 })).toThrow(IoFailure);
      expect(isLogged).toBe(true);
      pager.reopen(before, 512);
      expect(db.position).toEqual(position);
      const after = open(disk.powerCut(new Random(seed)));
      expect([after.reason, after.position]).toEqual(["", position]);
      checkContent(after, before, 512);
    }
  });
}
