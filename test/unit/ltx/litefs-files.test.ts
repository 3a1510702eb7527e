import { readdirSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { formatChecksum, formatTxid } from "../../../src/lib/position.ts";
import { Crc64, pageChecksum } from "../../../src/ltx/crc64.ts";
import { DatabaseChecksum } from "../../../src/ltx/database-checksum.ts";
import { decodeLtx, type DecodedLtx } from "../../../src/ltx/decode-ltx.ts";
import { LtxDecoder } from "../../../src/ltx/decoder.ts";
import { encodeLtx } from "../../../src/ltx/encode-ltx.ts";
import { parseLtxFilename } from "../../../src/ltx/filename.ts";
import { isSnapshot, LTX_FLAG_COMPRESSED } from "../../../src/ltx/header.ts";
import { lockPgno } from "../../../src/ltx/lock-page.ts";
import {
  FIXTURES,
  readFixture,
  readChain,
  readFixtureText,
  sha256,
  type FixtureTransaction,
} from "./fixtures.ts";

function expectedPages(transaction: FixtureTransaction): number[] {
  if (transaction.pages !== undefined) return [...transaction.pages];
  return (transaction.pageRanges ?? []).flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, i) => first + i),
  );
}

function expectMatches(decoded: DecodedLtx, expected: FixtureTransaction): void {
  const { header, trailer } = decoded;
  expect({
    txid: [formatTxid(header.minTxid), formatTxid(header.maxTxid)],
    flags: header.flags,
    pageSize: header.pageSize,
    commit: header.commit,
    timestamp: header.timestampMs,
    preApplyChecksum: formatChecksum(header.preApplyChecksum),
    postApplyChecksum: formatChecksum(trailer.postApplyChecksum),
    fileChecksum: formatChecksum(trailer.fileChecksum),
    wal: [header.walOffset, header.walSize, header.walSalt1, header.walSalt2],
    nodeID: formatChecksum(header.nodeId).toUpperCase(),
    pages: decoded.pages.map((page) => page.pgno),
  }).toEqual({
    txid: [expected.txid, expected.txid],
    flags: expected.flags,
    pageSize: expected.pageSize,
    commit: expected.commit,
    timestamp: expected.timestamp,
    preApplyChecksum: expected.preApplyChecksum,
    postApplyChecksum: expected.postApplyChecksum,
    fileChecksum: expected.fileChecksum,
    wal: [expected.walOffset, expected.walSize, expected.walSalt1, expected.walSalt2],
    nodeID: expected.nodeID,
    pages: expectedPages(expected),
  });
}

/** Our encoding of the same content: other LZ4 bytes perhaps, but the same file checksum. */
function reencode(decoded: DecodedLtx): Uint8Array {
  return encodeLtx(decoded.header, decoded.pages, decoded.trailer.postApplyChecksum);
}

function applyTo(database: Uint8Array, decoded: DecodedLtx): Uint8Array {
  const { pageSize, commit } = decoded.header;
  const next = new Uint8Array(commit * pageSize);
  next.set(database.subarray(0, next.length));
  for (const { pgno, data } of decoded.pages) next.set(data, (pgno - 1) * pageSize);
  return next;
}

function checksumOf(database: Uint8Array, pageSize: number): string {
  const crc = new Crc64();
  const sum = new DatabaseChecksum();
  for (let pgno = 1; pgno <= database.length / pageSize; pgno++) {
    if (pgno === lockPgno(pageSize)) continue;
    pageChecksum(crc, pgno, database, (pgno - 1) * pageSize, pageSize);
    sum.toggle(crc.hi, crc.lo);
  }
  return formatChecksum(sum.toBigint());
}

