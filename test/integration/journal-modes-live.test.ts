import * as fs from "node:fs";
import * as path from "node:path";
import Database from "better-sqlite3";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Cluster, waitFor } from "../support/cluster.ts";
import { isInstalled, python, shell, sqliteCli, startPython } from "../support/shell.ts";

const hasCli = isInstalled("sqlite3");
if (!hasCli) process.stderr.write("SKIPPED: there is no sqlite3 program in PATH\n");

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start({ replicas: 1 });
});
afterAll(() => cluster.dispose());

function create(name: string, pragmas: readonly string[] = []): Database.Database {
  const db = cluster.connect(cluster.primary, name);
  for (const pragma of pragmas) db.pragma(pragma);
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
  return db;
}

function fill(db: Database.Database, rows: number, bytes = 900): void {
  const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(?))");
  db.transaction(() => {
    for (let i = 0; i < rows; i++) insert.run(bytes);
  })();
}

const count = (db: Database.Database): number =>
  Number(db.prepare("SELECT count(*) FROM t").pluck().get());

async function expectCount(name: string, expected: number): Promise<void> {
  await cluster.waitForReplicas(name);
  for (const node of cluster.nodes) {
    const db = cluster.connect(node, name);
    expect(count(db), node.name).toBe(expected);
    expect(db.pragma("integrity_check", { simple: true })).toBe("ok");
    db.close();
  }
}

let readers = 0;

/** A process of its own that reads over and over until it is told to stop; fails on wrong reads. */
function startReader(file: string, stop: AbortController): Promise<string> {
  const done = path.join(cluster.directory, `stop-${++readers}`);
  stop.signal.addEventListener("abort", () => fs.writeFileSync(done, ""));
  const source = `
n = 0
while n == 0 or not os.path.exists(${JSON.stringify(done)}):
  db.execute("BEGIN")
  a = db.execute("SELECT count(*), coalesce(sum(length(x)), 0) FROM t").fetchone()
  assert db.execute("SELECT count(*), coalesce(sum(length(x)), 0) FROM t").fetchone() == a
  db.execute("COMMIT")
  n += 1
  time.sleep(0.001)
print(n)`;
  return startPython(file, source).then(({ code, stdout, stderr }) => {
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(Number(stdout)).toBeGreaterThan(0);
    return stdout;
  });
}

describe("conversions of the journal mode", () => {
  const MODES = ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"] as const;

  test.each(MODES)("WAL to %s and back, with readers on the replica", async (mode) => {
    const name = `convert-${mode.toLowerCase()}.db`;
    fill(create(name, ["journal_mode=WAL"]), 20);
    await cluster.waitForReplicas(name);
    const stop = new AbortController();
    const reader = startReader(cluster.replica.file(name), stop);
    cluster.closeConnections();
    for (let round = 0; round < 4; round++) {
      // Python: better-sqlite3 refuses OFF.
      python(
        cluster.primary.file(name),
        `
def convert(mode):
  # SQLite does not wait for locks here, whatever the timeout.
  for attempt in range(2000):
    try: return db.execute("PRAGMA journal_mode=" + mode).fetchone()[0]
    except sqlite3.OperationalError: time.sleep(0.005)
assert convert("${mode}") == "${mode.toLowerCase()}"
for i in range(5): db.execute("INSERT INTO t(x) VALUES (randomblob(2000))")
assert convert("WAL") == "wal"
for i in range(5): db.execute("INSERT INTO t(x) VALUES (randomblob(2000))")`,
      );
      await cluster.waitForReplicas(name);
    }
    stop.abort();
    await reader;
    await expectCount(name, 60);
  });

  test("a conversion is refused while another connection is open, and nothing breaks", async () => {
    const name = "convert-busy.db";
    const db = create(name, ["journal_mode=WAL"]);
    fill(db, 10);
    const other = cluster.connect(cluster.primary, name, { timeout: 50 });
    expect(count(other)).toBe(10);
    expect(() => other.pragma("journal_mode=DELETE")).toThrow(/locked/);
    fill(db, 1);
    fill(other, 1);
    db.close();
    expect(other.pragma("journal_mode=DELETE", { simple: true })).toBe("delete");
    fill(other, 1);
    const third = cluster.connect(cluster.primary, name);
    expect(third.pragma("journal_mode", { simple: true })).toBe("delete");
    other.prepare("SELECT 1 FROM t").get();
    fill(third, 1);
    expect(count(other)).toBe(14);
    await expectCount(name, 14);
  });

  test("what a replica's connection reports follows when the last one from before closes", async () => {
    const name = "convert-report.db";
    const db = create(name, ["journal_mode=WAL"]);
    fill(db, 10);
    await cluster.waitForReplicas(name);
    const old = cluster.connect(cluster.replica, name);
    expect(count(old)).toBe(10);
    db.pragma("journal_mode=DELETE");
    fill(db, 10);
    await cluster.waitForReplicas(name);
    expect(count(old)).toBe(20);
    old.close();
    // The kernel tells of the end of a descriptor after close(2), and then the WAL is emptied, which
    // for SQLite is as if there were none.
    const wal = cluster.replica.file(`${name}-wal`);
    await waitFor("the WAL to be emptied", 10_000, () => {
      const sizeBytes = fs.statSync(wal, { throwIfNoEntry: false })?.size ?? 0;
      return sizeBytes === 0 ? undefined : `it has ${sizeBytes} bytes`;
    });
    const next = cluster.connect(cluster.replica, name);
    expect(count(next)).toBe(20);
    expect(next.pragma("journal_mode", { simple: true })).toBe("delete");
    fill(db, 1);
    await cluster.waitForReplicas(name);
    expect(count(next)).toBe(21);
    await expectCount(name, 21);
  });
});

