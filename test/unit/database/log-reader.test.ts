import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, it } from "vitest";
import { LogReader } from "../../../src/database/log/log-reader.ts";
import type { LogFiles } from "../../../src/database/log/log-reader.ts";
import { openDatabase } from "../../../src/database/recover.ts";
import type { Position } from "../../../src/lib/position.ts";
import { parsePosition, ZERO_POSITION } from "../../../src/lib/position.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { applyTo, checkContent, DIRECTORY, FakeHost, open, readAll } from "./support/harness.ts";
import { Content, MiniPager } from "./support/mini-pager.ts";

/** A history over several segments, with every position and content it had. */
function history() {
  const disk = new FakeDisk();
  const host = new FakeHost();
  const db = open(disk, host);
  const pager = new MiniPager(db, new Random(4), { pageSize: 512 });
  const positions: Position[] = [];
  const contents: Content[] = [];
  pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  pager.changeMode("wal");
  for (let i = 0; i < 30; i++) {
    pager.transaction({ pgnos: [2, 3], pageCount: 3 + (i % 5) });
    positions.push(db.position);
    contents.push(pager.committed.copy());
    if (i % 8 === 7) db.log.rotateIfOlderThan(Infinity);
    if (i % 10 === 9) {
      pager.checkpoint();
      pager.restartWal();
    }
  }
  return { disk, host, db, pager, positions, contents };
}

describe("reading the log", () => {
  for (const maxBytes of [1, 1500, 1_000_000]) {
    it(`leads from every position to the end, ${maxBytes} bytes at a time`, () => {
      const { disk, db, positions, contents } = history();
      expect(disk.list(`${DIRECTORY}/log`).filter((name) => name.endsWith(".seg"))).toHaveLength(4);
      for (const [i, position] of positions.entries()) {
        const ltx = readAll(disk, db, position, maxBytes);
        expect(ltx).toHaveLength(db.position.txid - position.txid);
        const content = contents[i]?.copy() ?? new Content();
        applyTo(content, ltx ?? [], 512);
        checkContent(db, content, 512);
      }
      expect(readAll(disk, db, ZERO_POSITION, maxBytes)).toHaveLength(db.position.txid);
    });
  }

  it("gives nothing to who is at the end, ahead, or elsewhere", () => {
    const { disk, db, positions } = history();
    const reader = new LogReader(disk, DIRECTORY);
    const end = { ...db.log.end, position: db.position };
    const read = (after: Position): string => reader.read(after, end, 1000).kind;
    expect(reader.read(db.position, end, 1000)).toEqual({
      kind: "transactions",
      ltx: [],
      end: db.position,
    });
    expect(read({ txid: db.position.txid, checksum: 1n })).toBe("unavailable");
    expect(read({ txid: db.position.txid + 1, checksum: 1n })).toBe("unavailable");
    expect(read({ txid: positions[5]?.txid ?? 0, checksum: 1n })).toBe("unavailable");
  });

  it("is unavailable for what retention has removed, and only for that", () => {
    const { disk, db, positions } = history();
    db.log.noteDurable(db.log.txid, "now");
    const removed = db.log.enforceRetention(Infinity);
    expect(removed).toBeGreaterThan(0);
    const first = db.position.txid - db.log.transactionCount;
    for (const position of positions) {
      const ltx = readAll(disk, db, position);
      expect(ltx === undefined).toBe(position.txid < first);
    }
    checkContent(open(disk.kill()), history().contents.at(-1) ?? new Content(), 512);
  });

  it("stops at a jump: what comes before does not lead there", () => {
    const { disk, db, positions } = history();
    const { checksumHi, checksumLo, state } = db.log;
    db.log.appendBase({ txid: 99, hi: checksumHi, lo: checksumLo ^ 1 }, state);
    expect(readAll(disk, db, positions.at(-3))).toBeUndefined();
    expect(readAll(disk, db, db.position)).toEqual([]);
  });

  it("does not search again for any of several readers who follow", () => {
    const { disk, db, pager } = history();
    let reads = 0;
    const files: LogFiles = {
      list: (directory) => disk.list(directory),
      open(name) {
        const file = disk.open(name);
        if (file === undefined) return undefined;
        return {
          readAt(...args) {
            reads++;
            return file.readAt(...args);
          },
          size: () => file.size(),
          close: () => file.close(),
        };
      },
    };
    const reader = new LogReader(files, DIRECTORY);
    let followers = [db.position, db.position, db.position, db.position];
    for (let i = 0; i < 200; i++) {
      pager.transaction({ pgnos: [2], pageCount: 5 });
      const end = { ...db.log.end, position: db.position };
      reads = 0;
      followers = followers.map((after) => {
        const read = reader.read(after, end, 1_000);
        return read.kind === "unavailable" ? ZERO_POSITION : read.end;
      });
      expect(followers).toEqual(followers.map(() => db.position));
      // The first search takes long, the first time.
      if (i > 0) expect(reads).toBeLessThanOrEqual(2 * followers.length);
    }
  });

  it("does not trust where it stopped reading when the log was exchanged", () => {
    const { disk, db, positions } = history();
    const reader = new LogReader(disk, DIRECTORY);
    const middle = positions[12] ?? ZERO_POSITION;
    readAll(disk, db, middle, 1, reader);
    // The same segment name, now with another content.
    const other = new FakeDisk();
    const next = open(other);
    const pager = new MiniPager(next, new Random(4), { pageSize: 512 });
    pager.transaction({ pgnos: [1, 2, 3, 4, 5, 6, 7], pageCount: 7 });
    while (next.position.txid < db.position.txid) pager.transaction({ pgnos: [2], pageCount: 7 });
    disk.removeDirectory(`${DIRECTORY}/log`);
    for (const name of other.list(`${DIRECTORY}/log`)) {
      disk.put(`${DIRECTORY}/log/${name}`, other.content(`${DIRECTORY}/log/${name}`));
    }
    expect(readAll(disk, next, middle, 1000, reader)).toBeUndefined();
  });

  it("serves the files that LiteFS left, and goes on in the new log", () => {
    const fixture = path.join(import.meta.dirname, "../../fixtures/litefs-0.5.14/wal-4096");
    const expected = JSON.parse(fs.readFileSync(path.join(fixture, "expected.json"), "utf8")) as {
      transactions: { pos: string; file: string }[];
    };
    const disk = new FakeDisk();
    for (const { file } of expected.transactions) {
      disk.put(`${DIRECTORY}/${file}`, fs.readFileSync(path.join(fixture, file)));
    }
    disk.put(`${DIRECTORY}/database`, fs.readFileSync(path.join(fixture, "export.db")));
    const db = openDatabase("app.db", new FakeHost(), disk, DIRECTORY);
    expect(db.reason).toBe("");
    const last = parsePosition(expected.transactions.at(-1)?.pos ?? "");
    expect(db.position).toEqual(last);
    const content = new Content();
    applyTo(content, readAll(disk, db) ?? [], 4096);
    checkContent(db, content, 4096);
    const pager = new MiniPager(db, new Random(1), { pageSize: 4096 });
    pager.committed = content.copy();
    pager.changeCounter = 100_000;
    pager.transaction({ pgnos: [1, 3], pageCount: content.pageCount });
    for (const [i, { pos }] of expected.transactions.entries()) {
      const ltx = readAll(disk, db, parsePosition(pos), 1);
      expect(ltx).toHaveLength(expected.transactions.length - i);
    }
  });
});
