import { existsSync, rmSync, writeFileSync } from "node:fs";
import Database from "better-sqlite3";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  decodeJournalHeader,
  encodeJournalHeader,
  isHotJournalHeader,
  isZeroHeader,
  JOURNAL_HEADER_SIZE,
  JOURNAL_RECORDS_TO_END,
  journalPageChecksum,
  readJournal,
  readSuperJournalName,
  type JournalScan,
} from "../../../src/sqlite/journal.ts";
import { lockPgno } from "../../../src/sqlite/locks.ts";
import { memoryFile, readBytes, TemporaryDirectory } from "./support.ts";

interface HotDatabase {
  readonly database: Uint8Array;
  readonly journal: Uint8Array;
  readonly before: Uint8Array;
}

interface HotOptions {
  readonly pageSize: number;
  readonly pragmas?: readonly string[];
  readonly prepare?: string;
  readonly change: string;
}

const SPILL = "pragma cache_size = 4; pragma cache_spill = 1;";
const FILL = `create table t (id integer primary key, x blob);
  with recursive n(i) as (select 1 union all select i + 1 from n where i < 300)
  insert into t select i, zeroblob(400) from n;`;

/** The files in the middle of a transaction: what a power cut would leave. */
function interrupt(options: HotOptions): HotDatabase {
  using directory = new TemporaryDirectory();
  const path = directory.file("a.db");
  const db = new Database(path);
  db.pragma(`page_size = ${options.pageSize}`);
  for (const pragma of options.pragmas ?? []) db.pragma(pragma);
  db.exec(FILL);
  if (options.prepare !== undefined) db.exec(options.prepare);
  db.exec(SPILL);
  const before = readBytes(path);
  db.exec(`begin; ${options.change}`);
  const result = { database: readBytes(path), journal: readBytes(`${path}-journal`), before };
  db.exec("rollback");
  db.close();
  return result;
}

function playBack({ database, journal }: HotDatabase, pageSize: number): Uint8Array {
  const pages: [pgno: number, page: Uint8Array][] = [];
  const scan = readJournal(memoryFile(journal, 700), journal.length, pageSize, (pgno, page) => {
    pages.push([pgno, page.slice()]);
  });
  if (scan === undefined) return database;
  expect(pages).toHaveLength(scan.recordCount);
  const out = new Uint8Array(scan.initialPageCount * scan.pageSize);
  out.set(database.subarray(0, out.length));
  for (const [pgno, page] of pages) out.set(page, (pgno - 1) * scan.pageSize);
  return out;
}

function scanOf({ journal }: HotDatabase, pageSize: number): JournalScan | undefined {
  return readJournal(memoryFile(journal), journal.length, pageSize);
}

/** What SQLite makes of the same files; a database that stays unreadable keeps its bytes too. */
function recoverWithSqlite(path: string, { database, journal }: HotDatabase): Uint8Array {
  writeFileSync(path, database);
  writeFileSync(`${path}-journal`, journal);
  const db = new Database(path);
  try {
    db.pragma("synchronous = off");
    db.prepare("select count(*) from sqlite_master").get();
  } catch (error) {
    expect(error).toBeInstanceOf(Database.SqliteError);
  } finally {
    db.close();
  }
  const bytes = readBytes(path);
  rmSync(`${path}-journal`, { force: true });
  return bytes;
}

function expectSameBytes(ours: Uint8Array, wanted: Uint8Array): void {
  expect(ours.length).toBe(wanted.length);
  expect(Buffer.compare(ours, wanted)).toBe(0);
}

const UPDATE = "update t set x = randomblob(400);";