describe("locking_mode=EXCLUSIVE", () => {
  test.each(["WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY"])(
    "from the start, %s",
    async (mode) => {
      const name = `exclusive-${mode.toLowerCase()}.db`;
      const db = cluster.connect(cluster.primary, name);
      db.pragma("locking_mode=EXCLUSIVE");
      db.pragma(`journal_mode=${mode}`);
      db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
      // In WAL mode the wal-index is in the memory of the process.
      expect(fs.existsSync(cluster.primary.file(`${name}-shm`))).toBe(false);
      for (let i = 0; i < 10; i++) fill(db, 10);
      db.exec("BEGIN; DELETE FROM t; ROLLBACK");
      if (mode === "WAL") {
        expect(db.pragma("wal_checkpoint(PASSIVE)")).toMatchObject([{ busy: 0 }]);
        fill(db, 10);
        expect(db.pragma("wal_checkpoint(TRUNCATE)")).toMatchObject([{ busy: 0 }]);
        fill(db, 10);
      }
      if (mode === "MEMORY") db.pragma("locking_mode=NORMAL");
      const expected = mode === "WAL" ? 120 : 100;
      expect(count(db)).toBe(expected);
      await cluster.waitForReplicas(name);
      const replica = cluster.connect(cluster.replica, name);
      expect(count(replica)).toBe(expected);
      fill(db, 1);
      // Where the kernel keeps the locks, what has no journal is taken some milliseconds after that.
      await waitFor("the replica to have it", 10_000, () =>
        count(replica) === expected + 1 ? undefined : `it has ${count(replica)} rows`,
      );
      db.close();
      await expectCount(name, expected + 1);
    },
  );

  test("entered and left while the WAL is open", async () => {
    const name = "exclusive-later.db";
    const db = create(name, ["journal_mode=WAL"]);
    fill(db, 10);
    db.pragma("locking_mode=EXCLUSIVE");
    fill(db, 10);
    const other = cluster.connect(cluster.primary, name, { timeout: 50 });
    expect(() => count(other)).toThrow(/locked/);
    for (let i = 0; i < 20; i++) fill(db, 1);
    db.pragma("wal_checkpoint(RESTART)");
    fill(db, 10);
    await cluster.waitForReplicas(name);
    db.pragma("locking_mode=NORMAL");
    expect(count(db)).toBe(50);
    expect(count(other)).toBe(50);
    fill(other, 1);
    expect(count(db)).toBe(51);
    await expectCount(name, 51);
  });

  test("a process that dies in it leaves a database that goes on", async () => {
    const name = "exclusive-dies.db";
    const { code } = await startPython(
      cluster.primary.file(name),
      `
db.execute("PRAGMA locking_mode=EXCLUSIVE")
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)")
for i in range(30): db.execute("INSERT INTO t(x) VALUES (randomblob(900))")
db.execute("BEGIN")
db.execute("PRAGMA cache_size=1")
for i in range(300): db.execute("INSERT INTO t(x) VALUES (randomblob(900))")
os.kill(os.getpid(), 9)`,
    );
    expect(code).not.toBe(0);
    const db = cluster.connect(cluster.primary, name);
    expect(count(db)).toBe(30);
    fill(db, 1);
    await expectCount(name, 31);
  });

  test("on a replica it is refused in WAL mode, and the others go on", async () => {
    const name = "exclusive-replica.db";
    const db = create(name, ["journal_mode=WAL"]);
    fill(db, 10);
    await cluster.waitForReplicas(name);
    const exclusive = cluster.connect(cluster.replica, name, { timeout: 50 });
    exclusive.pragma("locking_mode=EXCLUSIVE");
    expect(() => count(exclusive)).toThrow(/locked/);
    const normal = cluster.connect(cluster.replica, name, { timeout: 50 });
    expect(count(normal)).toBe(10);
    fill(db, 10);
    await cluster.waitForReplicas(name);
    expect(count(normal)).toBe(20);
    exclusive.close();
    await expectCount(name, 20);
  });
});

