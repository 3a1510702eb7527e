import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster, listDatabases } from "../support/cluster.ts";
import { shell, tryShell } from "../support/shell.ts";
import type { ShellResult } from "../support/shell.ts";
import type { TestNode } from "../support/test-node.ts";

cleanUpAfterEach();

const LITEFS = path.resolve(import.meta.dirname, "../../bin/litefs");
const MEGABYTE = 1024 * 1024;

/** The one line that tells why a node did not start. */
async function startFailure(node: TestNode): Promise<{ code: number | null; line: string }> {
  node.launch();
  const { code } = await node.ended();
  const lines = node.log.split("\n").filter((line) => /ERROR/.test(line));
  expect(lines, node.log).toHaveLength(1);
  expect(node.isMounted()).toBe(false);
  return { code, line: lines[0] ?? "" };
}

/** Starts a node that has another directory in its configuration. */
function mountWith(node: TestNode, directory: string, other: string): ShellResult {
  node.writeConfig();
  const config = fs.readFileSync(node.configPath, "utf8");
  const changed = config.replace(JSON.stringify(directory), JSON.stringify(other));
  fs.writeFileSync(node.configPath, changed);
  return tryShell(LITEFS, ["mount", "-config", node.configPath]);
}

async function single(): Promise<TestNode> {
  return (await Cluster.create({ replicas: 0 })).primary;
}

test("port in use", async () => {
  const node = await single();
  const server = net.createServer();
  await new Promise<void>((resolve) => {
    server.listen(node.options.port, "127.0.0.1", resolve);
  });
  const { code, line } = await startFailure(node);
  server.close();
  expect(code).toBe(1);
  expect(line).toMatch(/another process uses this port; stop it or change http.addr/);
});

test.each([
  ["a file", (directory: string) => path.join(directory, "litefs.yml"), /no directory/],
  ["below a file", (directory: string) => path.join(directory, "litefs.yml/mnt"), /no directory/],
  ["where no directory can be made", () => "/proc/litefs/mnt", /ENOENT; set fuse\.dir/],
] as const)("fuse.dir is %s", async (_what, directoryIn, expected) => {
  const node = await single();
  const directory = directoryIn(path.dirname(node.configPath));
  const { code, stderr } = mountWith(node, node.mountPoint, directory);
  expect(code).toBe(1);
  const lines = stderr.split("\n").filter((line) => line.includes("ERROR"));
  expect(lines).toEqual([expect.stringMatching(/cannot mount on fuse\.dir/)]);
  expect(lines[0]).toMatch(expected);
});

test("data.dir is where no directory can be made", async () => {
  const node = await single();
  const { code, stderr } = mountWith(node, node.dataDirectory, "/proc/litefs/data");
  expect(code).toBe(1);
  expect(stderr).toMatch(/cannot write to data directory \/proc\/litefs\/data: ENOENT; set data/);
});

test("the mount directory is not empty", async () => {
  const node = await single();
  fs.mkdirSync(node.mountPoint);
  fs.writeFileSync(node.file("precious"), "data");
  const { code, line } = await startFailure(node);
  expect(code).toBe(1);
  expect(line).toMatch(/not empty/);
  expect(fs.readFileSync(node.file("precious"), "utf8")).toBe("data");
});

test("something else is mounted there", async () => {
  const node = await single();
  fs.mkdirSync(node.mountPoint);
  shell("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", node.mountPoint]);
  node.launch();
  const { code } = await node.ended();
  const isMounted = node.isMounted();
  node.unmount();
  expect(code).toBe(1);
  expect(isMounted).toBe(true);
  expect(node.log).toMatch(/ERROR.*mount/);
});

test("a second litefs on the same data directory", async () => {
  const cluster = await Cluster.create({ replicas: 1 });
  await cluster.primary.start();
  cluster.replica.dataDirectory = cluster.primary.dataDirectory;
  const { code, line } = await startFailure(cluster.replica);
  expect(code).toBe(1);
  expect(line).toMatch(/data directory .* is in use by another litefs; stop it, or set data.dir/);
  expect(cluster.primary.isMounted()).toBe(true);
});

test("the data directory cannot be made", async () => {
  const node = await single();
  fs.writeFileSync(path.join(node.options.directory, "file"), "");
  node.dataDirectory = path.join(node.options.directory, "file", "data");
  const { code, line } = await startFailure(node);
  expect(code).toBe(1);
  expect(line).toMatch(/cannot write to data directory .*ENOTDIR; set data.dir to a directory/);
});

test.each([
  ["unknown: 1", /litefs.yml:\d+:.*unknown/],
  ["log: {debug: 7}", /litefs.yml:\d+:.*debug/],
])("the configuration has a mistake: %s", async (config, message) => {
  const node = (await Cluster.create({ replicas: 0, config })).primary;
  const { code, line } = await startFailure(node);
  expect(code).toBe(2);
  expect(line).toMatch(message);
});