describe("journals of an interrupted SQLite", () => {
  let directory: TemporaryDirectory;
  beforeAll(() => {
    directory = new TemporaryDirectory();
  });
  afterAll(() => {
    directory[Symbol.dispose]();
  });

  for (const pageSize of [512, 4096, 65536]) {
    test(`page size ${pageSize}: several segments give the old database`, () => {
      const grow = "insert into t select id + 1000, randomblob(pow(id % 20, 3)) from t;";
      const hot = interrupt({
        pageSize,
        prepare: "insert into t select id + 5000, zeroblob(2000) from t;",
        change: UPDATE + grow,
      });
      const scan = scanOf(hot, 1024);
      expect(scan?.segmentCount).toBeGreaterThan(1);
      expect(scan?.pageSize).toBe(pageSize);
      expect(scan?.initialPageCount).toBe(hot.before.length / pageSize);
      expect(hot.database.length).toBeGreaterThan(hot.before.length);
      expectSameBytes(playBack(hot, pageSize), hot.before);
      expectSameBytes(recoverWithSqlite(directory.file(`${pageSize}.db`), hot), hot.before);
    });
  }

  test("synchronous=OFF: records up to the end of the file", () => {
    const hot = interrupt({ pageSize: 1024, pragmas: ["synchronous = off"], change: UPDATE });
    expect(decodeJournalHeader(hot.journal, 0)?.recordCount).toBe(JOURNAL_RECORDS_TO_END);
    expectSameBytes(playBack(hot, 1024), hot.before);
    expectSameBytes(recoverWithSqlite(directory.file("off.db"), hot), hot.before);
  });

  test("PERSIST: records of an earlier, longer transaction are not played back", () => {
    const hot = interrupt({
      pageSize: 1024,
      pragmas: ["journal_mode = persist"],
      prepare: "update t set x = zeroblob(300);",
      change: "update t set x = randomblob(350) where id <= 60;",
    });
    const wholeFile = Math.floor(hot.journal.length / 1032);
    const scan = scanOf(hot, 1024);
    expect(scan?.recordCount).toBeGreaterThan(0);
    expect(scan?.recordCount).toBeLessThan(wholeFile / 2);
    expectSameBytes(playBack(hot, 1024), hot.before);
    expectSameBytes(recoverWithSqlite(directory.file("persist.db"), hot), hot.before);
  });

  test("before the first sync the journal is not hot and the database unchanged", () => {
    const hot = interrupt({ pageSize: 4096, change: "update t set x = 1 where id = 5;" });
    expect(hot.journal.length).toBeGreaterThan(4096);
    expect(isHotJournalHeader(hot.journal)).toBe(false);
    expect(isZeroHeader(hot.journal)).toBe(false);
    expect(scanOf(hot, 4096)).toBeUndefined();
    expectSameBytes(hot.database, hot.before);
  });

  test("PERSIST ends a transaction with a zero header, and that is not hot", () => {
    const path = directory.file("zero.db");
    const db = new Database(path);
    db.pragma("journal_mode = persist");
    db.exec(FILL);
    const journal = readBytes(`${path}-journal`);
    db.close();
    expect(isZeroHeader(journal)).toBe(true);
    expect(isHotJournalHeader(journal)).toBe(false);
    expect(readJournal(memoryFile(journal), journal.length, 4096)).toBeUndefined();
  });

  test("any damage: exactly what SQLite's own recovery makes of it", () => {
    const hot = interrupt({ pageSize: 512, change: "update t set x = 7 where id < 150;" });
    const path = directory.file("damaged.db");
    // The initial size is spared: a large one makes SQLite extend the database to terabytes.
    const position = fc.oneof(
      fc.integer({ min: 0, max: 15 }),
      fc.integer({ min: 18, max: 28 }),
      fc.integer({ min: 28, max: hot.journal.length - 1 }),
    );
    const damage = fc.record({
      position,
      value: fc.oneof(fc.constantFrom(0, 1, 2, 4, 8, 16), fc.nat(255)),
      length: fc.option(fc.integer({ min: 0, max: hot.journal.length }), { nil: undefined }),
    });
    fc.assert(
      fc.property(damage, (change) => {
        const journal = hot.journal.slice(0, change.length);
        if (change.position < journal.length) journal[change.position] = change.value;
        const damaged = { ...hot, journal };
        expectSameBytes(playBack(damaged, 512), recoverWithSqlite(path, damaged));
      }),
      { numRuns: 150 },
    );
  });

  test("a journal that names a super-journal is played back only while that exists", () => {
    const path = directory.file("super.db");
    const superPath = directory.file("super.db-mj0AF31B9C2");
    const plain = interrupt({ pageSize: 1024, change: UPDATE });
    const journal = appendSuperJournal(plain.journal, superPath);
    const hot = { ...plain, journal };
    expect(readSuperJournalName(memoryFile(plain.journal), plain.journal.length)).toBeUndefined();
    expect(readSuperJournalName(memoryFile(journal, 5), journal.length)).toBe(superPath);

    expectSameBytes(recoverWithSqlite(path, hot), hot.database);
    writeFileSync(superPath, "");
    expectSameBytes(recoverWithSqlite(path, hot), hot.database);
    writeFileSync(superPath, `${path}-journal\0`);
    expectSameBytes(recoverWithSqlite(path, hot), hot.before);
    expect(existsSync(superPath)).toBe(false);
    expectSameBytes(playBack(hot, 1024), hot.before);
  });
});

