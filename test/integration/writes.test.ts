import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster } from "../support/cluster.ts";

cleanUpAfterEach();

test("smoke", async () => {
  const cluster = await Cluster.start();
  const db = cluster.connect(cluster.primary, "app.db");
  db.pragma("journal_mode=WAL");
  db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  await cluster.waitForReplicas("app.db");
  const other = cluster.connect(cluster.replica, "app.db");
  expect(other.prepare("SELECT x FROM t").all()).toEqual([{ x: 1 }]);
  await cluster.verify();
});
