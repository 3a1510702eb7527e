import { expect, it } from "vitest";
import { reopenDatabase } from "../../../src/database/recover.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
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
