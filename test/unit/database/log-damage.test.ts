import { describe, expect, it } from "vitest";
import { reopenDatabase } from "../../../src/database/recover.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { checkConsistent, DIRECTORY, open, readAll } from "./support/harness.ts";
import { MiniPager } from "./support/mini-pager.ts";

const SEGMENT = `${DIRECTORY}/log/0000000000000001.seg`;

function written(count = 6) {
  const disk = FakeDisk.prepared();
  const db = open(disk);
  const pager = new MiniPager(db, new Random(5), { pageSize: 512 });
  const ends: number[] = [];
  const positions = [db.position];
  pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  pager.changeMode("wal");
  pager.synchronous = "off";
  for (let i = 0; i < count; i++) {
    ends.push(db.log.end.offsetBytes);
    positions.push(db.position);
    pager.transaction({ pgnos: [2, 3], pageCount: 3 });
  }
  positions.push(db.position);
  return { disk, db, pager, ends, positions };
}

function flip(disk: FakeDisk, offset: number): void {
  const bytes = disk.content(SEGMENT);
  bytes[offset] = (bytes[offset] ?? 0) ^ 0xff;
  disk.put(SEGMENT, bytes);
}

describe("a record that cannot be read, with readable ones behind it", () => {
  it("is damage while the machine stayed up, and nothing is changed", () => {
    const { disk, ends } = written();
    flip(disk, (ends[2] ?? 0) + 100);
    const before = disk.content(SEGMENT);
    const db = open(disk.kill());
    expect(db.status).toBe("quarantined");
    expect(db.reason).toContain("is damaged: the record at offset");
    expect(disk.kill().content(SEGMENT)).toEqual(before);
  });

  it("is what a power cut may leave after another boot: it is cut off and kept", () => {
    const { disk, ends, positions } = written();
    flip(disk, (ends[2] ?? 0) + 100);
    const before = disk.content(SEGMENT);
    disk.syncAll();
    const after = disk.powerCut(new Random(1));
    const db = open(after);
    expect(db.reason).toBe("");
    expect(db.position).toEqual(positions[3]);
    expect(db.log.tornBytes).toBe(before.length - (ends[2] ?? 0));
    expect(after.content(`${SEGMENT}.torn`)).toEqual(before.slice(ends[2]));
    checkConsistent(db);
    expect(readAll(after, db)).toHaveLength(db.position.txid);
    // Opening once more finds nothing torn.
    expect(open(after.kill()).log.tornBytes).toBe(0);
  });
});

it("cut anywhere, the log ends with its last complete record", () => {
  const { disk, ends, positions } = written();
  const whole = disk.content(SEGMENT);
  for (let size = ends[1] ?? 0; size < whole.length; size += 37) {
    disk.put(SEGMENT, whole.slice(0, size));
    const db = open(disk.kill());
    const complete = ends.filter((end) => end <= size).length;
    expect(db.reason).toBe("");
    expect(db.position).toEqual(positions[complete]);
    checkConsistent(db);
    expect(disk.kill().size(`${SEGMENT}.torn`)).toBeUndefined();
  }
});

it("a record that does not continue the one before it is not taken", () => {
  const { disk, ends } = written();
  const whole = disk.content(SEGMENT);
  // An earlier record once more at the end: complete, valid, and not the next one.
  const stale = whole.slice(ends[1], ends[2]);
  const doubled = new Uint8Array(whole.length + stale.length);
  doubled.set(whole);
  doubled.set(stale, whole.length);
  disk.put(SEGMENT, doubled);
  const db = open(disk.kill());
  expect(db.position.txid).toBe(8);
  checkConsistent(db);
});

