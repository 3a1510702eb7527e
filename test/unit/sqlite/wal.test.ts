import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import Database from "better-sqlite3";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeFrameHeader,
  decodeWalHeader,
  encodeFrameHeader,
  encodeWalHeader,
  FRAME_HEADER_SIZE,
  frameOffset,
  newFrameHeader,
  scanWal,
  sealFrame,
  WAL_HEADER_SIZE,
  WalChecksum,
  type WalHeader,
  type WalScan,
} from "../../../src/sqlite/wal.ts";
import { copyDatabase, memoryFile, readBytes, TemporaryDirectory } from "./support.ts";

const FIXTURES = new URL("../../fixtures/litefs-0.5.14/wal-4096/", import.meta.url);

interface Expected {
  readonly transactions: readonly {
    readonly txid: string;
    readonly commit: number;
    readonly walOffset: number;
    readonly walSize: number;
    readonly walSalt1: number;
    readonly walSalt2: number;
    readonly pages: readonly number[];
  }[];
  readonly walFiles: readonly {
    readonly file: string;
    readonly size: number;
    readonly sha256: string;
    readonly salt1: number;
    readonly salt2: number;
    readonly txids: readonly string[];
  }[];
}

const expected: Expected = JSON.parse(readFileSync(new URL("expected.json", FIXTURES), "utf8"));

function scan(bytes: Uint8Array): WalScan {
  const result = scanWal(memoryFile(bytes), bytes.length);
  if (result === undefined) throw new Error("the WAL has no valid header");
  return result;
}

interface TestFrame {
  readonly pgno: number;
  readonly commit: number;
  readonly fill: number;
}

function buildWal(
  options: { readonly pageSize: number; readonly bigEndianChecksum: boolean },
  frames: readonly TestFrame[],
): Uint8Array {
  const { pageSize } = options;
  const out = new Uint8Array(frameOffset(frames.length, pageSize));
  const salts = { salt1: 0x80000001, salt2: 0xfffffffe };
  const header = encodeWalHeader({ ...options, checkpointSequence: 7, ...salts }, out, 0);
  const checksum = new WalChecksum(header.bigEndianChecksum);
  checksum.set(header.checksum1, header.checksum2);
  for (const [i, { pgno, commit, fill }] of frames.entries()) {
    const offset = frameOffset(i, pageSize);
    out.fill(fill, offset + FRAME_HEADER_SIZE, offset + FRAME_HEADER_SIZE + pageSize);
    sealFrame({ pgno, commit, ...salts }, checksum, pageSize, out, offset);
  }
  return out;
}

describe("WALs of LiteFS 0.5.14", () => {
  for (const wal of expected.walFiles) {
    test(`${wal.file} holds exactly the transactions LiteFS found`, () => {
      const bytes = new Uint8Array(gunzipSync(readFileSync(new URL(wal.file, FIXTURES))));
      expect(createHash("sha256").update(bytes).digest("hex")).toBe(wal.sha256);
      const result = scan(bytes);
      expect(result.header).toMatchObject({
        pageSize: 4096,
        salt1: wal.salt1,
        salt2: wal.salt2,
        bigEndianChecksum: false,
      });
      const wanted = expected.transactions.filter(({ txid }) => wal.txids.includes(txid));
      const found = result.transactions.map(({ firstFrame, endFrame, commit }) => ({
        commit,
        walOffset: frameOffset(firstFrame, 4096),
        walSize: frameOffset(endFrame, 4096) - frameOffset(firstFrame, 4096),
        pages: [...new Set(result.pgnos.subarray(firstFrame, endFrame))]
          .filter((pgno) => pgno <= commit)
          .sort((a, b) => a - b),
      }));
      expect(found).toEqual(
        wanted.map(({ commit, walOffset, walSize, pages }) => ({
          commit,
          walOffset,
          walSize,
          pages,
        })),
      );
      expect(wanted.every(({ walSalt1 }) => walSalt1 === result.header.salt1)).toBe(true);
    });
  }
});