function appendSuperJournal(journal: Uint8Array, name: string, checksumDelta = 0): Uint8Array {
  const nameBytes = new TextEncoder().encode(name);
  const out = new Uint8Array(journal.length + 4 + nameBytes.length + 16);
  const view = new DataView(out.buffer);
  out.set(journal);
  view.setUint32(journal.length, lockPgno(1024));
  out.set(nameBytes, journal.length + 4);
  const trailer = out.length - 16;
  view.setUint32(trailer, nameBytes.length);
  const sum = nameBytes.reduce((total, byte) => total + ((byte << 24) >> 24), checksumDelta);
  view.setInt32(trailer + 4, sum);
  view.setUint32(trailer + 8, 0xd9d505f9);
  view.setUint32(trailer + 12, 0x20a163d7);
  return out;
}

describe("super-journal names", () => {
  const name = "/x/é.db-mj0AF31B9C2";
  const read = (bytes: Uint8Array): string | undefined =>
    readSuperJournalName(memoryFile(bytes), bytes.length);

  test("are refused when the checksum, the form or the magic is wrong", () => {
    expect(read(appendSuperJournal(new Uint8Array(), name))).toBe(name);
    expect(read(appendSuperJournal(new Uint8Array(), name, 1))).toBeUndefined();
    expect(read(appendSuperJournal(new Uint8Array(), "/x/a.db-journal"))).toBeUndefined();
    const noMagic = appendSuperJournal(new Uint8Array(), name);
    noMagic[noMagic.length - 1] = 0;
    expect(read(noMagic)).toBeUndefined();
    expect(read(new Uint8Array(15))).toBeUndefined();
  });

  test("any damaged tail is no name or a well-formed one, never a crash", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.nat(60), (tail, cut) => {
        const bytes = appendSuperJournal(new Uint8Array(40), name).slice(0, -cut || undefined);
        bytes.set(tail.subarray(0, bytes.length), Math.max(0, bytes.length - tail.length));
        expect(read(bytes) ?? name).toBe(name);
      }),
    );
  });
});

