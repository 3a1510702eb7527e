import Database from "better-sqlite3";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeWalCheckpointInfo,
  decodeWalIndexHeader,
  decodeWalIndexHeaderPair,
  encodeWalCheckpointInfo,
  encodeWalIndexHeader,
  READ_MARK_NOT_USED,
  WAL_CHECKPOINT_INFO_OFFSET,
  WAL_INDEX_HEADER_SIZE,
  WAL_INDEX_PREFIX_SIZE,
  type WalIndexHeader,
} from "../../../src/sqlite/wal-index-header.ts";
import {
  blockOfFrame,
  dirtyByteRanges,
  HASHTABLE_NPAGE_ONE,
  WAL_INDEX_BLOCK_SIZE,
  WalIndexBlocks,
} from "../../../src/sqlite/wal-index.ts";
import { scanWal, type WalScan } from "../../../src/sqlite/wal.ts";
import { memoryFile, readBytes, TemporaryDirectory } from "./support.ts";

function scanFile(path: string): WalScan {
  const bytes = readBytes(path);
  const result = scanWal(memoryFile(bytes), bytes.length);
  if (result === undefined) throw new Error("the WAL has no valid header");
  return result;
}

/** `-shm` as we would write it for a scanned log; the change counter is not in the log. */
function buildShm(scan: WalScan, change: number, checkpointInfo: Uint8Array): Uint8Array {
  const blocks = new WalIndexBlocks();
  for (const pgno of scan.pgnos) blocks.append(pgno);
  const out = new Uint8Array(Math.max(1, blocks.blockCount) * WAL_INDEX_BLOCK_SIZE);
  for (let i = 0; i < blocks.blockCount; i++) out.set(blocks.block(i), i * WAL_INDEX_BLOCK_SIZE);
  const header: WalIndexHeader = {
    change,
    bigEndianChecksum: scan.header.bigEndianChecksum,
    pageSize: scan.header.pageSize,
    maxFrame: scan.committedFrames,
    pageCount: scan.commitPageCount,
    frameChecksum1: scan.checksum1,
    frameChecksum2: scan.checksum2,
    salt1: scan.header.salt1,
    salt2: scan.header.salt2,
  };
  encodeWalIndexHeader(header, out, WAL_INDEX_HEADER_SIZE);
  encodeWalIndexHeader(header, out, 0);
  out.set(checkpointInfo, WAL_CHECKPOINT_INFO_OFFSET);
  return out;
}

function expectSameShm(ours: Uint8Array, sqlite: Uint8Array): void {
  expect(ours.length).toBe(sqlite.length);
  const first = ours.findIndex((byte, i) => byte !== sqlite[i]);
  expect(first, "first differing byte").toBe(-1);
}