describe("WALs of a running SQLite", () => {
  for (const pageSize of [512, 4096, 65536]) {
    test(`page size ${pageSize}: the newest frames are what SQLite checkpoints`, () => {
      using directory = new TemporaryDirectory();
      const path = directory.file("a.db");
      const db = new Database(path);
      db.pragma(`page_size = ${pageSize}`);
      db.pragma("journal_mode = wal");
      db.pragma("wal_autocheckpoint = 0");
      db.exec("create table t (id integer primary key, x blob)");
      const insert = db.prepare("insert into t (x) values (randomblob(?))");
      for (let i = 0; i < 20; i++) insert.run(100 + i * 50);
      db.transaction(() => {
        for (let i = 0; i < 50; i++) insert.run(700);
      })();
      db.exec("delete from t where id % 3 = 0");
      const wal = readBytes(`${path}-wal`);

      const newest = new Map<number, Uint8Array>();
      const result = scanWal(memoryFile(wal, 1000), wal.length, (frame, index, buffer, offset) => {
        expect(index).toBeGreaterThanOrEqual(0);
        newest.set(frame.pgno, buffer.slice(offset, offset + pageSize));
      });
      expect(result?.header.pageSize).toBe(pageSize);
      expect(result?.transactions).toHaveLength(23);
      expect(result?.committedFrames).toBe(result?.validFrames);

      db.pragma("wal_checkpoint(truncate)");
      const database = readBytes(path);
      db.close();
      expect(database.length).toBe((result?.commitPageCount ?? 0) * pageSize);
      for (const [pgno, page] of newest) {
        const start = (pgno - 1) * pageSize;
        expect(Buffer.compare(page, database.subarray(start, start + pageSize))).toBe(0);
      }
    });
  }

  test("frames of an unfinished transaction are valid but not committed", () => {
    using directory = new TemporaryDirectory();
    const path = directory.file("a.db");
    const db = new Database(path);
    db.pragma("journal_mode = wal");
    db.pragma("cache_size = 5");
    db.exec("create table t (x blob); begin; insert into t values (randomblob(200000))");
    const result = scan(readBytes(`${path}-wal`));
    db.exec("rollback");
    db.close();
    expect(result.validFrames).toBeGreaterThan(result.committedFrames);
    expect(result.transactions).toEqual([{ firstFrame: 0, endFrame: 2, commit: 2 }]);
    expect(result.pgnos).toHaveLength(2);
  });

  test("SQLite recovers a log we re-encoded with big-endian checksums and appended to", () => {
    using directory = new TemporaryDirectory();
    const path = directory.file("a.db");
    const copy = directory.file("copy.db");
    const db = new Database(path);
    db.pragma("journal_mode = wal");
    db.exec("create table t (x); insert into t values ('from the log')");
    copyDatabase(path, copy, []);
    const original = readBytes(`${path}-wal`);
    db.close();

    const source = scan(original);
    const out = new Uint8Array(original.length);
    const header: WalHeader = encodeWalHeader(
      { ...source.header, bigEndianChecksum: true },
      out,
      0,
    );
    const checksum = new WalChecksum(true);
    checksum.set(header.checksum1, header.checksum2);
    scanWal(memoryFile(original), original.length, (frame, index, buffer, pageOffset) => {
      const offset = frameOffset(index, header.pageSize);
      const page = buffer.subarray(pageOffset, pageOffset + header.pageSize);
      out.set(page, offset + FRAME_HEADER_SIZE);
      sealFrame(frame, checksum, header.pageSize, out, offset);
    });
    writeFileSync(`${copy}-wal`, out);
    const recovered = new Database(copy);
    expect(recovered.prepare("select x from t").pluck().get()).toBe("from the log");
    recovered.close();
    const result = scan(out);
    expect(result.header.bigEndianChecksum).toBe(true);
    expect(result.transactions).toEqual(source.transactions);
    expect(result.checksum1).toBe(checksum.s0);
    expect(result.checksum2).toBe(checksum.s1);
  });
});

