import * as fs from "node:fs";
import * as path from "node:path";
import Database from "better-sqlite3";
import { expect, onTestFinished, test } from "vitest";
import { cleanUpAfterEach, Cluster, waitFor } from "../support/cluster.ts";
import { dataDirectoryCases } from "../support/litefs-data-dirs.ts";
import { shell, tryShell } from "../support/shell.ts";
import { SqliteProcess } from "../support/sqlite-process.ts";

cleanUpAfterEach();

function createTable(db: Database.Database, mode = "WAL", rows = 10): void {
  db.pragma(`journal_mode=${mode}`);
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
  const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(2000))");
  db.transaction(() => {
    for (let i = 0; i < rows; i++) insert.run();
  })();
}

test("what ls, stat, cat and df show", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  const db = cluster.connect(primary, "app.db");
  createTable(db);
  createTable(cluster.connect(primary, "roll.db"), "PERSIST");
  await cluster.waitForReplicas("app.db");
  await cluster.waitForReplicas("roll.db");

  const names = shell("ls", ["-A", primary.mountPoint]).split("\n");
  expect(names.sort()).toEqual([
    ".lag",
    ".role",
    "app.db",
    "app.db-shm",
    "app.db-wal",
    "roll.db",
    "roll.db-journal",
  ]);
  expect(shell("ls", ["-A", replica.mountPoint]).split("\n")).toContain(".primary");
  expect(shell("ls", ["-la", primary.mountPoint])).toMatch(/^total \d+\n/);

  expect(fs.existsSync(primary.file(".primary"))).toBe(false);
  expect(shell("cat", [replica.file(".primary")])).toBe("n0");
  expect(fs.statSync(replica.file(".primary")).size).toBe(3);
  for (const node of cluster.nodes) {
    expect(fs.statSync(node.file(".lag")).size).toBe(11);
    expect(fs.readFileSync(node.file(".lag"), "latin1")).toMatch(/^[+-]\d{9}\n$/);
    expect(fs.statSync(node.file("app.db-pos")).size).toBe(34);
    expect(fs.readFileSync(node.file("app.db-pos"), "latin1")).toMatch(
      /^[0-9a-f]{16}\/[0-9a-f]{16}\n$/,
    );
    expect(fs.readFileSync(node.file("app.db-lock"))).toHaveLength(0);
    expect(shell("df", ["--output=size", node.mountPoint])).toMatch(/^\s*1K-blocks\n\s*[1-9]\d+$/);
    expect(fs.statSync(node.mountPoint).isDirectory()).toBe(true);
  }
  // On the primary the lag is nothing.
  expect(fs.readFileSync(primary.file(".lag"), "latin1")).toBe("+000000000\n");

  db.pragma("wal_checkpoint(TRUNCATE)");
  const bytes = fs.readFileSync(primary.file("app.db"));
  expect(bytes.length).toBe(fs.statSync(primary.file("app.db")).size);
  expect(bytes.subarray(0, 15).toString()).toBe("SQLite format 3");
  expect(bytes.equals(await primary.exportBytes("app.db"))).toBe(true);
  shell("mkdir", ["-p", primary.mountPoint]);
  shell("test", ["-w", primary.file("app.db")]);
  await cluster.verify();
});

test("a file is copied over a database whose application died with a WAL", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  const file = primary.file("app.db");
  const dying = new SqliteProcess(file);
  onTestFinished(() => dying.dispose());
  await dying.run("PRAGMA journal_mode=WAL");
  await dying.run("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
  await dying.run("INSERT INTO t(x) VALUES (zeroblob(9000))");
  const outside = path.join(cluster.directory, "outside.db");
  const source = new Database(outside);
  createTable(source, "DELETE", 20);
  source.close();

  // Who has it open would mix the old pages with the new ones.
  expect(tryShell("cp", [outside, file]).stderr).toMatch(/busy/i);
  expect(await dying.run("SELECT count(*) FROM t")).toEqual([[1]]);
  await dying.dispose();
  expect(fs.statSync(`${file}-wal`).size).toBeGreaterThan(0);
  await cluster.waitForReplicas("app.db");
  expect(tryShell("cp", [outside, replica.file("app.db")]).stderr).toMatch(/read-only/i);

  shell("cp", [outside, file]);
  expect(fs.existsSync(`${file}-wal`)).toBe(false);
  await cluster.waitForReplicas("app.db");
  for (const node of cluster.nodes) {
    const db = cluster.connect(node, "app.db");
    expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(20);
    db.close();
  }
});

