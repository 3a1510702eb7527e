import * as fs from "node:fs";
import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster } from "../../support/cluster.ts";
import { python } from "../../support/shell.ts";

cleanUpAfterEach();

test("what a replica wrote stays in the primary's WAL when somebody asks for its size", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  const db = cluster.connect(primary, "app.db");
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(20000))");
  await cluster.waitForReplicas("app.db");
  const remote = cluster.connect(replica, "app.db", { timeout: 10_000 });
  for (let i = 0; i < 5; i++) remote.exec("INSERT INTO t VALUES (zeroblob(5000))");
  // Nobody is left who knows the WAL: the next one reads it from its start to its end.
  cluster.closeConnections();
  db.close();
  const read = `print(db.execute("SELECT count(*) FROM t").fetchone()[0])`;
  expect(python(primary.file("app.db"), read)).toBe("6");
  await cluster.verify();
});

test("the same, while a connection of the primary stays", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  const db = cluster.connect(primary, "app.db");
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(20000))");
  await cluster.waitForReplicas("app.db");
  const remote = cluster.connect(replica, "app.db", { timeout: 10_000 });
  const read = `print(db.execute("SELECT count(*), sum(length(x)) FROM t").fetchone())`;
  for (let i = 1; i <= 10; i++) {
    remote.exec("INSERT INTO t VALUES (zeroblob(5000))");
    db.exec("INSERT INTO t VALUES (zeroblob(3000))");
    expect(python(primary.file("app.db"), read)).toBe(`(${1 + 2 * i}, ${20000 + 8000 * i})`);
  }
  await cluster.verify();
});

test("the WAL of a replica is started over when all that comes is large", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  const db = cluster.connect(primary, "app.db");
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE t(x)");
  // Each goes through a file, and nobody opens the database on the replica.
  const transactionBytes = 6_000_000;
  for (let i = 0; i < 4; i++) {
    db.prepare("DELETE FROM t").run();
    db.prepare("INSERT INTO t VALUES (randomblob(?))").run(transactionBytes);
    await cluster.waitForReplicas("app.db");
  }
  await expect
    .poll(
      () => fs.statSync(replica.dataFile("app.db", "wal"), { throwIfNoEntry: false })?.size ?? 0,
    )
    .toBeLessThan(1.5 * transactionBytes);
  await cluster.verify();
});