describe("VACUUM", () => {
  test.each([512, 1024, 8192, 65536])("to pages of %i bytes, with readers", async (pageSize) => {
    const name = `vacuum-${pageSize}.db`;
    const db = create(name, ["journal_mode=DELETE"]);
    fill(db, 200);
    await cluster.waitForReplicas(name);
    const stop = new AbortController();
    const reader = startReader(cluster.replica.file(name), stop);
    const own = startReader(cluster.primary.file(name), stop);
    db.pragma(`page_size=${pageSize}`);
    db.exec("VACUUM");
    expect(db.pragma("page_size", { simple: true })).toBe(pageSize);
    fill(db, 10);
    await cluster.waitForReplicas(name);
    stop.abort();
    await Promise.all([reader, own]);
    await expectCount(name, 210);
  });

  test.each(["rollback", "WAL"])(
    "to another page size, while idle connections of the replica are in WAL mode, ends in %s",
    async (end) => {
      const name = `vacuum-idle-${end.toLowerCase()}.db`;
      const db = create(name, ["journal_mode=WAL"]);
      fill(db, 100);
      await cluster.waitForReplicas(name);
      const idle = cluster.connect(cluster.replica, name);
      const mapped = cluster.connect(cluster.replica, name);
      mapped.pragma("mmap_size=268435456");
      expect(count(idle)).toBe(100);
      expect(count(mapped)).toBe(100);
      let expected = 100;
      for (const pageSize of [512, 65536, 1024, 8192]) {
        db.pragma("journal_mode=DELETE");
        db.pragma(`page_size=${pageSize}`);
        db.exec("VACUUM");
        if (end === "WAL") db.pragma("journal_mode=WAL");
        fill(db, 10);
        expected += 10;
        await cluster.waitForReplicas(name);
        expect(count(idle)).toBe(expected);
        expect(count(mapped)).toBe(expected);
        expect(idle.pragma("page_size", { simple: true })).toBe(pageSize);
        expect(idle.pragma("integrity_check", { simple: true })).toBe("ok");
        expect(mapped.pragma("integrity_check", { simple: true })).toBe("ok");
        fill(db, 10);
        expected += 10;
        await cluster.waitForReplicas(name);
        expect(count(idle)).toBe(expected);
      }
      await expectCount(name, expected);
    },
  );

  test.each(["WAL", "DELETE"])("INTO a file of the mount, from %s", async (mode) => {
    const name = `into-${mode.toLowerCase()}.db`;
    const db = create(name, [`journal_mode=${mode}`]);
    fill(db, 100);
    db.exec("DELETE FROM t WHERE id > 50");
    const copy = `copy-${name}`;
    db.exec(`VACUUM INTO '${cluster.primary.file(copy)}'`);
    await expectCount(copy, 50);
    expect(() => db.exec(`VACUUM INTO '${cluster.primary.file(copy)}'`)).toThrow(/exists/);
    fill(cluster.connect(cluster.primary, copy), 5);
    await expectCount(copy, 55);
    await expectCount(name, 50);
  });

  test("INTO a file outside of the mount, on a replica", async () => {
    const name = "into-outside.db";
    fill(create(name, ["journal_mode=WAL"]), 30);
    await cluster.waitForReplicas(name);
    const target = path.join(cluster.directory, "outside.db");
    cluster.connect(cluster.replica, name).exec(`VACUUM INTO '${target}'`);
    const copy = new Database(target);
    expect(count(copy)).toBe(30);
    copy.close();
  });

  test.each(["WAL", "DELETE"])("incremental_vacuum, %s", async (mode) => {
    const name = `incremental-${mode.toLowerCase()}.db`;
    const db = create(name, ["auto_vacuum=INCREMENTAL", `journal_mode=${mode}`]);
    fill(db, 300);
    db.exec("DELETE FROM t WHERE id > 20");
    for (let i = 0; i < 5; i++) {
      db.pragma("incremental_vacuum(7)");
      fill(db, 1);
    }
    db.pragma("incremental_vacuum");
    await expectCount(name, 25);
    expect((await cluster.replica.exportBytes(name)).length).toBeLessThan(40 * 4096);
  });
});