describe("the -shm of a running SQLite, byte for byte", () => {
  for (const pageSize of [512, 4096, 65536]) {
    test(`page size ${pageSize}`, () => {
      using directory = new TemporaryDirectory();
      const path = directory.file("a.db");
      const db = new Database(path);
      db.pragma(`page_size = ${pageSize}`);
      db.pragma("journal_mode = wal");
      db.pragma("wal_autocheckpoint = 0");
      db.exec("create table t (id integer primary key, x blob); create index i on t (x)");
      const insert = db.prepare("insert into t (x) values (randomblob(?))");
      for (let round = 0; round < 3; round++) {
        // The second round reuses the file after a checkpoint, with new salts.
        db.transaction(() => {
          for (let i = 0; i < 40; i++) insert.run(pageSize / 2);
        })();
        for (let i = 0; i < 10; i++) insert.run(20);
        const shm = readBytes(`${path}-shm`);
        const scan = scanFile(`${path}-wal`);
        const header = decodeWalIndexHeaderPair(shm, 0);
        expect(header).toMatchObject({
          pageSize,
          maxFrame: scan.committedFrames,
          pageCount: scan.commitPageCount,
          salt1: scan.header.salt1,
          salt2: scan.header.salt2,
        });
        const info = decodeWalCheckpointInfo(shm, WAL_CHECKPOINT_INFO_OFFSET);
        const infoBytes = new Uint8Array(40);
        encodeWalCheckpointInfo(info, infoBytes, 0);
        expectSameShm(buildShm(scan, header?.change ?? -1, infoBytes), shm);
        db.pragma("wal_checkpoint(restart)");
        expect(
          decodeWalCheckpointInfo(readBytes(`${path}-shm`), WAL_CHECKPOINT_INFO_OFFSET),
        ).toEqual({
          backfill: scan.committedFrames,
          readMarks: expect.arrayContaining([0]),
          backfillAttempted: scan.committedFrames,
        });
      }
      db.close();
    });
  }

  test("several blocks, with every page many times", () => {
    using directory = new TemporaryDirectory();
    const path = directory.file("a.db");
    const db = new Database(path);
    db.pragma("page_size = 512");
    db.pragma("journal_mode = wal");
    db.pragma("synchronous = off");
    db.pragma("wal_autocheckpoint = 0");
    db.exec("create table t (id integer primary key, x blob)");
    const insert = db.prepare("insert into t (x) values (randomblob(200))");
    while (scanFile(`${path}-wal`).committedFrames < 9000) {
      for (let i = 0; i < 500; i++) insert.run();
      db.exec("update t set x = randomblob(200) where id % 7 = 0");
    }
    const shm = readBytes(`${path}-shm`);
    const scan = scanFile(`${path}-wal`);
    db.close();
    expect(blockOfFrame(scan.committedFrames)).toBeGreaterThanOrEqual(2);
    const change = decodeWalIndexHeaderPair(shm, 0)?.change ?? -1;
    const info = shm.slice(WAL_CHECKPOINT_INFO_OFFSET, WAL_INDEX_PREFIX_SIZE);
    expectSameShm(buildShm(scan, change, info), shm);
  });

  test("a rolled-back transaction that had spilled frames leaves what truncate leaves", () => {
    using directory = new TemporaryDirectory();
    const path = directory.file("a.db");
    const db = new Database(path);
    db.pragma("journal_mode = wal");
    db.pragma("cache_size = 5");
    db.exec("create table t (x blob); begin; insert into t values (randomblob(400000))");
    const spilled = new WalIndexBlocks();
    const bytes = readBytes(`${path}-wal`);
    scanWal(memoryFile(bytes), bytes.length, (frame) => spilled.append(frame.pgno));
    const before = readBytes(`${path}-shm`);
    expectSameShm(
      spilled.block(0).slice(WAL_INDEX_PREFIX_SIZE),
      before.slice(WAL_INDEX_PREFIX_SIZE),
    );
    const committed = decodeWalIndexHeaderPair(before, 0)?.maxFrame ?? 0;
    expect(spilled.frameCount).toBeGreaterThan(committed);
    db.exec("rollback");
    const after = readBytes(`${path}-shm`);
    db.close();
    const dirty = spilled.truncate(committed);
    expectSameShm(
      spilled.block(0).slice(WAL_INDEX_PREFIX_SIZE),
      after.slice(WAL_INDEX_PREFIX_SIZE),
    );
    expect(dirty?.pgnoStart).toBe(WAL_INDEX_PREFIX_SIZE + 4 * committed);
  });
});