describe("damaged and foreign logs", () => {
  const frames: TestFrame[] = [];
  for (let i = 0; i < 30; i++) {
    frames.push({ pgno: 1 + (i % 9), commit: i % 3 === 2 ? 9 + i : 0, fill: i });
  }

  test("a cut log gives exactly the transactions that are whole", () => {
    fc.assert(
      fc.property(fc.boolean(), fc.double({ min: 0, max: 1, noNaN: true }), (big, fraction) => {
        const bytes = buildWal({ pageSize: 512, bigEndianChecksum: big }, frames);
        const length = Math.floor(bytes.length * fraction);
        const result = scanWal(memoryFile(bytes.slice(0, length)), length);
        if (length < WAL_HEADER_SIZE) {
          expect(result).toBeUndefined();
          return;
        }
        const whole = Math.floor((length - WAL_HEADER_SIZE) / 536);
        expect(result?.validFrames).toBe(whole);
        expect(result?.committedFrames).toBe(whole - (whole % 3));
        expect(result?.transactions).toHaveLength(Math.floor(whole / 3));
      }),
    );
  });

  test("a file shorter than its announced size ends the scan", () => {
    const bytes = buildWal({ pageSize: 512, bigEndianChecksum: false }, frames);
    const result = scanWal(memoryFile(bytes.slice(0, 2000)), bytes.length);
    expect(result?.validFrames).toBe(3);
  });

  test("a flipped bit hides its frame and everything after it", () => {
    fc.assert(
      fc.property(fc.boolean(), fc.nat(), fc.nat(7), (big, position, bit) => {
        const bytes = buildWal({ pageSize: 512, bigEndianChecksum: big }, frames);
        const offset = position % bytes.length;
        bytes[offset]! ^= 1 << bit;
        const result = scanWal(memoryFile(bytes), bytes.length);
        if (offset < WAL_HEADER_SIZE) {
          expect(result).toBeUndefined();
          return;
        }
        expect(result?.validFrames).toBe(Math.floor((offset - WAL_HEADER_SIZE) / 536));
      }),
      { numRuns: 300 },
    );
  });

  test("random bytes are no log", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000 }), (bytes) => {
        expect(scanWal(memoryFile(bytes), bytes.length)).toBeUndefined();
      }),
    );
  });

  test("page 0, foreign salts, other versions and bad page sizes are refused", () => {
    const zero = buildWal({ pageSize: 512, bigEndianChecksum: false }, [
      { pgno: 0, commit: 1, fill: 1 },
    ]);
    expect(scan(zero).validFrames).toBe(0);

    const old = buildWal({ pageSize: 512, bigEndianChecksum: false }, frames);
    const header = decodeWalHeader(old, 0);
    if (header === undefined) throw new Error("unreachable");
    encodeWalHeader({ ...header, salt1: header.salt1 + 1 }, old, 0);
    const restarted = scan(old);
    expect(restarted).toMatchObject({ validFrames: 0, committedFrames: 0, commitPageCount: 0 });
    expect(restarted.checksum1).toBe(restarted.header.checksum1);

    for (const [offset, value] of [
      [4, 3007001],
      [8, 1000],
      [8, 131072],
      [8, 256],
    ] as const) {
      const bytes = buildWal({ pageSize: 512, bigEndianChecksum: true }, []);
      new DataView(bytes.buffer).setUint32(offset, value);
      const checksum = new WalChecksum(true);
      checksum.update(bytes, 0, 24);
      new DataView(bytes.buffer).setUint32(24, checksum.s0);
      new DataView(bytes.buffer).setUint32(28, checksum.s1);
      expect(decodeWalHeader(bytes, 0)).toBeUndefined();
    }
  });
});

describe("codecs", () => {
  const u32 = fc.integer({ min: 0, max: 0xffffffff });

  test("headers and frame headers survive a round trip at any offset", () => {
    const frame = newFrameHeader();
    fc.assert(
      fc.property(
        fc.tuple(u32, u32, u32, u32, u32, u32),
        fc.boolean(),
        fc.nat(9),
        ([pgno, commit, salt1, salt2, checksum1, checksum2], bigEndianChecksum, offset) => {
          const out = new Uint8Array(64);
          const written = { pgno, commit, salt1, salt2, checksum1, checksum2 };
          encodeFrameHeader(written, out, offset);
          decodeFrameHeader(out, offset, frame);
          expect(frame).toEqual(written);
          const header = encodeWalHeader(
            { bigEndianChecksum, pageSize: 65536, checkpointSequence: commit, salt1, salt2 },
            out,
            offset,
          );
          expect(decodeWalHeader(out, offset)).toEqual(header);
        },
      ),
    );
  });

  test("the checksum equals its definition at every alignment and byte order", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 64, maxLength: 64 }),
        fc.nat(7),
        fc.nat(7),
        fc.boolean(),
        u32,
        u32,
        (bytes, shift, start, bigEndian, s0, s1) => {
          const shifted = new Uint8Array(bytes.buffer, shift, 64 - shift);
          const checksum = new WalChecksum(bigEndian);
          checksum.set(s0, s1);
          checksum.update(shifted, start, 24);
          checksum.update(shifted, start + 24, 24);

          const view = new DataView(shifted.buffer, shift);
          let a = BigInt(s0);
          let b = BigInt(s1);
          for (let i = start; i < start + 48; i += 8) {
            a = BigInt.asUintN(32, a + BigInt(view.getUint32(i, !bigEndian)) + b);
            b = BigInt.asUintN(32, b + BigInt(view.getUint32(i + 4, !bigEndian)) + a);
          }
          expect([checksum.s0, checksum.s1]).toEqual([Number(a), Number(b)]);
        },
      ),
    );
  });

  test("a checksum over half a pair of words, or past the buffer, is a bug", () => {
    const checksum = new WalChecksum(false);
    expect(() => checksum.update(new Uint8Array(16), 0, 12)).toThrow("pairs of 32-bit words");
    expect(() => checksum.update(new Uint8Array(16), 8, 16)).toThrow("past its buffer");
  });
});
