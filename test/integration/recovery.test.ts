import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type Database from "better-sqlite3";
import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster } from "../support/cluster.ts";
import { startPython } from "../support/shell.ts";
import type { TestNode } from "../support/test-node.ts";

cleanUpAfterEach();

const MEGABYTE = 1024 * 1024;

function createTable(db: Database.Database, mode = "WAL"): Database.Statement {
  db.pragma(`journal_mode=${mode}`);
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
  return db.prepare("INSERT INTO t(x) VALUES (randomblob(?))");
}

/** Inserts rows until its database goes away; keeps the number of acknowledged ones in a file. */
const WRITE_UNTIL_KILLED = `
last = 0
progress = os.open(sys.argv[1].replace("/mnt/", "/") + ".progress", os.O_RDWR | os.O_CREAT)
try:
  while True:
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO t(id, x) VALUES (?, randomblob(500))", (last + 1,))
    db.execute("COMMIT")
    last += 1
    os.pwrite(progress, b"%010d" % last, 0)
except sqlite3.Error as e:
  pass`;

async function waitForProgress(file: string, count: number): Promise<void> {
  for (let i = 0; i < 2000; i++) {
    const text = fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
    if (Number(text) >= count) return;
    await sleep(10);
  }
  throw new Error(`${file} never reached ${count}`);
}

test.each(["SIGTERM", "SIGKILL"] as const)(
  "a replica comes back after %s and catches up",
  async (signal) => {
    const cluster = await Cluster.start();
    const db = cluster.connect(cluster.primary, "app.db");
    const insert = createTable(db);
    insert.run(10);
    await cluster.waitForReplicas("app.db");
    const end = signal === "SIGTERM" ? cluster.replica.stop() : cluster.replica.kill();
    for (let i = 0; i < 300; i++) insert.run(2000);
    await end;
    for (let i = 0; i < 10; i++) insert.run(2000);
    await cluster.replica.start();
    expect(cluster.replica.log).not.toContain("quarantined");
    await cluster.waitForReplicas("app.db");
    const local = cluster.connect(cluster.replica, "app.db");
    expect(local.prepare("SELECT count(*) FROM t").pluck().get()).toBe(311);
    local.close();
    // It went on from its own position, no snapshot was needed.
    expect(cluster.primary.log.match(/snapshot sent/g) ?? []).toHaveLength(2);
    await cluster.verify();
  },
);

test("databases at rest are on the shelf after an orderly stop, and serve when asked for", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  const names = ["a.db", "b.db", "c.db"];
  for (const name of names) {
    createTable(cluster.connect(primary, name)).run(100);
    await cluster.waitForReplicas(name);
  }
  cluster.closeConnections();
  const restart = async (): Promise<void> => {
    for (const node of cluster.nodes) await node.stop();
    for (const node of cluster.nodes) await node.start();
  };
  // The first start finds them in order.
  await restart();
  for (const node of cluster.nodes) await node.stop();
  const snapshotsBefore = primary.log.match(/snapshot sent/g);
  const shelfOf = ({ dataDirectory }: TestNode): string =>
    fs.readFileSync(path.join(dataDirectory, "shelf"), "utf8");
  // The first line is the boot's.
  for (const node of cluster.nodes) expect(shelfOf(node).trim().split("\n")).toHaveLength(4);
  // As somebody would who puts a copy in its place.
  const copy = replica.dataFile("c.db", "database");
  fs.copyFileSync(copy, `${copy}.new`);
  fs.renameSync(`${copy}.new`, copy);
  for (const node of cluster.nodes) {
    await node.start();
    expect(fs.readdirSync(node.mountPoint).filter((name) => name.endsWith(".db"))).toEqual(names);
  }
  for (const name of names) {
    await cluster.waitForReplicas(name);
    const db = cluster.connect(primary, name);
    db.prepare("INSERT INTO t(x) VALUES (randomblob(?))").run(100);
    await cluster.waitForReplicas(name);
    const local = cluster.connect(replica, name);
    expect(local.prepare("SELECT count(*) FROM t").pluck().get()).toBe(2);
  }
  expect(replica.log.match(/changed while litefs did not run/g)).toHaveLength(1);
  expect(primary.log).not.toContain("changed while litefs did not run");
  expect(primary.log.match(/snapshot sent/g)).toEqual(snapshotsBefore);
  await cluster.verify();
});

