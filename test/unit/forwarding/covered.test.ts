import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";
import { DatabaseEntry } from "../../../src/filesystem/entry.ts";
import { NodeTable } from "../../../src/filesystem/node-table.ts";
import { WriteService } from "../../../src/filesystem/write-service.ts";
import { FakeDisk } from "../database/support/fake-disk.ts";
import { FakeHost, open } from "../database/support/harness.ts";

test("the lease runs out while a forwarded transaction is written: it is not acknowledged", () => {
  const dir = path.join(import.meta.dirname, "../../fixtures/litefs-0.5.14/wal-4096");
  const expected = JSON.parse(fs.readFileSync(path.join(dir, "expected.json"), "utf8")) as {
    transactions: { file: string }[];
  };
  const ltx = fs.readFileSync(path.join(dir, expected.transactions[0]!.file));
  const host = new FakeHost();
  const db = open(new FakeDisk(), host);
  const nodes = new NodeTable();
  const entry = new DatabaseEntry(db, (owner, kind) => nodes.newFile(owner, kind));
  const replies: unknown[] = [];
  // As the clock would have it when this thread is stopped between the two looks.
  let looks = 0;
  const service = new WriteService({
    isPrimary: () => true,
    mayCommit: () => looks++ === 0,
    readersComeUnasked: () => false,
    entry: () => entry,
    find: () => entry,
    applied: () => undefined,
    publish: () => undefined,
    reply: (_id, result) => replies.push(result),
    fail: (_id, error) => replies.push(error),
  });
  service.handle({ type: "lend", id: 1, database: "app.db", loan: "5" });
  expect(replies.at(-1)).toMatchObject({ kind: "lent" });
  const forwarded = { database: "app.db", loan: "5", ltx, path: undefined, isDurable: true };
  service.handle({ type: "apply-forwarded", id: 2, forwarded });
  expect(replies.at(-1)).not.toMatchObject({ kind: "committed" });
});