test("cp out and in: what was copied in is replicated", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const outside = path.join(cluster.directory, "outside.db");
  createTable(new Database(outside), "DELETE", 100);
  shell("cp", [outside, cluster.primary.file("new.db")]);
  await cluster.waitForReplicas("new.db");
  for (const node of cluster.nodes) {
    const db = cluster.connect(node, "new.db");
    expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(100);
    db.close();
  }
  const copy = path.join(cluster.directory, "copy.db");
  shell("cp", [cluster.replica.file("new.db"), copy]);
  expect(fs.readFileSync(copy).equals(fs.readFileSync(outside))).toBe(true);

  // Over a database that is there, smaller and with another page size.
  const other = path.join(cluster.directory, "other.db");
  const db = new Database(other);
  db.pragma("page_size=1024");
  createTable(db, "DELETE", 5);
  db.close();
  shell("cp", [other, cluster.primary.file("new.db")]);
  await waitFor("the copy", 10_000, async () => {
    await cluster.waitForReplicas("new.db");
    const reader = new Database(cluster.replica.file("new.db"));
    const count = Number(reader.prepare("SELECT count(*) FROM t").pluck().get());
    reader.close();
    return count === 5 ? undefined : `${count} rows`;
  });
  shell("mv", [outside, cluster.primary.file("moved.db")]);
  await cluster.waitForReplicas("moved.db");
  await cluster.verify();
});

test("rm is replicated, with all files of the database", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  createTable(cluster.connect(cluster.primary, "app.db"));
  await cluster.waitForReplicas("app.db");
  const reader = cluster.connect(cluster.replica, "app.db");
  expect(reader.prepare("SELECT count(*) FROM t").pluck().get()).toBe(10);
  cluster.closeConnections();
  shell("rm", [cluster.primary.file("app.db")]);
  for (const node of cluster.nodes) {
    await waitFor(`app.db to go on ${node.name}`, 5000, () => {
      const left = fs.readdirSync(node.mountPoint).filter((name) => name.startsWith("app.db"));
      return left.length === 0 ? undefined : left.join(" ");
    });
  }
  await cluster.verify();
});

test("what is not supported is refused with an errno that says why, and never hangs", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary } = cluster;
  createTable(cluster.connect(primary, "app.db"));
  cluster.closeConnections();
  const refused = (command: string, ...args: string[]): string => {
    const { code, stderr } = tryShell(command, args);
    expect(code, `${command} ${args.join(" ")}`).not.toBe(0);
    return stderr;
  };
  expect(refused("ln", primary.file("app.db"), primary.file("b.db"))).toMatch(/not permitted/);
  expect(refused("mkfifo", primary.file("fifo"))).toMatch(/not permitted/);
  expect(() => fs.renameSync(primary.file("app.db-pos"), primary.file("x"))).toThrow(/EACCES/);
  expect(() => fs.renameSync(primary.file("app.db"), primary.file("app.db-pos"))).toThrow(/EACCES/);
  expect(() => fs.mkdirSync(primary.file(".primary"))).toThrow(/EACCES/);
  const inPlace = fs.openSync(primary.file("app.db"), "r+");
  expect(() => fs.writeSync(inPlace, "no database", 0)).toThrow();
  fs.closeSync(inPlace);
  expect(refused("sh", "-c", `echo hello > ${primary.file(".lag")}`)).toMatch(/Permission denied/);
  expect(refused("cat", primary.file("nothing"))).toMatch(/No such file/);
  expect(refused("cat", primary.file("nothing.db-pos"))).toMatch(/No such file/);
  expect(refused("rm", primary.file("app.db-pos"))).toMatch(/not permitted/);
  expect(refused("rmdir", primary.mountPoint)).toMatch(/busy/i);
  // None of it did any harm.
  const db = cluster.connect(primary, "app.db");
  db.exec("INSERT INTO t(x) VALUES (1)");
  await cluster.waitForReplicas("app.db");
  await cluster.verify();
});

// That every other one opens where it should is a test of `litefs check`, which takes no mount.
const MOUNTED = /^(?:.*\.tar|newest-ltx-missing|wal-cut-in-last-tx|database-last-page-missing)$/;

test.each(dataDirectoryCases().filter(({ name }) => MOUNTED.test(name)))(
  "the data directory of LiteFS, $name, opens where LiteFS stood and replicates",
  async ({ unpack, databases }) => {
    const cluster = await Cluster.create({ replicas: 1 });
    for (const node of cluster.nodes) node.useDataConfig("retention: 1000h");
    unpack(cluster.primary.dataDirectory);
    await cluster.primary.start();
    await cluster.replica.start();
    for (const [name, { pos }] of Object.entries(databases)) {
      if (pos.startsWith("0000000000000000/")) continue;
      expect(cluster.primary.position(name), name).toBe(pos);
      if (pos.endsWith("/8000000000000000")) continue;
      const db = cluster.connect(cluster.primary, name);
      db.exec("CREATE TABLE ours(x); INSERT INTO ours VALUES (1)");
      await cluster.waitForReplicas(name);
    }
    await cluster.verify();
  },
);
