import { expect, test } from "vitest";
import { cleanUpElectedAfterEach, ElectedCluster } from "../support/elected-cluster.ts";
import { etcdLease, startEtcd } from "../support/servers/etcd.ts";
import { useServer } from "../support/servers/use-server.ts";

const etcdServer = useServer(startEtcd);
cleanUpElectedAfterEach();

test("a candidate with most transactions gets the acknowledged one that it lacks before it is elected", async ({
  skip,
}) => {
  const etcd = etcdServer();
  if (etcd === undefined) return skip();
  const cluster = await ElectedCluster.start({
    lease: etcdLease(etcd),
    // So that nobody is elected before the other one has answered.
    config: "sync: {databases: {app.db: 1}, nodes: 3}",
  });
  const [n0, n1, n2] = [cluster.node(0), cluster.node(1), cluster.node(2)];
  const app = cluster.connect(n0, "app.db");
  app.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (row TEXT); INSERT INTO t VALUES ('first')");
  await cluster.waitForSame("app.db", n0, [n1, n2]);
  // The primary is deposed with a database that no other node has, of many transactions.
  await Promise.all([n1.kill(), n2.kill()]);
  const lone = cluster.connect(n0, "lone.db");
  lone.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (x INTEGER PRIMARY KEY)");
  for (let i = 0; i < 100; i++) lone.exec("INSERT INTO t DEFAULT VALUES");
  cluster.closeConnections();
  await n0.freeze();
  await Promise.all([n1.start(), n2.start()]);
  const next = await cluster.waitForPrimary([n1, n2]);
  n0.signal("SIGCONT");
  await cluster.waitForPrimary();
  // Now it follows, so that it belongs to the new term; and misses the last transaction.
  await n0.freeze();
  const other = next === n1 ? n2 : n1;
  cluster.connect(next, "app.db").exec("INSERT INTO t VALUES ('acknowledged')");
  await cluster.waitForSame("app.db", next, [other]);
  cluster.closeConnections();
  await Promise.all([next.kill(), other.kill(), n0.kill()]);
  n0.launch();
  other.launch();
  const elected = await cluster.waitForPrimary([n0, other]);
  const rows = cluster.connect(elected, "app.db").prepare("SELECT row FROM t").pluck().all();
  expect(rows).toEqual(["first", "acknowledged"]);
  await next.start();
  await cluster.verify();
  const count = cluster.connect(next, "lone.db").prepare("SELECT count(*) FROM t").pluck().get();
  expect(count).toBe(100);
});
