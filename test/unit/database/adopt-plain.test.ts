import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import Database from "better-sqlite3";
import { expect, onTestFinished, test } from "vitest";
import { nodeFiles } from "../../../src/database/files.ts";
import { openDatabase } from "../../../src/database/recover.ts";
import { FakeDisk } from "./support/fake-disk.ts";
import { checkConsistent, DIRECTORY, FakeHost, open } from "./support/harness.ts";

test("a SQLite file put into the data directory opens at TXID 1, and again after that", () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-adopt-"));
  onTestFinished(() => fs.rmSync(directory, { recursive: true }));
  const plain = new Database(path.join(directory, "database"));
  plain.exec("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  plain.close();
  for (let i = 0; i < 3; i++) {
    const db = openDatabase("app.db", new FakeHost(), nodeFiles, directory);
    expect({ status: db.status, reason: db.reason, txid: db.position.txid }).toEqual({
      status: "ok",
      reason: "",
      txid: 1,
    });
    db.close();
  }
});

test.each([
  ["more than its pages", 5000],
  ["its last page in part", -700],
])("a SQLite file that has %s opens again and again", (_what, byBytes) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-adopt-"));
  onTestFinished(() => fs.rmSync(directory, { recursive: true }));
  const file = path.join(directory, "database");
  const plain = new Database(file);
  plain.exec("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  plain.close();
  const sizeBytes = fs.statSync(file).size;
  fs.truncateSync(file, sizeBytes + byBytes);
  for (let i = 0; i < 3; i++) {
    const db = openDatabase("app.db", new FakeHost(), nodeFiles, directory);
    expect({ status: db.status, reason: db.reason }).toEqual({ status: "ok", reason: "" });
    expect(fs.statSync(file).size).toBeGreaterThanOrEqual(sizeBytes);
    checkConsistent(db);
    db.close();
  }
});

test("a database that was opened and not used holds no file open", () => {
  const content = fs.readFileSync(
    path.join(import.meta.dirname, "../../fixtures/litefs-0.5.14/raw-4096/export.db"),
  );
  let disk = new FakeDisk();
  disk.put(`${DIRECTORY}/database`, content);
  for (let start = 0; start < 3; start++) {
    const db = open(disk);
    expect({ status: db.status, handles: disk.openHandles }).toEqual({ status: "ok", handles: 0 });
    disk = disk.kill();
  }
});
