import * as fs from "node:fs";
import * as path from "node:path";
import Sqlite from "better-sqlite3";
import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster, waitFor } from "../../support/cluster.ts";
import { python, tryShell } from "../../support/shell.ts";

cleanUpAfterEach();

const WAIT_MS = 60_000;

async function start(): Promise<Cluster> {
  const cluster = await Cluster.start({
    replicas: 1,
    config: "sync: {replicas: 1, timeout: 5s}",
  });
  await acknowledging(cluster, 1);
  return cluster;
}

async function acknowledging(cluster: Cluster, count: number): Promise<void> {
  await waitFor(`${count} replicas to acknowledge`, WAIT_MS, async () => {
    const answer: unknown = await (await cluster.primary.get("/status")).json();
    const { sync } = answer as { sync?: { replicas: number } };
    return sync?.replicas === count ? undefined : JSON.stringify(sync);
  });
}

test("while too few replicas acknowledge, a database keeps its name and its content", async () => {
  const cluster = await start();
  const { primary, replica } = cluster;
  const file = primary.file("app.db");
  python(file, "db.execute('CREATE TABLE t(x)'); db.execute('INSERT INTO t VALUES (1)')");
  await cluster.waitForReplicas("app.db");
  const other = path.join(cluster.directory, "new.db");
  python(other, "db.execute('CREATE TABLE u(x)')");
  fs.mkdirSync(primary.file("dir"));
  fs.copyFileSync(other, primary.file("dir/new.db"));
  await replica.stop();
  await acknowledging(cluster, 0);
  for (const [from, to] of [
    ["app.db", "other.db"],
    ["app.db", "dir/app.db"],
    ["dir/new.db", "app.db"],
    ["dir/new.db", "other.db"],
  ] as const) {
    const { code, stderr } = tryShell("mv", [primary.file(from), primary.file(to)]);
    expect(code, `mv ${from} ${to}`).not.toBe(0);
    expect(stderr).toContain("Read-only file system");
  }
  expect(python(file, "print(db.execute('SELECT x FROM t').fetchall())")).toBe("[(1,)]");
  await replica.start();
  await acknowledging(cluster, 1);
  fs.renameSync(file, primary.file("other.db"));
  await cluster.waitForReplicas("other.db");
  await cluster.verify();
});

test("a WAL that is renamed into place, as rsync does it, commits what it holds", async () => {
  const cluster = await start();
  const { primary } = cluster;
  const source = path.join(cluster.directory, "source.db");
  const db = new Sqlite(source);
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  db.pragma("wal_checkpoint(TRUNCATE)");
  db.exec("INSERT INTO t VALUES (2)");
  fs.copyFileSync(source, primary.file(".app.db.1"));
  fs.copyFileSync(`${source}-wal`, primary.file(".app.db-wal.2"));
  db.close();
  fs.renameSync(primary.file(".app.db.1"), primary.file("app.db"));
  await cluster.waitForReplicas("app.db");
  fs.renameSync(primary.file(".app.db-wal.2"), primary.file("app.db-wal"));
  await cluster.waitForReplicas("app.db");
  const read = "print(db.execute('SELECT x FROM t ORDER BY x').fetchall())";
  expect(python(primary.file("app.db"), read)).toBe("[(1,), (2,)]");
  await cluster.verify();
});