describe("a sync of the log that fails", () => {
  it("once: what the cache still has goes into a new file, and nothing is lost", () => {
    const { disk, db, positions } = written();
    disk.failAt(1, "EIO", (file, kind) => kind === "sync" && file === SEGMENT);
    db.log.sync();
    expect(db.status).toBe("ok");
    expect(db.position).toEqual(positions.at(-1));
    const after = disk.powerCut(new Random(1));
    expect(open(after).position).toEqual(positions.at(-1));
  });

  it("for good: nothing more is taken, until the disk works again", () => {
    const { disk, db, positions } = written();
    disk.failFrom(1, "EIO");
    expect(() => db.log.sync()).toThrow("EIO");
    expect(db.status).toBe("quarantined");
    expect(db.reason).toContain("its log cannot be made durable: EIO: sync");
    expect(reopenDatabase(db)).toBe(false);
    disk.recover();
    expect(() => db.log.sync()).toThrow("EIO");
    expect(() => db.log.appendLoose()).toThrow("EIO");
    expect(reopenDatabase(db)).toBe(true);
    expect(db.status).toBe("ok");
    expect(db.position).toEqual(positions.at(-1));
    checkConsistent(db);
    expect(open(disk.powerCut(new Random(1))).position).toEqual(positions.at(-1));
  });

  it("and the file system has dropped the pages: it never pretends to have them", () => {
    const { disk, db } = written();
    disk.evictsFailedPages = true;
    disk.failAt(1, "EIO", (file, kind) => kind === "sync" && file === SEGMENT);
    expect(() => db.log.sync()).toThrow("EIO");
    expect(db.status).toBe("quarantined");
    expect(reopenDatabase(db)).toBe(false);
    expect(db.reason).toContain("the disk has lost what is behind offset");
    expect(db.quarantineCause).toBe("damage");
  });
});

it("a rotation that fails leaves nothing that the next start takes for the end", () => {
  for (const code of ["ENOSPC", "EIO"] as const) {
    for (let nth = 1; ; nth++) {
      const { disk, db, pager } = written(2);
      db.log.sync();
      disk.failFrom(nth, code);
      let isOver = true;
      try {
        db.log.rotateIfOlderThan(Infinity);
      } catch {
        isOver = false;
      }
      disk.recover();
      if (db.status === "ok") pager.transaction({ pgnos: [2], pageCount: 3 });
      const { position } = db;
      const reopened = open(disk.kill());
      expect(reopened.reason).toBe("");
      expect(reopened.position, `${code} at operation ${nth}`).toEqual(position);
      checkConsistent(reopened);
      if (isOver) break;
    }
  }
});

it("a segment that is missing in the middle of what must be replayed is damage", () => {
  const disk = new FakeDisk();
  const db = open(disk);
  const pager = new MiniPager(db, new Random(5), { pageSize: 512 });
  pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  pager.changeMode("wal");
  for (let i = 0; i < 6; i++) {
    db.log.rotateIfOlderThan(Infinity);
    pager.transaction({ pgnos: [2, 3], pageCount: 3 });
  }
  const names = disk.list(`${DIRECTORY}/log`).filter((name) => name.endsWith(".seg"));
  disk.remove(`${DIRECTORY}/log/${names[4]}`);
  const file = disk.content(`${DIRECTORY}/database`);
  const reopened = open(disk.kill());
  expect(reopened.status).toBe("quarantined");
  expect(reopened.reason).toContain(`${names[5]} is damaged at offset 0`);
  expect(reopened.reason).toContain("'litefs repair -name app.db'");
  expect(disk.kill().content(`${DIRECTORY}/database`)).toEqual(file);
});

it("a database file that was cut is damage, also when the log goes on from there", () => {
  const { disk: before } = written();
  const disk = before.kill();
  // The log says from here on that the file holds everything.
  open(disk).close();
  const file = disk.content(`${DIRECTORY}/database`);
  disk.put(`${DIRECTORY}/database`, file.slice(0, 700));
  const reopened = open(disk.kill());
  expect(reopened.status).toBe("quarantined");
  expect(reopened.reason).toContain("ends at 700, and had at least 1536 bytes");
});

it("opening an untouched database changes nothing on the disk", () => {
  const { disk, db } = written();
  db.close();
  const next = disk.kill();
  open(next).close();
  const again = next.kill();
  let changes = 0;
  again.onOperation = (kind) => {
    if (kind === "sync" || kind === "syncDirectory") changes++;
  };
  open(again).close();
  // The newest transaction is applied again, and what a killed process did to names is made durable.
  expect(changes).toBeLessThanOrEqual(2);
});
