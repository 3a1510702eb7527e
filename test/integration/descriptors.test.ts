import * as fs from "node:fs";
import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster } from "../support/cluster.ts";

cleanUpAfterEach();

const LIMIT = 256;
const DATABASES = 120;

test("more open databases than descriptors work, on a primary and on a replica", async () => {
  const cluster = await Cluster.start({ replicas: 1, descriptors: LIMIT });
  const names = Array.from({ length: DATABASES }, (_, i) => `db-${i}.sqlite`);
  const connections = names.map((name, i) => {
    const db = cluster.connect(cluster.primary, name, { timeout: 20_000 });
    db.pragma(`journal_mode = ${i % 3 === 0 ? "DELETE" : "WAL"}`);
    db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
    return db;
  });
  for (let round = 1; round <= 3; round++) {
    for (const db of connections) db.exec(`INSERT INTO t (v) VALUES ('round ${round}')`);
  }
  // Each has a database, most a WAL and its index too, and every one has a log.
  const descriptors = fs.readdirSync(`/proc/${cluster.primary.pid}/fd`).length;
  expect(descriptors).toBeLessThan(LIMIT);
  for (const db of connections) {
    expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(3);
  }
  for (const name of names) await cluster.waitForReplicas(name);
  const readers = names.map((name) => cluster.connect(cluster.replica, name, { readonly: true }));
  for (const db of readers) {
    expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(3);
  }
  expect(fs.readdirSync(`/proc/${cluster.replica.pid}/fd`).length).toBeLessThan(LIMIT);
  await cluster.verify();
});

test("databases that come and go leave no descriptor behind", async () => {
  const cluster = await Cluster.start({ replicas: 0 });
  const count = (): number => fs.readdirSync(`/proc/${cluster.primary.pid}/fd`).length;
  const before = count();
  for (let i = 0; i < 20; i++) {
    const name = `guest-${i}.db`;
    const db = cluster.connect(cluster.primary, name);
    db.exec("CREATE TABLE t (v); INSERT INTO t VALUES (1)");
    db.close();
    fs.rmSync(cluster.primary.file(name));
  }
  // Connections of the test itself come and go in between.
  expect(count()).toBeLessThan(before + 10);
});
