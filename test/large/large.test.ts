import * as fs from "node:fs";
import * as path from "node:path";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { checkNode } from "../../src/cli/check-node.ts";
import { cleanUpAfterEach, Cluster } from "../support/cluster.ts";

cleanUpAfterEach();

const MEBIBYTE = 1024 * 1024;
const GIBIBYTE = 1024 * MEBIBYTE;
const PAGE_SIZE = 65536;
const WAIT_MS = 15 * 60_000;

/** What Cluster.verify does, without holding a whole database in memory. */
async function expectSound(cluster: Cluster, name: string): Promise<void> {
  cluster.closeConnections();
  await cluster.waitForReplicas(name, WAIT_MS);
  for (const node of cluster.nodes) {
    const results = await checkNode({ url: node.url, dataDirectory: node.dataDirectory });
    expect(results.find((result) => result.name === name)?.problems).toEqual([]);
  }
}

const countAndBytes = (db: Database.Database): unknown =>
  db.prepare("SELECT count(*), sum(length(x)), max(id) FROM t").raw().get();

/** Rows of zeros: SQLite writes every page of them, and they pack well on their way to a replica. */
function fill(db: Database.Database, mebibytes: number): void {
  const insert = db.prepare(`INSERT INTO t(x) VALUES (zeroblob(${16 * MEBIBYTE}))`);
  for (let i = 0; i < mebibytes / 16; i++) insert.run();
}

test("a database of more than 4 GiB is taken over, replicated and written to", async () => {
  const cluster = await Cluster.create({ replicas: 1, lifeMaxSeconds: 3600 });
  const { primary, replica } = cluster;
  const file = primary.dataFile("big.db", "database");
  fs.mkdirSync(path.dirname(file), { recursive: true });
  const source = new Database(file);
  source.pragma(`page_size=${PAGE_SIZE}`);
  source.pragma("synchronous=OFF");
  source.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
  fill(source, 4 * 1024 + 256);
  source.close();
  expect(fs.statSync(file).size).toBeGreaterThan(4 * GIBIBYTE);

  await primary.start();
  replica.launch();
  // Ready is who has everything.
  await replica.waitForLog("connected to cluster, ready", WAIT_MS);
  await cluster.waitForReplicas("big.db", WAIT_MS);
  const reader = cluster.connect(replica, "big.db");
  for (const mode of ["DELETE", "WAL"]) {
    const db = cluster.connect(primary, "big.db");
    db.pragma(`journal_mode=${mode}`);
    fill(db, 32);
    // Beyond 4 GiB, on both sides of the lock page, and at the end of the file.
    db.exec("UPDATE t SET x = randomblob(1000000) WHERE id IN (1, 64, 65, 270, 271)");
    db.exec("DELETE FROM t WHERE id = (SELECT max(id) FROM t)");
    db.exec("BEGIN; UPDATE t SET x = 1; ROLLBACK");
    const expected = countAndBytes(db);
    db.close();
    await cluster.waitForReplicas("big.db", WAIT_MS);
    expect(countAndBytes(reader)).toEqual(expected);
  }
  await primary.restart();
  expect(primary.position("big.db")).toBe(replica.position("big.db"));
  await expectSound(cluster, "big.db");
});

test("a WAL of more than 1 GiB, and the page with the lock bytes on the way", async () => {
  const cluster = await Cluster.start({ replicas: 1, lifeMaxSeconds: 3600 });
  const { primary, replica } = cluster;
  const db = cluster.connect(primary, "wal.db");
  db.pragma(`page_size=${PAGE_SIZE}`);
  db.pragma("journal_mode=WAL");
  db.pragma("wal_autocheckpoint=0");
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
  await cluster.waitForReplicas("wal.db");
  const reader = cluster.connect(replica, "wal.db");
  expect(countAndBytes(reader)).toEqual([0, null, null]);
  fill(db, 1024 + 128);
  expect(fs.statSync(primary.file("wal.db-wal")).size).toBeGreaterThan(GIBIBYTE);
  await cluster.waitForReplicas("wal.db", WAIT_MS);
  expect(countAndBytes(reader)).toEqual(countAndBytes(db));
  expect(db.pragma("wal_checkpoint(TRUNCATE)")).toMatchObject([{ busy: 0 }]);
  expect(fs.statSync(primary.file("wal.db-wal")).size).toBe(0);
  expect(fs.statSync(primary.file("wal.db")).size).toBeGreaterThan(GIBIBYTE);
  fill(db, 16);
  await cluster.waitForReplicas("wal.db", WAIT_MS);
  expect(countAndBytes(reader)).toEqual(countAndBytes(db));
  await expectSound(cluster, "wal.db");
});