/** Three databases, closed and stopped, so that their files can be damaged. */
async function stoppedWithDatabases(): Promise<Cluster> {
  const cluster = await Cluster.create({ replicas: 1 });
  await cluster.primary.start();
  await cluster.replica.start();
  for (const name of ["a.db", "bad.db", "c.db"]) {
    const db = cluster.connect(cluster.primary, name);
    db.exec("PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (randomblob(9000))");
    for (let i = 0; i < 20; i++) db.exec("INSERT INTO t VALUES (randomblob(900))");
    // The newest transaction is applied again at a start, and must not mend the damage.
    db.exec("UPDATE t SET x = zeroblob(900) WHERE rowid = 12");
    await cluster.waitForReplicas(name);
  }
  cluster.closeConnections();
  await cluster.replica.stop();
  await cluster.primary.restart();
  await cluster.primary.stop();
  return cluster;
}

function overwrite(file: string, offset: number, bytes: Buffer): void {
  const fd = fs.openSync(file, "r+");
  fs.writeSync(fd, bytes, 0, bytes.length, offset);
  fs.closeSync(fd);
}

function segment(node: TestNode, database: string): string {
  const directory = node.dataFile(database, "log");
  const [name = ""] = fs.readdirSync(directory).filter((file) => file.endsWith(".seg"));
  return path.join(directory, name);
}

test.each([
  [
    "header",
    (node: TestNode) => overwrite(node.dataFile("bad.db", "database"), 0, Buffer.alloc(100, 7)),
  ],
  ["log", (node: TestNode) => overwrite(segment(node, "bad.db"), 600, Buffer.alloc(50, 7))],
])(
  "a corrupt %s: that database is set aside, the others serve, nothing is deleted",
  async (_, damage) => {
    const cluster = await stoppedWithDatabases();
    const { primary } = cluster;
    damage(primary);
    const sizeBefore = fs.statSync(primary.dataFile("bad.db", "database")).size;
    await primary.start();
    const bad = (await listDatabases(primary)).find(({ name }) => name === "bad.db");
    expect(bad?.status).toBe("quarantined");
    expect(bad?.reason).toMatch(/damaged/);
    expect(bad?.reason).not.toContain("\n");
    expect(primary.log).toMatch(/database quarantined.*bad\.db/);
    expect(() => new Database(primary.file("bad.db"))).toThrow();
    expect(fs.statSync(primary.dataFile("bad.db", "database")).size).toBe(sizeBefore);
    await cluster.replica.start();
    for (const name of ["a.db", "c.db"]) {
      cluster.connect(primary, name).exec("INSERT INTO t VALUES (1)");
      await cluster.waitForReplicas(name);
    }
    await cluster.verify();
    // The replica still has the good copy.
    const kept = cluster.connect(cluster.replica, "bad.db");
    expect(kept.prepare("SELECT count(*) FROM t").pluck().get()).toBe(21);
  },
);

test.each(["WAL", "DELETE"])(
  "the disk is full, %s: writes fail, nothing is lost, and it goes on after",
  async (mode) => {
    const cluster = await Cluster.create({ replicas: 1 });
    const { primary } = cluster;
    fs.mkdirSync(primary.dataDirectory);
    shell("mount", ["-t", "tmpfs", "-o", "size=24m", "tmpfs", primary.dataDirectory]);
    try {
      await primary.start();
      await cluster.replica.start();
      const db = cluster.connect(primary, "app.db", { timeout: 100 });
      db.pragma(`journal_mode=${mode}`);
      db.pragma("wal_autocheckpoint=100");
      db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
      fs.writeFileSync(path.join(primary.dataDirectory, "ballast"), Buffer.alloc(8 * MEGABYTE));
      const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(20000))");
      let rows = 0;
      let failure: unknown;
      while (failure === undefined && rows < 5000) {
        try {
          insert.run();
          rows++;
        } catch (error) {
          failure = error;
        }
      }
      expect(failure).toBeInstanceOf(Database.SqliteError);
      expect(String(Reflect.get(Object(failure), "code"))).toMatch(/^SQLITE_(?:FULL|IOERR)/);
      // What was refused has been rolled back, so a smaller one may still find room.
      for (let i = 0; i < 5; i++) {
        try {
          insert.run();
          rows++;
        } catch (error) {
          expect(error).toBeInstanceOf(Database.SqliteError);
        }
      }
      expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(rows);
      fs.rmSync(path.join(primary.dataDirectory, "ballast"));
      for (let i = 0; i < 20; i++) insert.run();
      expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(rows + 20);
      await cluster.waitForReplicas("app.db");
      await cluster.verify();
      await primary.kill();
      await primary.start();
      const again = cluster.connect(primary, "app.db");
      expect(again.prepare("SELECT count(*) FROM t").pluck().get()).toBe(rows + 20);
      await cluster.verify();
    } finally {
      await primary.dispose();
      shell("umount", ["-l", primary.dataDirectory]);
    }
  },
);
