import * as fs from "node:fs";
import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster, waitFor } from "../support/cluster.ts";
import type { TestNode } from "../support/test-node.ts";

cleanUpAfterEach();

const NAMES = ["a.db", "b.db", "c.db", "d.db"] as const;

/** Databases of which everybody knows nothing but what stat(2) says. */
async function startAtRest(replicas: number): Promise<Cluster> {
  const cluster = await Cluster.start({ replicas });
  for (const name of NAMES) {
    const db = cluster.connect(cluster.primary, name);
    db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(20000))");
    db.close();
    await cluster.waitForReplicas(name);
  }
  cluster.closeConnections();
  // The first start finds some that have been in use.
  for (let start = 0; start < 2; start++) {
    for (const node of cluster.nodes) await node.stop();
    for (const node of cluster.nodes) await node.start();
  }
  for (const node of cluster.nodes) {
    expect(node.log).toMatch(/databases found" count=4 opened=0/);
    for (const name of NAMES)
      expect(fs.statSync(node.file(name)).size).toBe(sizeInData(node, name));
  }
  return cluster;
}

function sizeInData(node: TestNode, name: string): number {
  return fs.statSync(node.dataFile(name, "database")).size;
}

test("what is written to a database after stat(2) on all nodes is seen on all nodes", async () => {
  const cluster = await startAtRest(1);
  const { primary } = cluster;
  const [replica] = cluster.replicas;
  if (replica === undefined) throw new Error("there is one replica");
  const before = fs.statSync(replica.file("a.db"));
  const db = cluster.connect(primary, "a.db");
  db.exec("INSERT INTO t VALUES (zeroblob(50000))");
  await cluster.waitForReplicas("a.db");
  for (const node of cluster.nodes) {
    const { size, ino } = fs.statSync(node.file("a.db"));
    expect(size).toBeGreaterThan(before.size + 50_000);
    expect(size).toBe(sizeInData(node, "a.db"));
    if (node === replica) expect(ino).toBe(before.ino);
    const count = cluster.connect(node, "a.db").prepare("SELECT count(*) FROM t").pluck();
    expect(count.get()).toBe(2);
  }
  // Forwarded, by the first who opens it on the replica.
  cluster.connect(replica, "b.db", { timeout: 20_000 }).exec("INSERT INTO t VALUES (1)");
  expect(cluster.connect(primary, "b.db").prepare("SELECT count(*) FROM t").pluck().get()).toBe(2);
  await cluster.verify();
});

test("removed, renamed, and with other permissions after stat(2)", async () => {
  const cluster = await startAtRest(1);
  const { primary } = cluster;
  const [replica] = cluster.replicas;
  if (replica === undefined) throw new Error("there is one replica");
  fs.rmSync(primary.file("a.db"));
  fs.renameSync(primary.file("b.db"), primary.file("e.db"));
  fs.chmodSync(primary.file("c.db"), 0o640);
  expect(fs.statSync(primary.file("c.db")).mode & 0o777).toBe(0o640);
  for (const node of cluster.nodes) {
    await waitFor("the names to change", 20_000, () => {
      const shown = fs.readdirSync(node.mountPoint).filter((name) => /^[a-e]\.db$/.test(name));
      return shown.join() === "c.db,d.db,e.db" ? undefined : shown.join();
    });
    expect(fs.existsSync(node.file("a.db"))).toBe(false);
    expect(fs.existsSync(node.file("b.db"))).toBe(false);
    const count = cluster.connect(node, "e.db").prepare("SELECT count(*) FROM t").pluck();
    expect(count.get()).toBe(1);
  }
  await cluster.verify();
});