describe.each(["wal-4096", "delete-1024", "raw-4096", "drop-4096"])("chain %s", (name) => {
  const { transactions, end } = readChain(name);

  test.each(transactions)("transaction $txid decodes as recorded", (expected) => {
    const bytes = readFixture(name, expected.file);
    const decoded = decodeLtx(bytes);
    expectMatches(decoded, expected);
    const again = decodeLtx(reencode(decoded));
    expect(again).toEqual(decoded);
    if ((decoded.header.flags & LTX_FLAG_COMPRESSED) === 0)
      expect(reencode(decoded)).toEqual(bytes);
  });

  test("applying all files gives the recorded database after each, and the export", () => {
    let database = new Uint8Array(0);
    for (const expected of transactions) {
      const decoded = decodeLtx(readFixture(name, expected.file));
      database = new Uint8Array(applyTo(database, decoded));
      expect([expected.txid, database.length]).toEqual([expected.txid, expected.databaseSize]);
      expect([expected.txid, sha256(database)]).toEqual([expected.txid, expected.databaseSha256]);
      expect(checksumOf(database, decoded.header.pageSize)).toBe(expected.postApplyChecksum);
      if (isSnapshot(decoded.header)) {
        expect(formatChecksum(decoded.pagesChecksum)).toBe(expected.postApplyChecksum);
      }
    }
    expect(sha256(database)).toBe(end.exportSha256);
    expect(Buffer.compare(database, readFixture(name, "export.db"))).toBe(0);
  });
});

test.each(readChain("lockpage-65536").transactions.filter((one) => !one.file.endsWith(".gz")))(
  "around the lock page: transaction $txid decodes as recorded",
  (expected) => {
    const decoded = decodeLtx(readFixture("lockpage-65536", expected.file));
    expectMatches(decoded, expected);
    expect(decodeLtx(reencode(decoded))).toEqual(decoded);
  },
);

test("a chain of a gigabyte streams in bounded memory, and leaves out the lock page", () => {
  const checksums = new Map<number, readonly [hi: number, lo: number]>();
  for (const expected of readChain("lockpage-65536").transactions) {
    let largestPgno = 0;
    const decoder = new LtxDecoder({
      onPage: (pgno, _, hi, lo) => {
        checksums.set(pgno, [hi, lo]);
        largestPgno = pgno;
      },
    });
    const bytes = readFixture("lockpage-65536", expected.file);
    const file = expected.file.endsWith(".gz") ? gunzipSync(bytes) : bytes;
    for (let at = 0; at < file.length; at += 8192) decoder.push(file.subarray(at, at + 8192));
    const { header, trailer } = decoder.end();
    expect(largestPgno).toBe(expectedPages(expected).at(-1));
    const sum = new DatabaseChecksum();
    for (let pgno = 1; pgno <= header.commit; pgno++) {
      const [hi, lo] = checksums.get(pgno) ?? [0, 0];
      sum.toggle(hi, lo);
    }
    expect(checksums.has(16385)).toBe(false);
    expect(sum.toBigint()).toBe(trailer.postApplyChecksum);
    expect(formatChecksum(trailer.postApplyChecksum)).toBe(expected.postApplyChecksum);
  }
});

test("every other file that LiteFS wrote is accepted, and encodes to the same file checksum", () => {
  const files = readdirSync(FIXTURES, { recursive: true, encoding: "utf8" }).filter(
    (file) => parseLtxFilename(file.split("/").at(-1) ?? "") !== undefined,
  );
  expect(files.length).toBeGreaterThan(100);
  for (const file of files) {
    const decoded = decodeLtx(readFixture(file));
    expect(readFixture(file).length, file).toBeGreaterThanOrEqual(120);
    expect([file, decodeLtx(reencode(decoded))]).toEqual([file, decoded]);
  }
});

interface Anomaly {
  readonly name: string;
  readonly files: readonly {
    readonly file: string;
    readonly checksumAfterApplying: string;
    readonly postApplyChecksum: string;
    readonly consistent: boolean;
  }[];
}

test("valid files that do not apply to their checksum are told by the database checksum", () => {
  const { cases }: { cases: Anomaly[] } = JSON.parse(readFixtureText("anomalies", "expected.json"));
  let inconsistent = 0;
  for (const { name, files } of cases) {
    let database = new Uint8Array(0);
    for (const expected of files) {
      const decoded = decodeLtx(readFixture("anomalies", name, expected.file));
      database = new Uint8Array(applyTo(database, decoded));
      const checksum = checksumOf(database, decoded.header.pageSize);
      const label = join(name, expected.file);
      expect([label, checksum]).toEqual([label, expected.checksumAfterApplying]);
      const consistent = checksum === formatChecksum(decoded.trailer.postApplyChecksum);
      expect([label, consistent]).toEqual([label, expected.consistent]);
      if (!consistent) inconsistent++;
    }
  }
  expect(inconsistent).toBeGreaterThan(0);
});
