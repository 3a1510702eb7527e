import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { checkLog } from "../../../src/cli/check-log.ts";
import { RECORD_HEADER_SIZE } from "../../../src/database/log/record.ts";
import { reopenDatabase } from "../../../src/database/recover.ts";
import { FakeDisk, Random, systemError } from "./support/fake-disk.ts";
import { checkConsistent, checkContent, DIRECTORY, open, readAll } from "./support/harness.ts";
import { IoFailure, MiniPager } from "./support/mini-pager.ts";
import type { Position } from "../../../src/lib/position.ts";

const SEGMENT = `${DIRECTORY}/log/0000000000000001.seg`;
const PAGE_SIZE = 4096;

/** What `litefs check` says of the log. */
function checkedLog(disk: FakeDisk, position: Position): readonly string[] {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-laid-"));
  try {
    fs.mkdirSync(path.join(directory, "log"));
    fs.writeFileSync(path.join(directory, "log", path.basename(SEGMENT)), disk.content(SEGMENT));
    return checkLog(directory, position).problems;
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
}

/** A database whose application syncs each commit. */
function written(count = 12) {
  const disk = FakeDisk.prepared();
  const db = open(disk);
  const pager = new MiniPager(db, new Random(5), { pageSize: PAGE_SIZE });
  pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  pager.changeMode("wal");
  const lengths: number[] = [];
  const commit = (): void => {
    pager.transaction({ pgnos: [2, 3], pageCount: 3 });
    db.log.sync();
    lengths.push(disk.size(SEGMENT) ?? 0);
  };
  for (let i = 0; i < count; i++) commit();
  return { disk, db, pager, lengths, commit };
}

describe("space laid behind a log that is synced often", () => {
  it("is there for many commits, and when it is used up there is more", () => {
    const { db, lengths, commit } = written(200);
    const ends = db.log.end.offsetBytes;
    const distinct = new Set(lengths.slice(12)).size;
    expect(ends).toBeGreaterThan(1_500_000);
    expect(distinct).toBeLessThan(10);
    expect(lengths.at(-1)).toBeGreaterThanOrEqual(ends);
    // Another commit does not change the length, or lays a whole piece.
    commit();
    const grown = lengths.at(-1)! - lengths.at(-2)!;
    expect(grown === 0 || grown > 200_000).toBe(true);
  });

  it("is not there for a database that is written now and then", () => {
    const { disk, db, commit } = written(3);
    expect(disk.size(SEGMENT)).toBe(db.log.end.offsetBytes);
    for (let i = 0; i < 12; i++) commit();
    expect(disk.size(SEGMENT)).toBeGreaterThan(db.log.end.offsetBytes);
    // Nobody has it open between one commit and the next.
    for (let i = 0; i < 12; i++) {
      db.log.release();
      commit();
      expect(disk.size(SEGMENT)).toBe(db.log.end.offsetBytes);
    }
  });

  it("is no more than the log has", () => {
    const { disk, db, commit } = written(0);
    for (let i = 0; i < 100; i++) {
      commit();
      expect(disk.size(SEGMENT)).toBeLessThanOrEqual(2 * db.log.end.offsetBytes);
    }
  });

  it("does not come back behind a segment after a commit that was refused", () => {
    const { disk, db, pager } = written();
    disk.failAt(1, "ENOSPC", (file, kind) => kind === "write" && file === SEGMENT);
    expect(() => pager.transaction({ pgnos: [2, 3], pageCount: 3 })).toThrow(IoFailure);
    disk.recover();
    db.log.rotateIfOlderThan(Infinity);
    for (let seed = 1; seed < 60; seed++) {
      const after = open(disk.powerCut(new Random(seed)));
      expect(after.reason).toBe("");
      expect(after.position).toEqual(db.position);
    }
  });

  it("is nothing to whoever reads the log, and gone after a start", () => {
    const { disk, db, pager } = written();
    expect(disk.size(SEGMENT)).toBeGreaterThan(db.log.end.offsetBytes);
    expect(readAll(disk, db)).toHaveLength(db.position.txid);
    const killed = disk.kill();
    const after = open(killed);
    expect(after.reason).toBe("");
    expect(after.position).toEqual(db.position);
    expect(after.log.tornBytes).toBe(0);
    checkContent(after, pager.committed, PAGE_SIZE);
    expect(killed.size(SEGMENT)).toBe(after.log.end.offsetBytes);
  });

  it("is taken away when the log is closed, or goes on in another segment", () => {
    const { disk, db, commit } = written();
    const { offsetBytes } = db.log.end;
    db.log.release();
    expect(disk.size(SEGMENT)).toBe(offsetBytes);
    for (let i = 0; i < 12; i++) commit();
    const end = db.log.end.offsetBytes;
    expect(disk.size(SEGMENT)).toBeGreaterThan(end);
    db.log.rotateIfOlderThan(Infinity);
    expect(disk.size(SEGMENT)).toBe(end);
    commit();
    expect(readAll(disk, db)).toHaveLength(db.position.txid);
    for (let seed = 1; seed < 40; seed++) {
      const cut = open(disk.powerCut(new Random(seed)));
      expect(cut.reason).toBe("");
      expect(cut.position).toEqual(db.position);
      checkConsistent(cut);
    }
  });

  it("does not hide that the last record was damaged, whichever byte it is", () => {
    const { disk, db, commit } = written();
    const start = db.log.end.offsetBytes;
    commit();
    const end = db.log.end.offsetBytes;
    expect(disk.size(SEGMENT)).toBeGreaterThan(end);
    const whole = disk.content(SEGMENT);
    for (let at = start; at < end; at += at < start + 40 ? 1 : 97) {
      const flipped = whole.slice();
      flipped[at] = flipped[at]! ^ 1;
      const next = disk.kill();
      next.put(SEGMENT, flipped);
      const after = open(next);
      expect([at, after.status]).toEqual([at, "quarantined"]);
      expect(after.reason).toContain("is damaged");
    }
  });

  it("does not hide it where the checksum of the record's header happens to end in a zero", () => {
    const { disk, db, commit } = written();
    let start = 0;
    do {
      start = db.log.end.offsetBytes;
      commit();
    } while (disk.content(SEGMENT)[start + RECORD_HEADER_SIZE - 1] !== 0);
    const flipped = disk.content(SEGMENT);
    flipped[start + 20] = flipped[start + 20]! ^ 1;
    const next = disk.kill();
    next.put(SEGMENT, flipped);
    expect(open(next).reason).toContain("is damaged");
  });

  it("shows where a kill has cut the last record, which nobody was told of", () => {
    const { disk, db, pager, commit } = written();
    const start = db.log.end.offsetBytes;
    const { position } = db;
    const before = pager.committed;
    commit();
    const end = db.log.end.offsetBytes;
    const whole = disk.content(SEGMENT);
    for (let border = start - (start % 4096) + 4096; border < end; border += 4096) {
      const cut = whole.slice();
      cut.fill(0, border);
      const next = disk.kill();
      next.put(SEGMENT, cut);
      next.put(`${DIRECTORY}/wal`, new Uint8Array(0));
      expect(checkedLog(next, position)).toEqual([]);
      const after = open(next);
      expect([after.reason, after.position]).toEqual(["", position]);
      checkContent(after, before, PAGE_SIZE);
    }
    expect(checkedLog(disk.kill(), db.position)).toEqual([]);
  });

  it("is not needed: where there is no room for it commits go on", () => {
    const { disk, db, pager, commit } = written(3);
    pager.synchronous = "off";
    let refused = 0;
    for (let i = 0; i < 20; i++) {
      pager.transaction({ pgnos: [2, 3], pageCount: 3 });
      // A sync writes nothing to the log but this.
      disk.onOperation = (kind, file) => {
        if (kind !== "write" || file !== SEGMENT) return;
        refused++;
        throw systemError("ENOSPC", file);
      };
      db.log.sync();
      disk.recover();
    }
    expect(refused).toBe(1);
    for (let i = 0; i < 20; i++) commit();
    expect(db.status).toBe("ok");
    const after = open(disk.kill());
    expect(after.position).toEqual(db.position);
    checkContent(after, pager.committed, PAGE_SIZE);
  });

  it("is no record to whoever rebuilds the database from its log while it is there", () => {
    const { disk, db, pager } = written();
    expect(disk.size(SEGMENT)).toBeGreaterThan(db.log.end.offsetBytes);
    expect(reopenDatabase(db)).toBe(true);
    checkContent(db, pager.committed, PAGE_SIZE);
  });
});
