import { describe, expect, it } from "vitest";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { checkConsistent, DIRECTORY, open, readAll } from "./support/harness.ts";
import { MiniPager } from "./support/mini-pager.ts";

const SEGMENT = `${DIRECTORY}/log/0000000000000001.seg`;

function written(count = 6) {
  const disk = new FakeDisk();
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
  return { disk, db, ends, positions };
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

it("after a failed sync nothing more is taken", () => {
  const { disk, db } = written();
  disk.failAt(1, "EIO", (file) => file.endsWith(".seg"));
  expect(() => db.log.sync()).toThrow("EIO");
  disk.onOperation = () => undefined;
  expect(() => db.log.sync()).toThrow("EIO");
  const { txid } = db.position;
  expect(() => db.log.appendLoose()).toThrow("EIO");
  expect(db.position.txid).toBe(txid);
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
  expect(changes).toBeLessThanOrEqual(1);
});
