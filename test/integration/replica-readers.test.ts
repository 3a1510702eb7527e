import * as fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster } from "../support/cluster.ts";
import { startPython, tryShell } from "../support/shell.ts";
import { PYTHON } from "../support/python-path.ts";

cleanUpAfterEach();

const ACCOUNTS = 200;

/** Accounts whose sum never changes, and a counter that only grows. */
function createAccounts(db: Database.Database, mode = "WAL"): void {
  db.pragma(`journal_mode=${mode}`);
  db.exec(`
    CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, pad BLOB);
    CREATE TABLE counter(n INTEGER);
    INSERT INTO counter VALUES (0);
    INSERT INTO account WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c LIMIT ${ACCOUNTS})
      SELECT i, 100, randomblob(600) FROM c;`);
}

const WRITER = `
import random
end = time.time() + float(sys.argv[2]) if len(sys.argv) > 2 else time.time() + 4
n = 0
while time.time() < end:
  a, b = random.sample(range(1, ${ACCOUNTS} + 1), 2)
  db.execute("BEGIN IMMEDIATE")
  db.execute("UPDATE account SET balance = balance - 7, pad = randomblob(600) WHERE id = ?", (a,))
  db.execute("UPDATE account SET balance = balance + 7 WHERE id = ?", (b,))
  db.execute("UPDATE counter SET n = n + 1")
  db.execute("COMMIT")
  n += 1
print(n)`;

/** Reads consistent snapshots one after the other; prints how many, or fails. */
const reader = (holdSeconds: number): string => `
end = time.time() + 4
last = -1
count = 0
while time.time() < end:
  db.execute("BEGIN")
  def look():
    n = db.execute("SELECT n FROM counter").fetchone()[0]
    s = db.execute("SELECT sum(balance), count(*), sum(length(pad)) FROM account").fetchone()
    assert s == (${ACCOUNTS} * 100, ${ACCOUNTS}, ${ACCOUNTS} * 600), s
    return n
  n = look()
  assert n >= last, (n, last)
  last = n
  hold = time.time() + ${holdSeconds}
  while time.time() < hold:
    assert look() == n, "the snapshot moved"
    time.sleep(0.02)
  db.execute("COMMIT")
  count += 1
print(count, last)`;

const checkpointer = (kind: string): string => `
end = time.time() + 4
count = 0
while time.time() < end:
  db.execute("PRAGMA wal_checkpoint(${kind})").fetchall()
  count += 1
  time.sleep(0.005)
print(count)`;

test.each(["PASSIVE", "TRUNCATE"])(
  "readers of a replica see consistent data while it follows and %s checkpoints run",
  async (kind) => {
    const cluster = await Cluster.start();
    const db = cluster.connect(cluster.primary, "bank.db");
    createAccounts(db);
    await cluster.waitForReplicas("bank.db");
    const path = cluster.replica.file("bank.db");
    const other = cluster.node(2).file("bank.db");
    const results = await Promise.all([
      startPython(cluster.primary.file("bank.db"), WRITER),
      startPython(path, reader(0)),
      startPython(path, reader(0)),
      startPython(path, reader(3)),
      startPython(path, checkpointer(kind)),
      startPython(other, reader(0.3)),
    ]);
    for (const { code, stderr } of results)
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(Number(results[0]?.stdout)).toBeGreaterThan(0);
    await cluster.waitForReplicas("bank.db");
    await cluster.verify();
  },
);

/** Opens the database anew for each look at it. */
const VISITOR = `
db.close()
end = time.time() + 4
last = -1
count = 0
while time.time() < end:
  visit = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
  visit.execute("BEGIN")
  n = visit.execute("SELECT n FROM counter").fetchone()[0]
  s = visit.execute("SELECT sum(balance), count(*), sum(length(pad)) FROM account").fetchone()
  assert s == (${ACCOUNTS} * 100, ${ACCOUNTS}, ${ACCOUNTS} * 600), (n, s)
  assert n >= last, (n, last)
  last = n
  visit.execute("COMMIT")
  visit.close()
  count += 1
print(count, last)`;