test("after a crash those are on the shelf that nobody has written since the start", async () => {
  const cluster = await Cluster.start({ replicas: 0 });
  const { primary } = cluster;
  const names = ["a.db", "b.db", "c.db", "d.db"];
  for (const name of names) createTable(cluster.connect(primary, name)).run(100);
  cluster.closeConnections();
  // One start finds them in order, and is killed: nothing has written a shelf but a start.
  await primary.stop();
  await primary.start();
  await primary.kill();
  await primary.start();
  const insert = (name: string): void => {
    const db = cluster.connect(primary, name);
    db.prepare("INSERT INTO t(x) VALUES (randomblob(?))").run(100);
  };
  insert("b.db");
  const position = primary.position("b.db");
  const reader = cluster.connect(primary, "c.db");
  expect(reader.prepare("SELECT count(*) FROM t").pluck().get()).toBe(1);
  reader.close();
  // As whoever writes into the data directory while litefs does not run.
  await primary.kill();
  const copy = primary.dataFile("d.db", "database");
  fs.copyFileSync(copy, `${copy}.new`);
  fs.renameSync(`${copy}.new`, copy);
  cluster.closeConnections();
  await primary.start();
  expect(primary.position("b.db")).toBe(position);
  // Of the first start, when they had been in use, of the next, and of the two after kills.
  const opened = [...primary.log.matchAll(/databases found" count=4 opened=(\d)/g)].map(
    (m) => m[1],
  );
  expect(opened).toEqual(["4", "0", "2"]);
  for (const name of names) {
    insert(name);
    const count = cluster.connect(primary, name).prepare("SELECT count(*) FROM t").pluck().get();
    expect([name, count]).toEqual([name, name === "b.db" ? 3 : 2]);
  }
  await cluster.verify();
});

test("a new replica is sent what is on the shelf of its primary", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  createTable(cluster.connect(primary, "app.db")).run(5000);
  await cluster.waitForReplicas("app.db");
  cluster.closeConnections();
  await replica.stop();
  for (let i = 0; i < 2; i++) {
    await primary.stop();
    await primary.start();
  }
  fs.rmSync(replica.dataDirectory, { recursive: true });
  await replica.start();
  await cluster.waitForReplicas("app.db");
  const local = cluster.connect(replica, "app.db");
  expect(local.prepare("SELECT count(*) FROM t").pluck().get()).toBe(1);
  await cluster.verify();
});

test("a replica is killed again and again while it receives", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  createTable(cluster.connect(cluster.primary, "app.db"));
  cluster.closeConnections();
  const writer = startPython(
    cluster.primary.file("app.db"),
    `
for i in range(3000):
  db.execute("INSERT INTO t(x) VALUES (randomblob(1000))")
  time.sleep(0.001)`,
  );
  for (let round = 0; round < 3; round++) {
    await sleep(300);
    await cluster.replica.kill();
    await cluster.replica.start();
    const local = cluster.connect(cluster.replica, "app.db");
    expect(local.pragma("quick_check", { simple: true })).toBe("ok");
    if (round % 2 === 0) local.close();
  }
  cluster.closeConnections();
  const { code, stderr } = await writer;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  await cluster.waitForReplicas("app.db");
  await cluster.verify();
});

test.each([
  ["SIGTERM", "WAL"],
  ["SIGKILL", "WAL"],
  ["SIGTERM", "DELETE"],
  ["SIGKILL", "DELETE"],
] as const)(
  "%s of the primary under load in %s mode loses no acknowledged commit",
  async (signal, mode) => {
    const cluster = await Cluster.start({ replicas: 1 });
    createTable(cluster.connect(cluster.primary, "app.db"), mode);
    cluster.closeConnections();
    let acknowledged = 0;
    for (let round = 0; round < 2; round++) {
      const progress = path.join(cluster.primary.options.directory, "app.db.progress");
      fs.rmSync(progress, { force: true });
      const stop = new AbortController();
      const writer = startPython(
        cluster.primary.file("app.db"),
        WRITE_UNTIL_KILLED.replace("last = 0", `last = ${acknowledged}`),
        stop.signal,
      );
      await waitForProgress(progress, acknowledged + 200);
      if (signal === "SIGKILL") await cluster.primary.kill();
      else await cluster.primary.stop();
      // SQLite would go on trying to lock a file of a mount that is gone for ten seconds.
      stop.abort();
      await writer;
      acknowledged = Number(fs.readFileSync(progress, "utf8"));
      await cluster.primary.start();
      const db = cluster.connect(cluster.primary, "app.db");
      const count = Number(db.prepare("SELECT max(id) FROM t").pluck().get());
      expect(count).toBeGreaterThanOrEqual(acknowledged);
      expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(count);
      // One commit may have been complete without its writer having been told.
      expect(count).toBeLessThanOrEqual(acknowledged + 1);
      acknowledged = count;
      await cluster.waitForReplicas("app.db");
      await cluster.verify();
    }
  },
);

