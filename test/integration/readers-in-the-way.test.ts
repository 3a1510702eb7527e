import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { cleanUpAfterEach, Cluster, waitFor } from "../support/cluster.ts";
import { ElectedCluster } from "../support/elected-cluster.ts";
import type { EtcdServer } from "../support/servers/etcd.ts";
import { startEtcd } from "../support/servers/etcd.ts";
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
  let etcd: EtcdServer | undefined;
  let cluster: ElectedCluster | undefined;
  let reader: SqliteProcess | undefined;
  beforeAll(async () => {
    etcd = await startEtcd();
  }, 180_000);
  afterAll(async () => await etcd?.process.dispose());
  afterEach(async ({ task }) => {
    if (task.result?.state === "fail") cluster?.printLogs();
    await reader?.dispose();
    await cluster?.dispose();
  });

  test("it does not keep its node from taking over, nor the others from following it", async ({
    skip,
  }) => {
    if (etcd === undefined) return skip();
    cluster = await ElectedCluster.start({
      lease: ["type: etcd", `etcd: {endpoints: ["${etcd.url}"], key: KEY, ttl: 2s}`],
    });
    const [n0, n1, n2] = [cluster.node(0), cluster.node(1), cluster.node(2)];
    for (const name of ["app.db", "other.db"]) {
      const db = cluster.connect(n0, name);
      db.exec("PRAGMA journal_mode = DELETE; CREATE TABLE t (x); INSERT INTO t VALUES (1)");
    }
    for (const name of ["app.db", "other.db"]) {
      for (const node of [n1, n2]) {
        await waitFor(`${node.name} to have ${name}`, 30_000, () =>
          node.position(name) === n0.position(name) ? undefined : "not yet",
        );
      }
    }
    reader = new SqliteProcess(n1.file("app.db"));
    await reader.run("BEGIN");
    await reader.run("SELECT * FROM t");
    cluster.connect(n0, "app.db").exec("INSERT INTO t VALUES (2)");
    await waitFor("the other replica to have it", 30_000, () =>
      n2.position("app.db") === n0.position("app.db") ? undefined : "not yet",
    );
    cluster.closeConnections();
    await n0.kill();
    // Whoever is elected: it is not held up, and neither is who follows.
    await cluster.waitForPrimary([n1, n2]);
    cluster.connect(n1, "other.db", { timeout: 10_000 }).exec("INSERT INTO t VALUES (3)");
    await waitFor("both to have it", 30_000, () =>
      n1.position("other.db") === n2.position("other.db") ? undefined : "not yet",
    );
    expect(await reader.run("SELECT x FROM t")).toEqual([[1]]);
    await reader.run("COMMIT");
    await waitFor("the reader's node to go on", 30_000, () =>
      n1.position("app.db") === n2.position("app.db") ? undefined : "not yet",
    );
    await n0.start();
    await cluster.verify();
  });
});