test("whoever is the first to open a replica's database sees consistent data", async () => {
  const cluster = await Cluster.start();
  const db = cluster.connect(cluster.primary, "bank.db");
  createAccounts(db);
  await cluster.waitForReplicas("bank.db");
  const results = await Promise.all([
    startPython(cluster.primary.file("bank.db"), WRITER),
    startPython(cluster.replica.file("bank.db"), VISITOR),
    startPython(cluster.node(2).file("bank.db"), VISITOR),
  ]);
  for (const { code, stderr } of results) expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(Number(results[1]?.stdout.split(" ")[0])).toBeGreaterThan(0);
  await cluster.waitForReplicas("bank.db");
  await cluster.verify();
});

test("readers of a replica in rollback mode see consistent data", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  createAccounts(cluster.connect(cluster.primary, "bank.db"), "DELETE");
  await cluster.waitForReplicas("bank.db");
  const path = cluster.replica.file("bank.db");
  const results = await Promise.all([
    startPython(cluster.primary.file("bank.db"), WRITER),
    startPython(path, reader(0)),
    startPython(path, reader(0.5)),
  ]);
  for (const { code, stderr } of results) expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  await cluster.waitForReplicas("bank.db");
  await cluster.verify();
});

test("many frames pass under a reader that stays, and the local WAL does not grow for ever", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const db = cluster.connect(cluster.primary, "bank.db");
  createAccounts(db);
  await cluster.waitForReplicas("bank.db");
  const idle = cluster.connect(cluster.replica, "bank.db");
  const count = idle.prepare("SELECT n FROM counter").pluck();
  expect(count.get()).toBe(0);
  for (let round = 1; round <= 30; round++) {
    db.exec("UPDATE account SET pad = randomblob(600); UPDATE counter SET n = n + 1");
    await cluster.waitForReplicas("bank.db");
    expect(count.get()).toBe(round);
  }
  await cluster.verify();
  const walBytes = fs.statSync(cluster.replica.dataFile("bank.db", "wal"), {
    throwIfNoEntry: false,
  });
  expect(walBytes?.size ?? 0).toBeLessThan(8 * 1024 * 1024);
});

test.each(["WAL", "DELETE"])(
  "from %s to DELETE, an idle connection of a replica follows for long",
  async (mode) => {
    const cluster = await Cluster.start({ replicas: 1 });
    const db = cluster.connect(cluster.primary, "bank.db");
    createAccounts(db, mode);
    await cluster.waitForReplicas("bank.db");
    const idle = cluster.connect(cluster.replica, "bank.db");
    const count = idle.prepare("SELECT n FROM counter").pluck();
    expect(count.get()).toBe(0);
    db.pragma("journal_mode=DELETE");
    for (let round = 1; round <= 60; round++) {
      db.exec("UPDATE account SET pad = randomblob(600); UPDATE counter SET n = n + 1");
      if (round % 10 === 0) {
        await cluster.waitForReplicas("bank.db");
        expect(count.get()).toBe(round);
      }
    }
    await cluster.verify();
  },
);

/** The code with which SQLite refuses a statement. */
function refusal(db: Database.Database, sql: string): string {
  try {
    db.exec(sql);
  } catch (error) {
    if (error instanceof Database.SqliteError) return error.code;
    throw error;
  }
  return "accepted";
}

