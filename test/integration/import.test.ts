import * as fs from "node:fs";
import * as path from "node:path";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster } from "../support/cluster.ts";
import { shell, tryShell } from "../support/shell.ts";

const LITEFS = path.resolve(import.meta.dirname, "../../bin/litefs");

cleanUpAfterEach();

test("a database that is imported replaces the old one everywhere, in one transaction", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  const file = path.join(cluster.directory, "source.db");
  const source = new Database(file);
  source.pragma("page_size=8192");
  source.exec(
    "CREATE TABLE t(x); INSERT INTO t SELECT randomblob(500) FROM (VALUES (1), (2), (3))",
  );
  source.close();
  const litefsImport = (name: string): string =>
    shell(LITEFS, ["import", "-url", primary.url, "-name", name, file]);

  litefsImport("new.db");
  await cluster.waitForReplicas("new.db");
  const count = "SELECT count(*) FROM t";
  expect(cluster.connect(replica, "new.db").prepare(count).pluck().get()).toBe(3);

  const db = cluster.connect(primary, "app.db");
  db.exec("PRAGMA page_size=8192; PRAGMA journal_mode=WAL; CREATE TABLE old(x)");
  const before = await cluster.waitForReplicas("app.db");
  const reader = cluster.connect(replica, "app.db");
  reader.exec("BEGIN; SELECT * FROM old");
  litefsImport("app.db");
  const after = await cluster.waitForReplicas("app.db");
  const txid = (position: string): number => Number.parseInt(position.split("/")[0] ?? "", 16);
  expect(txid(after)).toBe(txid(before) + 1);
  expect(db.prepare(count).pluck().get()).toBe(3);
  // The reader keeps its snapshot, and then sees the new state.
  expect(reader.prepare("SELECT count(*) FROM old").pluck().get()).toBe(0);
  reader.exec("COMMIT");
  expect(reader.prepare(count).pluck().get()).toBe(3);

  for (const name of ["app.db-wal", "app.db-pos", ".role", "x".repeat(250)]) {
    const { code, stderr } = tryShell(LITEFS, ["import", "-url", primary.url, "-name", name, file]);
    expect(code, name).toBe(1);
    expect(stderr).toContain("not a name of a database");
  }
  const onReplica = tryShell(LITEFS, ["import", "-url", replica.url, "-name", "app.db", file]);
  expect(onReplica.stderr).toMatch(/lease expired: this node is not the primary/);
  expect(onReplica.code).toBe(1);
  expect(fs.readdirSync(path.join(primary.dataDirectory, "import"))).toEqual([]);
  await cluster.verify();
});