describe("settings of a connection", () => {
  const JOURNAL = ["WAL", "DELETE", "TRUNCATE", "PERSIST"] as const;

  test.each(JOURNAL)("journal_size_limit, %s", async (mode) => {
    const name = `limit-${mode.toLowerCase()}.db`;
    const db = create(name, [`journal_mode=${mode}`]);
    for (const limit of [100_000, 20_000, 0, -1, 10]) {
      db.pragma(`journal_size_limit=${limit}`);
      fill(db, 200);
      if (mode === "WAL") db.pragma("wal_checkpoint(RESTART)");
      fill(db, 1);
      fill(db, 1);
    }
    await expectCount(name, 5 * 202);
  });

  test.each(["OFF", "NORMAL", "FULL", "EXTRA"])("synchronous=%s", async (synchronous) => {
    for (const mode of JOURNAL) {
      const name = `sync-${synchronous.toLowerCase()}-${mode.toLowerCase()}.db`;
      const db = create(name, [`journal_mode=${mode}`, `synchronous=${synchronous}`]);
      for (let i = 0; i < 10; i++) fill(db, 10);
      db.exec("BEGIN; UPDATE t SET x=randomblob(500); ROLLBACK");
      await expectCount(name, 100);
    }
  });

  test.each(JOURNAL)(
    "mmap_size, secure_delete, tiny cache with spills, savepoints, %s",
    async (mode) => {
      const name = `mixed-${mode.toLowerCase()}.db`;
      const db = create(name, [`journal_mode=${mode}`, "mmap_size=268435456", "secure_delete=ON"]);
      db.pragma("cache_size=3");
      db.pragma("cache_spill=1");
      fill(db, 400);
      await cluster.waitForReplicas(name);
      const reader = cluster.connect(cluster.replica, name);
      reader.pragma("mmap_size=268435456");
      expect(count(reader)).toBe(400);
      db.exec(`
      BEGIN;
      UPDATE t SET x=randomblob(700) WHERE id % 3 = 0;
      SAVEPOINT a;
      DELETE FROM t WHERE id % 2 = 0;
      SAVEPOINT b;
      UPDATE t SET x=randomblob(1200);
      ROLLBACK TO b;
      INSERT INTO t(x) SELECT randomblob(300) FROM t;
      ROLLBACK TO a;
      DELETE FROM t WHERE id > 390;
      RELEASE a;
      COMMIT`);
      await cluster.waitForReplicas(name);
      expect(count(reader)).toBe(390);
      expect(reader.pragma("integrity_check", { simple: true })).toBe("ok");
      db.exec("DELETE FROM t WHERE id > 5; VACUUM");
      await cluster.waitForReplicas(name);
      expect(count(reader)).toBe(5);
      await expectCount(name, 5);
    },
  );

  test("user_version, application_id, UTF-16 and reserved bytes", async () => {
    for (const encoding of ["UTF-16le", "UTF-16be"]) {
      const name = `${encoding.toLowerCase()}.db`;
      const db = create(name, [`encoding='${encoding}'`, "journal_mode=WAL"]);
      db.exec("CREATE TABLE s(x TEXT); INSERT INTO s VALUES ('žluťoučký 🦊')");
      db.pragma("user_version=7");
      db.pragma("application_id=1234567");
      await cluster.waitForReplicas(name);
      const replica = cluster.connect(cluster.replica, name);
      expect(replica.prepare("SELECT x FROM s").pluck().get()).toBe("žluťoučký 🦊");
      expect(replica.pragma("encoding", { simple: true })).toBe(encoding);
      expect(replica.pragma("user_version", { simple: true })).toBe(7);
      expect(replica.pragma("application_id", { simple: true })).toBe(1234567);
      await expectCount(name, 0);
    }
  });

  test.runIf(hasCli).each(["WAL", "DELETE"])("reserved bytes in each page, %s", async (mode) => {
    const name = `reserved-${mode.toLowerCase()}.db`;
    const file = cluster.primary.file(name);
    shell("sqlite3", [
      "-batch",
      "-bail",
      "-cmd",
      ".filectrl reserve_bytes 32",
      file,
      `PRAGMA journal_mode=${mode}; CREATE TABLE t(id INTEGER PRIMARY KEY, x);` +
        "INSERT INTO t(x) SELECT randomblob(900) FROM generate_series(1, 50);",
    ]);
    expect(fs.readFileSync(file)[20]).toBe(32);
    fill(cluster.connect(cluster.primary, name), 10);
    await expectCount(name, 60);
  });
});