describe("wal-index header", () => {
  const u32 = fc.integer({ min: 0, max: 0xffffffff });
  const headers = fc.record({
    change: u32,
    bigEndianChecksum: fc.boolean(),
    pageSize: fc.constantFrom(0, 512, 4096, 32768, 65536),
    maxFrame: u32,
    pageCount: u32,
    frameChecksum1: u32,
    frameChecksum2: u32,
    salt1: u32,
    salt2: u32,
  });

  test("round trip; any flipped bit, or copies that differ, make it unreadable", () => {
    fc.assert(
      fc.property(headers, fc.nat(383), (header, bit) => {
        const out = new Uint8Array(96);
        encodeWalIndexHeader(header, out, 0);
        expect(decodeWalIndexHeader(out, 0)).toEqual(header);
        expect(decodeWalIndexHeaderPair(out, 0)).toBeUndefined();
        encodeWalIndexHeader(header, out, 48);
        expect(decodeWalIndexHeaderPair(out, 0)).toEqual(header);
        out[bit >> 3]! ^= 1 << (bit & 7);
        expect(decodeWalIndexHeader(out, 0)).toBeUndefined();
        expect(decodeWalIndexHeaderPair(out, 0)).toBeUndefined();
      }),
    );
  });

  test("an empty or short file has no header", () => {
    expect(decodeWalIndexHeaderPair(new Uint8Array(0), 0)).toBeUndefined();
    expect(decodeWalIndexHeaderPair(new Uint8Array(3), 0)).toBeUndefined();
    expect(decodeWalIndexHeaderPair(new Uint8Array(32768), 0)).toBeUndefined();
  });

  test("checkpoint info sits where SQLite has it", () => {
    const out = new Uint8Array(40).fill(0xaa);
    const info = {
      backfill: 1,
      readMarks: [0, 2, READ_MARK_NOT_USED, READ_MARK_NOT_USED, 3],
      backfillAttempted: 4,
    };
    encodeWalCheckpointInfo(info, out, 0);
    expect(decodeWalCheckpointInfo(out, 0)).toEqual(info);
    expect([...out.subarray(24, 32)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    expect(out[32]).toBe(4);
  });
});

describe("WalIndexBlocks", () => {
  test("holds nothing until the first frame and after a reset", () => {
    const blocks = new WalIndexBlocks();
    expect([blocks.blockCount, blocks.frameCount, blocks.find(1)]).toEqual([0, 0, 0]);
    expect(() => blocks.block(0)).toThrow("no block 0");
    blocks.append(1);
    expect([blocks.blockCount, blocks.frameCount, blocks.find(1)]).toEqual([1, 1, 1]);
    blocks.reset();
    expect([blocks.blockCount, blocks.frameCount, blocks.find(1)]).toEqual([0, 0, 0]);
    expect(() => blocks.append(0)).toThrow("invalid page number");
  });

  test("finds the newest frame and a pushed copy stays equal, whatever happens", () => {
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.record({ append: fc.integer({ min: 1, max: 900 }) }) },
      { weight: 2, arbitrary: fc.record({ keep: fc.double({ min: 0, max: 1, noNaN: true }) }) },
      { weight: 1, arbitrary: fc.record({ reset: fc.constant(true) }) },
    );
    const pageSpread = fc.constantFrom(1, 8192, 4194303);
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 25 }),
        pageSpread,
        fc.nat(64),
        (steps, spread, gap) => {
          const blocks = new WalIndexBlocks();
          const file = new Uint8Array(8 * WAL_INDEX_BLOCK_SIZE);
          let frames: number[] = [];
          const push = (dirty: ReturnType<WalIndexBlocks["dirtyBlocks"]>[number]): void => {
            const base = dirty.block * WAL_INDEX_BLOCK_SIZE;
            for (const { start, end } of dirtyByteRanges(dirty, gap)) {
              file.set(blocks.block(dirty.block).subarray(start, end), base + start);
            }
          };
          for (const one of steps) {
            if ("append" in one) {
              const first = frames.length + 1;
              for (let i = 0; i < one.append; i++) {
                const pgno = 1 + ((frames.length * 7) % 1013) * spread;
                frames.push(pgno);
                blocks.append(pgno);
              }
              for (const dirty of blocks.dirtyBlocks(first)) push(dirty);
            } else {
              const keep = "keep" in one ? Math.floor(frames.length * one.keep) : 0;
              frames = frames.slice(0, keep);
              const dirty = blocks.truncate(keep);
              if (dirty !== undefined) push(dirty);
            }
            expect(blocks.frameCount).toBe(frames.length);
            for (let i = 0; i < blocks.blockCount; i++) {
              const base = i * WAL_INDEX_BLOCK_SIZE;
              const pushed = file.subarray(base, base + WAL_INDEX_BLOCK_SIZE);
              expect(Buffer.compare(blocks.block(i), pushed)).toBe(0);
            }
          }
          for (const maxFrame of [frames.length, Math.floor(frames.length / 2), 1]) {
            for (let k = 0; k < 1013; k += 37) {
              const pgno = 1 + k * spread;
              const frame = frames.slice(0, maxFrame).lastIndexOf(pgno) + 1;
              expect(blocks.find(pgno, maxFrame)).toBe(frame);
            }
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  test("a small commit makes few bytes dirty, the first frame of a block all of it", () => {
    const blocks = new WalIndexBlocks();
    for (let i = 1; i < HASHTABLE_NPAGE_ONE; i++) blocks.append(i);
    expect(blocks.dirtyBlocks(100, 102)).toEqual([
      {
        block: 0,
        pgnoStart: WAL_INDEX_PREFIX_SIZE + 4 * 99,
        pgnoEnd: WAL_INDEX_PREFIX_SIZE + 4 * 102,
        hashSlots: Uint16Array.of(100 * 383, 101 * 383, 102 * 383)
          .map((slot) => slot % 8192)
          .sort(),
      },
    ]);
    blocks.append(77);
    blocks.append(77);
    const [first, second, ...rest] = blocks.dirtyBlocks(HASHTABLE_NPAGE_ONE);
    expect(rest).toEqual([]);
    expect(first).toMatchObject({ block: 0, pgnoStart: 16380, pgnoEnd: 16384 });
    expect(second).toEqual({ block: 1, pgnoStart: 0, pgnoEnd: 16384, hashSlots: undefined });
    expect(blocks.find(77)).toBe(HASHTABLE_NPAGE_ONE + 1);
    expect(blocks.find(77, HASHTABLE_NPAGE_ONE)).toBe(HASHTABLE_NPAGE_ONE);
    expect(blocks.find(77, HASHTABLE_NPAGE_ONE - 1)).toBe(77);
  });
});