describe("segments built by hand", () => {
  const PAGE = 512;
  const RECORD = PAGE + 8;

  interface Segment {
    readonly count?: number;
    readonly nonce: number;
    readonly pgnos: readonly number[];
  }

  function build(sectorSize: number, initialPageCount: number, segments: Segment[]): Uint8Array {
    const parts: Uint8Array[] = [];
    for (const { count, nonce, pgnos } of segments) {
      const used = sectorSize + pgnos.length * RECORD;
      const bytes = new Uint8Array(Math.ceil(used / sectorSize) * sectorSize);
      const view = new DataView(bytes.buffer);
      const recordCount = count ?? pgnos.length;
      const header = { recordCount, nonce, initialPageCount, sectorSize, pageSize: PAGE };
      encodeJournalHeader(header, bytes, 0);
      expect(decodeJournalHeader(bytes, 0)).toEqual(header);
      for (const [i, pgno] of pgnos.entries()) {
        const at = sectorSize + i * RECORD;
        view.setUint32(at, pgno);
        bytes.fill(pgno, at + 4, at + 4 + PAGE);
        view.setUint32(at + 4 + PAGE, journalPageChecksum(nonce, bytes, at + 4, PAGE));
      }
      parts.push(bytes);
    }
    return new Uint8Array(Buffer.concat(parts));
  }

  function visited(journal: Uint8Array): number[] {
    const pgnos: number[] = [];
    readJournal(memoryFile(journal), journal.length, PAGE, (pgno) => pgnos.push(pgno));
    return pgnos;
  }

  test("count 0 is an empty segment, and the next one still counts", () => {
    const journal = build(512, 9, [
      { nonce: 1, pgnos: [1, 2] },
      { nonce: 2, pgnos: [], count: 0 },
      { nonce: 0xfffffff0, pgnos: [3] },
    ]);
    expect(visited(journal)).toEqual([1, 2, 3]);
    expect(visited(build(512, 9, [{ nonce: 1, pgnos: [1, 2], count: 0 }]))).toEqual([]);
  });

  test("sectors of any size separate segments", () => {
    for (const sectorSize of [32, 512, 4096, 65536]) {
      const journal = build(sectorSize, 9, [
        { nonce: 5, pgnos: [4, 5, 6] },
        { nonce: 6, pgnos: [7] },
      ]);
      const padded = new Uint8Array(Math.max(512, journal.length));
      padded.set(journal);
      expect(visited(padded)).toEqual([4, 5, 6, 7]);
    }
  });

  test("pages past the initial size are skipped; page 0 and the lock page end the scan", () => {
    expect(visited(build(512, 2, [{ nonce: 1, pgnos: [1, 3, 2] }]))).toEqual([1, 2]);
    expect(visited(build(512, 2, [{ nonce: 1, pgnos: [1, 0, 2] }]))).toEqual([1]);
    const lockPage = lockPgno(PAGE);
    const journal = build(512, 0xffffffff, [
      { nonce: 1, pgnos: [1, lockPage, 2] },
      { nonce: 1, pgnos: [4] },
    ]);
    expect(visited(journal)).toEqual([1]);
  });

  test("a wrong checksum ends the scan for later segments as well", () => {
    const journal = build(512, 9, [
      { nonce: 1, pgnos: [1, 2] },
      { nonce: 2, pgnos: [3] },
    ]);
    journal[512 + RECORD + 4 + 112] = 99;
    expect(visited(journal)).toEqual([1]);
  });

  test("a header without its whole sector, a bad page or sector size is nothing", () => {
    const journal = build(512, 9, [{ nonce: 1, pgnos: [1] }]);
    expect(readJournal(memoryFile(journal.slice(0, 511)), 511, PAGE)).toBeUndefined();
    for (const [offset, value] of [
      [20, 16],
      [20, 513],
      [20, 131072],
      [24, 256],
      [24, 513],
    ] as const) {
      const bad = journal.slice();
      new DataView(bad.buffer).setUint32(offset, value);
      expect(readJournal(memoryFile(bad), bad.length, PAGE)).toBeUndefined();
    }
    new DataView(journal.buffer).setUint32(24, 0);
    expect(readJournal(memoryFile(journal), journal.length, PAGE)?.pageSize).toBe(PAGE);
    expect(readJournal(memoryFile(journal), journal.length, 0)).toBeUndefined();
  });

  test("headers: zero, hot, cut off", () => {
    expect(isZeroHeader(new Uint8Array(JOURNAL_HEADER_SIZE))).toBe(true);
    expect(isZeroHeader(new Uint8Array(JOURNAL_HEADER_SIZE - 1))).toBe(false);
    expect(isZeroHeader(new Uint8Array(40).fill(1, 30), 2)).toBe(true);
    expect(isZeroHeader(new Uint8Array(40).fill(1, 29), 2)).toBe(false);
    const journal = build(512, 9, [{ nonce: 1, pgnos: [1] }]);
    expect(isHotJournalHeader(journal)).toBe(true);
    expect(isHotJournalHeader(journal.slice(0, 7))).toBe(false);
    expect(decodeJournalHeader(journal.slice(0, 27), 0)).toBeUndefined();
  });
});