describe("copies in and out", () => {
  test.each(["WAL", "DELETE"])("the backup API into the mount and out of it, %s", async (mode) => {
    const name = `backup-${mode.toLowerCase()}.db`;
    const outside = path.join(cluster.directory, name);
    const source = new Database(outside);
    source.pragma(`journal_mode=${mode}`);
    source.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
    fill(source, 300);
    await source.backup(cluster.primary.file(name));
    await expectCount(name, 300);
    // Over what is there, step by step.
    source.exec("DELETE FROM t WHERE id <= 290");
    await source.backup(cluster.primary.file(name), { progress: () => 3 });
    await expectCount(name, 10);
    source.close();

    const db = cluster.connect(cluster.primary, name);
    fill(db, 100);
    await cluster.waitForReplicas(name);
    for (const node of cluster.nodes) {
      const target = path.join(cluster.directory, `out-${node.name}-${name}`);
      const from = cluster.connect(node, name);
      await from.backup(target, { progress: () => 5 });
      const copy = new Database(target);
      expect(count(copy)).toBe(110);
      expect(copy.pragma("integrity_check", { simple: true })).toBe("ok");
      copy.close();
    }
    // From one database of the mount to another.
    await db.backup(cluster.primary.file(`second-${name}`));
    await expectCount(`second-${name}`, 110);
  });

  test.runIf(hasCli)("sqlite3 .backup, .restore and .clone", async () => {
    const file = cluster.primary.file("cli.db");
    const outside = path.join(cluster.directory, "cli-outside.db");
    const sql = `PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, x);
      INSERT INTO t(x) SELECT randomblob(500) FROM generate_series(1, 200);`;
    sqliteCli(file, sql);
    sqliteCli(file, `.backup ${outside}`);
    sqliteCli(outside, "DELETE FROM t WHERE id > 120");
    const idle = cluster.connect(cluster.replica, "cli.db");
    await cluster.waitForReplicas("cli.db");
    expect(count(idle)).toBe(200);
    sqliteCli(file, `.restore ${outside}`);
    await cluster.waitForReplicas("cli.db");
    expect(count(idle)).toBe(120);
    sqliteCli(file, `.clone ${cluster.primary.file("cli-clone.db")}`);
    await expectCount("cli-clone.db", 120);
    await expectCount("cli.db", 120);
  });

  test("a file in rollback mode is copied over a database in WAL mode, and written to", async () => {
    const name = "copied-over.db";
    const db = create(name, ["journal_mode=WAL"]);
    fill(db, 50);
    await cluster.waitForReplicas(name);
    const idle = cluster.connect(cluster.replica, name);
    expect(count(idle)).toBe(50);
    db.close();
    const outside = path.join(cluster.directory, name);
    const source = new Database(outside);
    source.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
    fill(source, 20);
    source.close();
    fs.copyFileSync(outside, cluster.primary.file(name));
    const next = cluster.connect(cluster.primary, name);
    expect(next.pragma("journal_mode", { simple: true })).toBe("delete");
    for (let i = 0; i < 5; i++) fill(next, 2);
    await cluster.waitForReplicas(name);
    expect(count(idle)).toBe(30);
    await expectCount(name, 30);
  });

  test("a backup with another page size over a database with readers", async () => {
    const name = "backup-pages.db";
    const db = create(name, ["page_size=4096", "journal_mode=DELETE"]);
    fill(db, 50);
    await cluster.waitForReplicas(name);
    const idle = cluster.connect(cluster.replica, name);
    expect(count(idle)).toBe(50);
    const source = new Database(path.join(cluster.directory, name));
    source.pragma("page_size=1024");
    source.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
    fill(source, 77);
    await source.backup(cluster.primary.file(name));
    source.close();
    expect(count(db)).toBe(77);
    await cluster.waitForReplicas(name);
    expect(count(idle)).toBe(77);
    await expectCount(name, 77);
  });
});

