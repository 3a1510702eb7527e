import * as fs from "node:fs";
import * as path from "node:path";
import { expect, it } from "vitest";
import { reapLegacyTransactions } from "../../../src/database/legacy.ts";
import { parsePosition } from "../../../src/lib/position.ts";
import { decodeHeader } from "../../../src/ltx/header.ts";
import { FakeDisk } from "./support/fake-disk.ts";
import { checkConsistent, DIRECTORY, open, readAll } from "./support/harness.ts";

const FIXTURE = path.join(import.meta.dirname, "../../fixtures/litefs-0.5.14/wal-4096");

/** The directory of a database as LiteFS leaves it. */
function takenOver() {
  const text = fs.readFileSync(path.join(FIXTURE, "expected.json"), "utf8");
  const { transactions } = JSON.parse(text) as { transactions: { pos: string; file: string }[] };
  const disk = new FakeDisk();
  for (const { file } of transactions) {
    disk.put(`${DIRECTORY}/${file}`, fs.readFileSync(path.join(FIXTURE, file)));
  }
  disk.put(`${DIRECTORY}/database`, fs.readFileSync(path.join(FIXTURE, "export.db")));
  const timesMs = transactions.map(
    ({ file }) => decodeHeader(disk.content(`${DIRECTORY}/${file}`), 0).timestampMs,
  );
  return { disk, db: open(disk), transactions, timesMs };
}

it("what LiteFS left goes when it is old, oldest first, and the rest still leads to the end", () => {
  const { disk, db, transactions, timesMs } = takenOver();
  expect(reapLegacyTransactions(db, timesMs[0] ?? 0)).toBe(0);
  expect(disk.list(`${DIRECTORY}/ltx`)).toHaveLength(transactions.length);

  const middle = 3;
  const removed = reapLegacyTransactions(db, timesMs[middle] ?? 0);
  expect(removed).toBe(timesMs.filter((timeMs) => timeMs < (timesMs[middle] ?? 0)).length);
  expect(removed).toBeGreaterThan(0);
  for (const [i, { pos }] of transactions.entries()) {
    const ltx = readAll(disk, db, parsePosition(pos), 1);
    if (i + 1 < removed) expect(ltx).toBeUndefined();
    else expect(ltx).toHaveLength(transactions.length - 1 - i);
  }

  expect(reapLegacyTransactions(db, Infinity)).toBe(transactions.length - removed);
  expect(disk.list(DIRECTORY)).not.toContain("ltx");
  expect(reapLegacyTransactions(db, Infinity)).toBe(0);
  const again = open(disk.kill());
  expect(again.position).toEqual(db.position);
  checkConsistent(again);
});

it("files that are no transactions stay", () => {
  const { disk, db } = takenOver();
  disk.put(`${DIRECTORY}/ltx/notes.txt`, new Uint8Array(3));
  reapLegacyTransactions(db, Infinity);
  expect(disk.list(`${DIRECTORY}/ltx`)).toEqual(["notes.txt"]);
});
