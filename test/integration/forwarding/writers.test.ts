import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { cleanUpAfterEach, Cluster } from "../../support/cluster.ts";
import { startPython } from "../../support/shell.ts";

cleanUpAfterEach();

/** SQLITE_BUSY only says that others had their turn; nothing has happened, so it is tried again. */
const AGAIN = `
db.execute("PRAGMA busy_timeout=30000")
def again(sql):
  while True:
    try: return db.execute(sql)
    except sqlite3.OperationalError as error:
      if "locked" not in str(error): raise`;

const INCREMENT = `${AGAIN}
for i in range(COUNT):
  again("BEGIN IMMEDIATE")
  n = db.execute("SELECT n FROM counter").fetchone()[0]
  again("UPDATE counter SET n = %d" % (n + 1))
  again("COMMIT")`;

const AUTOCOMMIT = `${AGAIN}
for i in range(COUNT): again("UPDATE counter SET n = n + 1")`;

async function start(mode: string, replicas: number): Promise<Cluster> {
  const cluster = await Cluster.start({ replicas });
  const db = cluster.connect(cluster.primary, "app.db");
  db.pragma(`journal_mode=${mode}`);
  db.exec("CREATE TABLE counter(n); INSERT INTO counter VALUES (0)");
  db.close();
  await cluster.waitForReplicas("app.db");
  return cluster;
}

describe.each(["WAL", "DELETE"])("%s", (mode) => {
  test.each([
    ["transactions", INCREMENT],
    ["single statements", AUTOCOMMIT],
  ])("a counter that every node counts up loses nothing, by %s", async (_, source) => {
    const cluster = await start(mode, 3);
    const count = mode === "WAL" ? 25 : 8;
    const writers = cluster.nodes.flatMap((node) => {
      const program = source.replace("COUNT", String(count));
      return [1, 2].map(() => startPython(node.file("app.db"), program));
    });
    const results = await Promise.all(writers);
    expect(results.map(({ code, stderr }) => ({ code, stderr }))).toEqual(
      writers.map(() => ({ code: 0, stderr: "" })),
    );
    await cluster.waitForReplicas("app.db");
    for (const node of cluster.nodes) {
      const db = cluster.connect(node, "app.db");
      expect(db.prepare("SELECT n FROM counter").pluck().get()).toBe(writers.length * count);
    }
    await cluster.verify();
  });
});

// SQLite's patience is counted in attempts, so this does not depend on how fast anything is.
test.each(["WAL", "DELETE"])(
  "in %s mode an application on the primary has its turn among nodes that write all the time",
  async (mode) => {
    const cluster = await start(mode, 2);
    const before = cluster.primary.position("app.db");
    const stop = new AbortController();
    const endless = AUTOCOMMIT.replace("range(COUNT)", "iter(int, 1)");
    const others = cluster.replicas.map((node) =>
      startPython(node.file("app.db"), endless, stop.signal),
    );
    await expect
      .poll(() => cluster.primary.position("app.db"), { timeout: 20_000 })
      .not.toBe(before);
    const own = await startPython(
      cluster.primary.file("app.db"),
      `
db.execute("PRAGMA busy_timeout=1000")
for i in range(10): db.execute("UPDATE counter SET n = n + 1")
print("done")`,
    );
    stop.abort();
    await Promise.all(others);
    expect(own).toEqual({ code: 0, stdout: "done", stderr: "" });
    await cluster.verify();
  },
);

test.each(["WAL", "DELETE"])(
  "a transaction of 40 MB in %s mode goes to the primary",
  async (mode) => {
    const cluster = await start(mode, 1);
    const db = cluster.connect(cluster.replica, "app.db");
    db.pragma("cache_size=-2000");
    db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
    const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(100000))");
    db.transaction(() => {
      for (let i = 0; i < 400; i++) insert.run();
    })();
    expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(400);
    const other = cluster.connect(cluster.primary, "app.db");
    const count = other.prepare("SELECT count(*) FROM t").pluck();
    await expect.poll(() => count.get(), { timeout: 20_000 }).toBe(400);
    await cluster.verify();
  },
);

/** Reads in one thread while another waits to write; says for how long no read came to an end. */
const SIBLINGS = `
import threading
db.execute("PRAGMA busy_timeout=30000")
longest, isOver = 0.0, False
def read():
  global longest
  reader = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
  last = time.monotonic()
  while not isOver:
    reader.execute("SELECT n FROM counter").fetchone()
    now = time.monotonic()
    longest, last = max(longest, now - last), now
    time.sleep(0.002)
thread = threading.Thread(target=read)
thread.start()
for i in range(20):
  db.execute("SELECT n FROM counter").fetchone()
  time.sleep(0.01)
db.execute("UPDATE counter SET n = n + 1")
isOver = True
thread.join()
print(round(longest * 1000))`;

test.each(["WAL", "DELETE"])(
  "%s: threads of a process read on while one of them waits for its turn to write",
  async (mode) => {
    const cluster = await start(mode, 1);
    const db = cluster.connect(cluster.primary, "app.db");
    db.exec("BEGIN IMMEDIATE; UPDATE counter SET n = n + 1");
    const waiting = startPython(cluster.replica.file("app.db"), SIBLINGS);
    await sleep(4_000);
    db.exec("COMMIT");
    const { code, stdout, stderr } = await waiting;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(Number(stdout)).toBeLessThan(1_500);
    expect(db.prepare("SELECT n FROM counter").pluck().get()).toBe(2);
    await cluster.verify();
  },
);

test("checkpoints and restarts of the WAL on a replica that writes", async () => {
  const cluster = await start("WAL", 2);
  const db = cluster.connect(cluster.replica, "app.db");
  db.pragma("wal_autocheckpoint=10");
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
  const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(2000))");
  const primary = cluster.connect(cluster.primary, "app.db");
  for (let i = 0; i < 300; i++) {
    insert.run();
    if (i % 50 === 0) primary.exec("INSERT INTO t(x) VALUES (1)");
  }
  db.pragma("wal_checkpoint(TRUNCATE)");
  insert.run();
  // The answer to a commit waits for the log of the primary, not for its readers.
  const count = primary.prepare("SELECT count(*) FROM t").pluck();
  await expect.poll(() => count.get(), { timeout: 20_000 }).toBe(307);
  await cluster.verify();
});

test("a VACUUM, an ALTER, a change of the journal mode and a rollback on a replica", async () => {
  const cluster = await start("DELETE", 2);
  const db = cluster.connect(cluster.replica, "app.db");
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
  const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(3000))");
  db.transaction(() => {
    for (let i = 0; i < 300; i++) insert.run();
  })();
  db.exec("DELETE FROM t WHERE id > 20; VACUUM; ALTER TABLE t ADD COLUMN y");
  db.exec("BEGIN; UPDATE t SET x = 1; ROLLBACK; BEGIN; UPDATE t SET y = 2; COMMIT");
  expect(db.pragma("journal_mode=WAL", { simple: true })).toBe("wal");
  db.exec("BEGIN; DELETE FROM t; ROLLBACK; UPDATE t SET y = 3 WHERE id < 10");
  await cluster.waitForReplicas("app.db");
  const other = cluster.connect(cluster.node(2), "app.db");
  expect(other.prepare("SELECT count(*), sum(y) FROM t").raw().get()).toEqual([20, 9 * 3 + 11 * 2]);
  await cluster.verify();
});