describe("a database that goes and comes back", () => {
  test.each(["WAL", "DELETE"])("dropped while the replica has it open, %s", async (mode) => {
    const name = `dropped-${mode.toLowerCase()}.db`;
    const db = create(name, [`journal_mode=${mode}`]);
    fill(db, 30);
    await cluster.waitForReplicas(name);
    const old = cluster.connect(cluster.replica, name);
    expect(count(old)).toBe(30);
    db.close();
    for (const pageSize of [1024, 8192, 4096]) {
      fs.rmSync(cluster.primary.file(name));
      await cluster.waitForReplicas(name);
      expect(fs.existsSync(cluster.replica.file(name))).toBe(false);
      const next = create(name, [`page_size=${pageSize}`, `journal_mode=${mode}`]);
      fill(next, 5);
      next.close();
      await expectCount(name, 5);
    }
    // As everywhere on Unix: who has a removed file open keeps it.
    expect(count(old)).toBe(30);
  });

  test("an empty file is a database that was never written", async () => {
    const name = "zero.db";
    fs.writeFileSync(cluster.primary.file(name), "");
    expect(fs.statSync(cluster.primary.file(name)).size).toBe(0);
    const db = cluster.connect(cluster.primary, name);
    expect(db.prepare("SELECT count(*) FROM sqlite_master").pluck().get()).toBe(0);
    db.close();
    fs.rmSync(cluster.primary.file(name));
    expect(fs.existsSync(cluster.primary.file(name))).toBe(false);
    fs.writeFileSync(cluster.primary.file(name), "");
    fill(create(name, ["journal_mode=WAL"]), 3);
    await expectCount(name, 3);
  });
});

test("two processes with ten connections each", async () => {
  const name = "hammer.db";
  const db = create(name, ["journal_mode=WAL"]);
  db.exec("CREATE TABLE sums(worker, n INTEGER)");
  const hammer = (worker: number): string => `
import threading
def work(k):
  c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
  for i in range(20):
    c.execute("BEGIN IMMEDIATE")
    c.execute("INSERT INTO t(x) VALUES (randomblob(500))")
    c.execute("INSERT INTO sums VALUES (?, ?)", (${worker} * 100 + k, i))
    c.execute("ROLLBACK" if i % 5 == 4 else "COMMIT")
    n = c.execute("SELECT (SELECT count(*) FROM t) - (SELECT count(*) FROM sums)").fetchone()[0]
    assert n == 0, n
  c.close()
failed = []
threading.excepthook = lambda args: failed.append(args.exc_value)
threads = [threading.Thread(target=work, args=(k,)) for k in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert failed == [], failed`;
  const stop = new AbortController();
  const reader = startReader(cluster.replica.file(name), stop);
  const results = await Promise.all(
    [1, 2].map((worker) => startPython(cluster.primary.file(name), hammer(worker))),
  );
  for (const { code, stderr } of results) expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  await cluster.waitForReplicas(name);
  stop.abort();
  await reader;
  await expectCount(name, 320);
});

test("all of it is sound", async () => {
  const positions = await cluster.verify();
  expect(Object.keys(positions).length).toBeGreaterThan(20);
});