test.each(["WAL", "DELETE", "TRUNCATE", "PERSIST"])(
  "a replica that forwards nothing refuses writes as busy, %s",
  async (mode) => {
    const cluster = await Cluster.start({ replicas: 1, config: "forward: {enabled: false}" });
    const db = cluster.connect(cluster.primary, "app.db");
    createAccounts(db, mode);
    db.close();
    await cluster.waitForReplicas("app.db");
    const file = cluster.replica.file("app.db");

    // Nobody has it open on the replica: the very first thing that happens is a write.
    const first = tryShell(PYTHON, [
      "-c",
      `import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0.2)
try:
  db.execute("UPDATE counter SET n = 99")
  print("accepted")
except sqlite3.OperationalError as e:
  print(e.sqlite_errorname)
print(db.execute("SELECT n FROM counter").fetchone()[0])`,
      file,
    ]);
    expect(first.stdout).toMatch(/^SQLITE_BUSY\w*\n0\n$/);

    const local = cluster.connect(cluster.replica, "app.db", { timeout: 50 });
    for (const sql of [
      "UPDATE counter SET n = 99",
      "BEGIN IMMEDIATE",
      "BEGIN EXCLUSIVE",
      "CREATE TABLE other(x)",
      "PRAGMA user_version=7",
      "VACUUM",
      "PRAGMA journal_mode=DELETE; PRAGMA journal_mode=WAL; UPDATE counter SET n = 99",
    ]) {
      expect(refusal(local, sql), sql).toMatch(/^SQLITE_(?:BUSY|LOCKED|READONLY)/);
      if (local.inTransaction) local.exec("ROLLBACK");
    }
    expect(local.prepare("SELECT n FROM counter").pluck().get()).toBe(0);
    await cluster.verify();
  },
);

test("a replica cannot create or remove a database, and says so", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  createAccounts(cluster.connect(cluster.primary, "app.db"));
  await cluster.waitForReplicas("app.db");
  expect(() => fs.unlinkSync(cluster.replica.file("app.db"))).toThrow(/EROFS|EACCES/);
  const fresh = cluster.connect(cluster.replica, "new.db", { timeout: 50 });
  expect(refusal(fresh, "CREATE TABLE t(x)")).toMatch(/^SQLITE_(?:BUSY|READONLY|CANTOPEN)/);
  expect(cluster.primary.position("new.db")).toBeUndefined();
  await cluster.verify();
});

test("a connection opened before the first replication sees what comes", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const early = cluster.connect(cluster.replica, "app.db", { timeout: 2000 });
  expect(early.prepare("SELECT count(*) FROM sqlite_master").pluck().get()).toBe(0);
  const db = cluster.connect(cluster.primary, "app.db");
  createAccounts(db);
  await cluster.waitForReplicas("app.db");
  expect(early.prepare("SELECT n FROM counter").pluck().get()).toBe(0);
  db.exec("UPDATE counter SET n = 5");
  await cluster.waitForReplicas("app.db");
  expect(early.prepare("SELECT n FROM counter").pluck().get()).toBe(5);
  await cluster.verify();
});

test("the last connection on a replica closes and another opens, again and again", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const db = cluster.connect(cluster.primary, "app.db");
  createAccounts(db);
  await cluster.waitForReplicas("app.db");
  for (let round = 1; round <= 20; round++) {
    const local = cluster.connect(cluster.replica, "app.db", { readonly: round % 3 === 0 });
    db.exec("UPDATE counter SET n = n + 1; UPDATE account SET pad = randomblob(600)");
    if (round % 2 === 0) await sleep(5);
    const seen = Number(local.prepare("SELECT n FROM counter").pluck().get());
    expect(seen).toBeGreaterThanOrEqual(round - 1);
    await cluster.waitForReplicas("app.db");
    expect(local.prepare("SELECT n FROM counter").pluck().get()).toBe(round);
    local.close();
  }
  await cluster.verify();
});

test("a reader sees every transaction of a writer that has locked others out for good", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const writer = cluster.connect(cluster.primary, "app.db");
  // SQLite counts its first transaction only: here nobody could look before it is done.
  writer.exec(`
    PRAGMA journal_mode = TRUNCATE;
    PRAGMA locking_mode = EXCLUSIVE;
    CREATE TABLE t(x);
    INSERT INTO t VALUES (0);`);
  await cluster.waitForReplicas("app.db");
  const looking = cluster.connect(cluster.replicas[0]!, "app.db", { readonly: true });
  for (let i = 1; i <= 5; i++) {
    writer.prepare("UPDATE t SET x = ?").run(i);
    await cluster.waitForReplicas("app.db");
    expect(looking.prepare("SELECT x FROM t").pluck().get()).toBe(i);
  }
  await cluster.verify();
});
