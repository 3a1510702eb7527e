import { describe, expect, it } from "vitest";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import {
  checkConsistent,
  checkContent,
  DIRECTORY,
  FakeHost,
  open,
  readAll,
} from "./support/harness.ts";
import { IoFailure, MiniPager } from "./support/mini-pager.ts";

function node(mode: "delete" | "wal" | "truncate" = "delete", pageSize = 512) {
  const disk = FakeDisk.prepared();
  const host = new FakeHost();
  const db = open(disk, host);
  const pager = new MiniPager(db, new Random(3), { pageSize, mode: "delete" });
  pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  if (mode !== "delete") pager.changeMode(mode);
  pager.transaction({ pgnos: [2], pageCount: 3 });
  pager.transaction({ pgnos: [3], pageCount: 3 });
  return { disk, host, db, pager };
}

describe("a commit that fills a segment", () => {
  it("can be taken back when its journal cannot be ended", () => {
    const { disk, db, pager } = node("delete", 65536);
    const before = db.position;
    disk.failAt(1, "EIO", (file, kind) => kind === "remove" && file.endsWith("/journal"));
    const pgnos = Array.from({ length: 270 }, (_, i) => i + 1);
    expect(() => pager.transaction({ pgnos, pageCount: 270 })).toThrow(IoFailure);
    disk.recover();
    expect(db.position).toEqual(before);
    pager.recoverHotJournal();
    pager.transaction({ pgnos: [2], pageCount: 3 });
    const acknowledged = db.position;
    checkContent(db, pager.committed, 65536);
    const after = open(disk.kill());
    expect(after.reason).toBe("");
    expect(after.position).toEqual(acknowledged);
  });
});

describe("a segment that was begun in vain", () => {
  it("is begun again by retention, and is not removed after that", () => {
    const { disk, db, pager } = node();
    // One bad moment of the disk, while retention begins a segment: no fsync of a file or a directory works.
    disk.failFrom(1, "EIO", (_file, kind) => kind === "sync" || kind === "syncDirectory");
    db.log.sync();
    expect(() => db.log.rotateIfOlderThan(Infinity)).toThrow("EIO");
    disk.recover();
    expect(db.status).toBe("ok");
    // A minute later.
    db.log.rotateIfOlderThan(Infinity);
    for (let i = 0; i < 3; i++) pager.transaction({ pgnos: [2], pageCount: 3 });
    const acknowledged = db.position;
    expect(disk.list(`${DIRECTORY}/log`)).toContain(db.log.end.segment);
    const after = open(disk.kill());
    expect(after.position).toEqual(acknowledged);
  });

  it("holds what is committed after that, at the next start too", () => {
    // Any start notes that the file has everything.
    const first = node("wal");
    const disk = first.disk.kill();
    const db = open(disk);
    const pager = new MiniPager(db, new Random(4), { pageSize: 512 });
    pager.reopen(first.pager.committed, 512);
    db.log.sync();
    disk.failFrom(1, "EIO", (_file, kind) => kind === "sync" || kind === "syncDirectory");
    expect(() => db.log.rotateIfOlderThan(Infinity)).toThrow("EIO");
    disk.recover();
    expect(db.status).toBe("ok");
    db.log.rotateIfOlderThan(Infinity);
    for (let i = 0; i < 3; i++) pager.transaction({ pgnos: [2], pageCount: 3 });
    pager.closeWal();
    const after = open(disk.kill());
    expect(after.reason).toBe("");
    checkConsistent(after);
  });
});

describe("what stands behind the end of a segment when retention begins the next", () => {
  it("is cut off when it is half of a note, of which there was no room", () => {
    const { disk, db, pager } = node();
    // `cp` over the database: the disk is full when the log is to be told.
    disk.failAt(1, "ENOSPC", (file, kind) => kind === "write" && file.endsWith(".seg"));
    const page = pager.committed.page(2, 512);
    expect(() => db.write("database", 512, page, 0, 512)).toThrow("ENOSPC");
    disk.recover();
    db.log.rotateIfOlderThan(Infinity);
    const { position } = db;
    const after = open(disk.kill());
    expect(after.reason).toBe("");
    expect(after.position).toEqual(position);
  });

  it("is cut off when it is a transaction that was refused, and not sent to replicas", () => {
    const { disk, db, host, pager } = node("wal");
    const before = db.position;
    // The lease has run out while this was written, and the log cannot be cut at this moment.
    let asked = 0;
    host.isCovered = () => ++asked % 2 === 1;
    disk.failAt(1, "EIO", (file, kind) => kind === "truncate" && file.endsWith(".seg"));
    expect(() => pager.transaction({ pgnos: [2], pageCount: 3 })).toThrow(IoFailure);
    disk.recover();
    host.isCovered = () => true;
    expect(db.position).toEqual(before);
    pager.recoverHotJournal();
    expect(db.position).toEqual(before);
    db.log.rotateIfOlderThan(Infinity);
    pager.transaction({ pgnos: [3], pageCount: 3 });
    pager.transaction({ pgnos: [3], pageCount: 3 });
    const sent = readAll(disk, db);
    const after = open(disk.kill());
    expect([sent?.length, after.reason]).toEqual([db.position.txid, ""]);
    expect(after.reason).toBe("");
    checkContent(after, pager.committed, 512);
  });
});
