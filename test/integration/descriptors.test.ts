import * as fs from "node:fs";
import type Database from "better-sqlite3";
import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster, waitFor } from "../support/cluster.ts";

cleanUpAfterEach();

const LIMIT = 256;
const DATABASES = 120;
const WAIT_MS = 30_000;

test("more open databases than descriptors work, on a primary and on a replica", async () => {
  // Where the kernel keeps them, litefs has open what applications have open.
  const cluster = await Cluster.start({ replicas: 1, descriptors: LIMIT, locks: "daemon" });
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

test("where the kernel keeps the locks, more than the descriptors allow is refused, and the rest works", async () => {
  const cluster = await Cluster.start({ replicas: 1, descriptors: LIMIT, locks: "kernel" });
  const connections: Database.Database[] = [];
  const open = (): Database.Database => {
    const db = cluster.connect(cluster.primary, `db-${connections.length}.sqlite`);
    db.pragma("journal_mode = WAL");
    db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
    connections.push(db);
    return db;
  };
  const openAll = (): void => {
    for (let i = 0; i < DATABASES; i++) open();
  };
  expect(openAll).toThrow(expect.objectContaining({ code: "SQLITE_CANTOPEN" }));
  expect(cluster.primary.log).toContain("too few descriptors");
  // Two for each database that is open.
  expect(connections.length).toBeGreaterThan(LIMIT / 10);
  for (const db of connections) db.exec("INSERT INTO t (v) VALUES ('a')");
  expect(fs.readdirSync(`/proc/${cluster.primary.pid}/fd`).length).toBeLessThan(LIMIT);
  for (const db of connections.splice(0, 5)) db.close();
  await waitFor("descriptors", WAIT_MS, () => {
    try {
      cluster.connect(cluster.primary, "more.sqlite").exec("CREATE TABLE t (v)");
      return undefined;
    } catch (error) {
      return String(error);
    }
  });
  await cluster.waitForReplicas("more.sqlite");
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
