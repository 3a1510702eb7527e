import Database from "better-sqlite3";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FormatError } from "../../../src/lib/errors.ts";
import {
  committedPageCount,
  isWalMode,
  parseDatabaseHeader,
  type DatabaseHeader,
} from "../../../src/sqlite/database-header.ts";
import { readBytes, TemporaryDirectory } from "./support.ts";

function parse(bytes: Uint8Array, offset = 0): DatabaseHeader {
  const header = parseDatabaseHeader(bytes, offset);
  if (header instanceof FormatError) throw header;
  return header;
}

function sample(): Uint8Array {
  using directory = new TemporaryDirectory();
  const db = new Database(directory.file("a.db"));
  db.exec("create table t (x)");
  db.close();
  return readBytes(directory.file("a.db"));
}

describe("parseDatabaseHeader", () => {
  for (const pageSize of [512, 1024, 4096, 32768, 65536]) {
    for (const mode of ["wal", "delete"]) {
      test(`page size ${pageSize}, ${mode}`, () => {
        using directory = new TemporaryDirectory();
        const path = directory.file("a.db");
        const db = new Database(path);
        db.pragma(`page_size = ${pageSize}`);
        db.pragma(`journal_mode = ${mode}`);
        db.exec("create table t (x); insert into t values (zeroblob(300000))");
        const pageCount = db.pragma("page_count", { simple: true });
        const schemaCookie = db.pragma("schema_version", { simple: true });
        db.close();
        const bytes = readBytes(path);
        const header = parse(bytes);
        expect(header).toMatchObject({ pageSize, pageCount, schemaCookie, reservedBytes: 0 });
        expect(isWalMode(header)).toBe(mode === "wal");
        expect(header.versionValidFor).toBe(header.changeCounter);
        expect(committedPageCount(header, bytes.length)).toBe(pageCount);
        const shifted = new Uint8Array(107);
        shifted.set(bytes.subarray(0, 100), 7);
        expect(parse(shifted, 7)).toEqual(header);
      });
    }
  }

  test("says what is wrong with a file that is no database", () => {
    const good = sample();
    const short = parseDatabaseHeader(good.slice(0, 99));
    expect(short).toMatchObject({ code: "SQLITE_HEADER_TRUNCATED" });
    const magic = good.slice();
    magic[15] = 1;
    expect(parseDatabaseHeader(magic)).toMatchObject({ code: "SQLITE_HEADER_MAGIC" });
    for (const value of [0, 2, 256, 511, 513, 0xffff]) {
      const bytes = good.slice();
      new DataView(bytes.buffer).setUint16(16, value);
      expect(parseDatabaseHeader(bytes)).toMatchObject({ code: "SQLITE_HEADER_PAGE_SIZE" });
    }
  });

  test("never throws", () => {
    const good = sample().slice(0, 100);
    fc.assert(
      fc.property(fc.nat(99), fc.uint8Array({ maxLength: 100 }), (offset, noise) => {
        const bytes = good.slice();
        bytes.set(noise.subarray(0, 100 - offset), offset);
        const header = parseDatabaseHeader(bytes);
        if (header instanceof FormatError) return;
        expect(Math.log2(header.pageSize) % 1).toBe(0);
      }),
    );
  });
});

describe("committedPageCount", () => {
  const header = { pageSize: 4096, pageCount: 7, changeCounter: 3, versionValidFor: 3 };

  test("believes the header only when its counters agree", () => {
    expect(committedPageCount(header, 4096 * 99)).toBe(7);
    expect(committedPageCount({ ...header, versionValidFor: 2 }, 4096 * 99)).toBe(99);
    expect(committedPageCount({ ...header, pageCount: 0 }, 4096 * 99)).toBe(99);
    expect(committedPageCount({ ...header, pageCount: 0 }, 4096 * 99 + 1)).toBe(100);
    expect(committedPageCount({ ...header, pageCount: 0 }, 0)).toBe(0);
  });

  test("agrees with SQLite on a file whose stored size is out of date", () => {
    using directory = new TemporaryDirectory();
    const path = directory.file("a.db");
    const db = new Database(path);
    db.exec("create table t (x); insert into t values (zeroblob(50000))");
    db.close();
    const bytes = readBytes(path);
    const stale = bytes.slice();
    stale[31] = 3;
    stale[95]! ^= 1;
    const reopened = new Database(Buffer.from(stale));
    const wanted = reopened.pragma("page_count", { simple: true });
    reopened.close();
    expect(committedPageCount(parse(stale), stale.length)).toBe(wanted);
    expect(wanted).toBe(bytes.length / 4096);
  });
});
