import { afterEach, describe, expect, test } from "vitest";
import { cleanUpAfterEach, Cluster } from "../support/cluster.ts";
import { cleanUpElectedAfterEach, ElectedCluster } from "../support/elected-cluster.ts";
import { etcdLease, startEtcd } from "../support/servers/etcd.ts";
import { useServer } from "../support/servers/use-server.ts";
import { SqliteProcess } from "../support/sqlite-process.ts";

/*
 * In the rollback modes a transaction that reads keeps the database as it is, on a replica too. An
 * application that forgets one must not keep its node from stopping, or from the other databases.
 */

cleanUpAfterEach();

test("a node stops although an application has a transaction open that reads", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const db = cluster.connect(cluster.primary, "app.db");
  db.exec("PRAGMA journal_mode = DELETE; CREATE TABLE t (x); INSERT INTO t VALUES (1)");
  await cluster.waitForReplicas("app.db");
  const reader = new SqliteProcess(cluster.replica.file("app.db"));
  try {
    await reader.run("BEGIN");
    await reader.run("SELECT * FROM t");
    db.exec("INSERT INTO t VALUES (2)");
    const stoppedAt = Date.now();
    await cluster.replica.stop();
    expect(Date.now() - stoppedAt).toBeLessThan(10_000);
  } finally {
    await reader.dispose();
  }
  await cluster.replica.start();
  await cluster.verify();
});

describe("with elections", () => {
  const etcdServer = useServer(startEtcd);
  cleanUpElectedAfterEach();
  let reader: SqliteProcess | undefined;
  afterEach(async () => await reader?.dispose());

  test("it does not keep its node from taking over, nor the others from following it", async ({
    skip,
  }) => {
    const etcd = etcdServer();
    if (etcd === undefined) return skip();
    const cluster = await ElectedCluster.start({ lease: etcdLease(etcd) });
    const [n0, n1, n2] = [cluster.node(0), cluster.node(1), cluster.node(2)];
    for (const name of ["app.db", "other.db"]) {
      const db = cluster.connect(n0, name);
      db.exec("PRAGMA journal_mode = DELETE; CREATE TABLE t (x); INSERT INTO t VALUES (1)");
    }
    for (const name of ["app.db", "other.db"]) await cluster.waitForSame(name, n0, [n1, n2]);
    reader = new SqliteProcess(n1.file("app.db"));
    await reader.run("BEGIN");
    await reader.run("SELECT * FROM t");
    cluster.connect(n0, "app.db").exec("INSERT INTO t VALUES (2)");
    await cluster.waitForSame("app.db", n0, [n2]);
    cluster.closeConnections();
    await n0.kill();
    // Whoever is elected: it is not held up, and neither is who follows.
    await cluster.waitForPrimary([n1, n2]);
    cluster.connect(n1, "other.db", { timeout: 10_000 }).exec("INSERT INTO t VALUES (3)");
    await cluster.waitForSame("other.db", n1, [n2]);
    expect(await reader.run("SELECT x FROM t")).toEqual([[1]]);
    await reader.run("COMMIT");
    // The reader's node goes on.
    await cluster.waitForSame("app.db", n2, [n1]);
    await n0.start();
    await cluster.verify();
  });
});