test("a killed writer leaves nothing behind that hinders the next", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  for (const mode of ["WAL", "DELETE"]) {
    const name = `${mode}.db`;
    createTable(cluster.connect(cluster.primary, name), mode);
    cluster.closeConnections();
    for (let round = 0; round < 3; round++) {
      const { stderr } = await startPython(
        cluster.primary.file(name),
        `
import signal, threading
threading.Timer(0.15, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
while True:
  db.execute("BEGIN IMMEDIATE")
  db.execute("PRAGMA cache_size=5")
  for i in range(20): db.execute("INSERT INTO t(x) VALUES (randomblob(2000))")
  db.execute("COMMIT")`,
      );
      expect(stderr).toBe("");
      const db = cluster.connect(cluster.primary, name, { timeout: 1000 });
      expect(Number(db.prepare("SELECT count(*) FROM t").pluck().get()) % 20).toBe(0);
      db.exec("BEGIN IMMEDIATE; INSERT INTO t(x) VALUES (1); DELETE FROM t WHERE x = 1; COMMIT");
      await cluster.waitForReplicas(name);
      await cluster.verify();
    }
  }
});

test("a primary with another history: replicas take its snapshot and keep what was theirs", async () => {
  const cluster = await Cluster.start();
  const db = cluster.connect(cluster.primary, "app.db");
  const insert = createTable(db);
  insert.run(100);
  await cluster.waitForReplicas("app.db");
  cluster.closeConnections();
  await cluster.primary.stop();
  const older = path.join(cluster.directory, "older");
  fs.cpSync(cluster.primary.dataDirectory, older, { recursive: true });
  await cluster.primary.start();
  const again = cluster.connect(cluster.primary, "app.db");
  for (let i = 0; i < 5; i++) again.exec("INSERT INTO t(x) VALUES ('lost')");
  await cluster.waitForReplicas("app.db");
  cluster.closeConnections();
  const reader = cluster.connect(cluster.replica, "app.db");
  expect(reader.prepare("SELECT count(*) FROM t").pluck().get()).toBe(6);

  await cluster.primary.stop();
  fs.rmSync(cluster.primary.dataDirectory, { recursive: true });
  fs.renameSync(older, cluster.primary.dataDirectory);
  await cluster.primary.start();
  const other = cluster.connect(cluster.primary, "app.db");
  other.exec("INSERT INTO t(x) VALUES ('other')");
  await cluster.waitForReplicas("app.db");
  // A connection that was open all the time sees the new history.
  expect(reader.prepare("SELECT x FROM t WHERE id > 1").pluck().all()).toEqual(["other"]);
  for (const node of cluster.replicas) {
    const kept = fs.readdirSync(node.dataFile("app.db", "diverged"));
    expect(kept, `${node.name} keeps the abandoned history`).toHaveLength(1);
  }
  await cluster.verify();
});

test("a late replica gets a snapshot of 50 MB while writes go on", async () => {
  const cluster = await Cluster.create({ replicas: 1 });
  await cluster.primary.start();
  const db = cluster.connect(cluster.primary, "app.db");
  const insert = createTable(db);
  db.transaction(() => {
    for (let i = 0; i < 50; i++) insert.run(MEGABYTE);
  })();
  db.pragma("wal_checkpoint(TRUNCATE)");
  const writer = startPython(
    cluster.primary.file("app.db"),
    `
end = time.time() + 4
n = 0
while time.time() < end:
  db.execute("UPDATE t SET x = randomblob(3000) WHERE id = abs(random()) % 50 + 1")
  db.execute("INSERT INTO t(x) VALUES (randomblob(1000))")
  n += 1
print(n)`,
  );
  await sleep(300);
  await cluster.replica.start();
  const { code, stdout, stderr } = await writer;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(Number(stdout)).toBeGreaterThan(20);
  await cluster.waitForReplicas("app.db");
  const local = cluster.connect(cluster.replica, "app.db");
  expect(local.prepare("SELECT count(*) FROM t").pluck().get()).toBe(50 + Number(stdout));
  await cluster.verify();
});
