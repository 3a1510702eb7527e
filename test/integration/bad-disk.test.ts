import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Database from "better-sqlite3";
import { afterEach, expect, test } from "vitest";
import {
  cleanUpAfterEach,
  Cluster,
  listDatabases,
  waitFor,
  waitForPosition,
} from "../support/cluster.ts";
import { shell, tryShell } from "../support/shell.ts";
import type { TestNode } from "../support/test-node.ts";
import { ThinDisk } from "../support/thin-disk.ts";
import { PYTHON } from "../support/python-path.ts";

cleanUpAfterEach();

const disks: { readonly node: TestNode; readonly disk: ThinDisk }[] = [];
// Registered last, this runs first: nothing can be removed below what is mounted.
afterEach(async () => {
  for (const { node, disk } of disks.splice(0)) {
    await node.dispose();
    disk.dispose();
  }
});

const LITEFS = path.resolve(import.meta.dirname, "../../bin/litefs");
const WAIT_MS = 60_000;

function createTable(db: Database.Database, mode: string): void {
  db.pragma(`journal_mode=${mode}`);
  db.pragma("synchronous=FULL");
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
}

function count(db: Database.Database): number {
  return Number(db.prepare("SELECT count(*) FROM t").pluck().get());
}

/** The result code of SQLite when something is refused; undefined when it is not. */
function refusal(action: () => unknown): string | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    expect(error).toBeInstanceOf(Database.SqliteError);
    return String(Reflect.get(Object(error), "code"));
  }
}

async function metric(node: TestNode, name: string, db: string): Promise<number> {
  const text = await (await node.get("/metrics")).text();
  return Number(new RegExp(`^${name}\\{db="${db}"\\} (.*)$`, "m").exec(text)?.[1] ?? NaN);
}

async function waitForStatus(node: TestNode, name: string, status: string): Promise<string> {
  let reason = "";
  await waitFor(`${name} on ${node.name} to be ${status}`, WAIT_MS, async () => {
    const found = (await listDatabases(node)).find((database) => database.name === name);
    reason = found?.reason ?? "";
    return found?.status === status ? undefined : `${found?.status}: ${reason}`;
  });
  return reason;
}

/** Changes one bit of a file behind the node's back. */
function flip(file: string, offset: number): void {
  const fd = fs.openSync(file, "r+");
  const byte = Buffer.alloc(1);
  fs.readSync(fd, byte, 0, 1, offset);
  byte[0] = (byte[0] ?? 0) ^ 1;
  fs.writeSync(fd, byte, 0, 1, offset);
  fs.closeSync(fd);
}

/** A node's data directory on a disk of its own. */
function onThinDisk(node: TestNode, journal = false): ThinDisk {
  const disk = ThinDisk.create(node.dataDirectory, { megabytes: 24, journal });
  disks.push({ node, disk });
  return disk;
}

test.each(["WAL", "DELETE"])(
  "an fsync of the primary fails, %s: nothing acknowledged is lost, and no restart is needed",
  async (mode) => {
    const cluster = await Cluster.create({ replicas: 1 });
    const { primary, replica } = cluster;
    const disk = onThinDisk(primary);
    await primary.start();
    await replica.start();
    createTable(cluster.connect(primary, "app.db"), mode);
    const other = cluster.connect(primary, "other.db");
    createTable(other, "WAL");
    const insert = (db: Database.Database): unknown =>
      db.prepare("INSERT INTO t(x) VALUES (randomblob(20000))").run();
    let db = cluster.connect(primary, "app.db", { timeout: 100 });
    db.pragma("synchronous=FULL");
    let rows = 0;
    for (; rows < 20; rows++) insert(db);
    disk.starve();
    let refused: string | undefined;
    for (; refused === undefined && rows < 5000; rows += Number(refused === undefined)) {
      refused = refusal(() => insert(db));
    }
    expect(refused).toMatch(/^SQLITE_(?:FULL|IOERR)/);
    // The other database, and everything about the node, is still there.
    expect(refusal(() => expect(count(other)).toBe(0))).toBeUndefined();
    expect(await metric(primary, "litefs_db_quarantined", "other.db")).toBe(0);
    expect(cluster.connect(replica, "app.db").pragma("quick_check", { simple: true })).toBe("ok");
    await sleep(100);
    disk.feed();
    await waitForStatus(primary, "app.db", "ok");
    db.close();
    db = cluster.connect(primary, "app.db", { timeout: 5000 });
    const now = count(db);
    expect(now).toBeGreaterThanOrEqual(rows);
    expect(now).toBeLessThanOrEqual(rows + 1);
    for (let i = 0; i < 20; i++) insert(db);
    other.exec("INSERT INTO t VALUES (1, 2)");
    await cluster.waitForReplicas("app.db");
    await cluster.verify();
    await primary.kill();
    await primary.start();
    expect(count(cluster.connect(primary, "app.db"))).toBe(now + 20);
    await cluster.verify();
  },
);

test("the disk of a replica is full: it serves what it has, and catches up by itself", async () => {
  const cluster = await Cluster.create({ replicas: 1 });
  const { primary, replica } = cluster;
  const disk = onThinDisk(replica);
  await primary.start();
  await replica.start();
  const db = cluster.connect(primary, "app.db");
  createTable(db, "WAL");
  const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(30000))");
  for (let i = 0; i < 10; i++) insert.run();
  await cluster.waitForReplicas("app.db");
  disk.starve();
  for (let i = 0; i < 150; i++) insert.run();
  await replica.waitForLog(/APPLY_FAILED|SNAPSHOT_SPOOL_FAILED|quarantined/, WAIT_MS);
  expect((await replica.get("/metrics")).status).toBe(200);
  expect((await primary.get("/metrics")).status).toBe(200);
  disk.feed();
  const position = primary.position("app.db") ?? "";
  await waitForPosition(replica, "app.db", position, WAIT_MS);
  expect(count(cluster.connect(replica, "app.db"))).toBe(160);
  await cluster.verify();
});

test("a file system that turns read-only: commits are refused, what was committed is there after", async () => {
  const cluster = await Cluster.create({ replicas: 1 });
  const { primary, replica } = cluster;
  const disk = onThinDisk(primary, true);
  await primary.start();
  await replica.start();
  const db = cluster.connect(primary, "app.db", { timeout: 100 });
  createTable(db, "WAL");
  db.exec("INSERT INTO t(x) VALUES (1)");
  await cluster.waitForReplicas("app.db");
  // From outside, as the kernel does it after an error of the journal.
  shell(PYTHON, [
    "-c",
    "import fcntl, os, struct, sys\nfd = os.open(sys.argv[1], os.O_RDONLY)\nfcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))",
    disk.mountPoint,
  ]);
  expect(refusal(() => db.exec("INSERT INTO t(x) VALUES (2)"))).toMatch(
    /^SQLITE_(?:IOERR|READONLY)/,
  );
  expect((await primary.get("/metrics")).status).toBe(200);
  expect(count(cluster.connect(replica, "app.db"))).toBe(1);
  cluster.closeConnections();
  await primary.stop();
  shell("umount", [disk.mountPoint]);
  shell("mount", ["-o", "loop", `${disk.mountPoint}.store/image`, disk.mountPoint]);
  await primary.start();
  expect(count(cluster.connect(primary, "app.db"))).toBe(1);
  cluster.connect(primary, "app.db").exec("INSERT INTO t(x) VALUES (3)");
  await cluster.waitForReplicas("app.db");
  await cluster.verify();
});

test("a bit is flipped on a running replica: it heals itself, and keeps what was damaged", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  for (const name of ["app.db", "other.db"]) {
    const db = cluster.connect(primary, name);
    createTable(db, "DELETE");
    db.exec("INSERT INTO t(x) VALUES (zeroblob(50000))");
    await cluster.waitForReplicas(name);
  }
  const open = cluster.connect(replica, "app.db");
  const other = cluster.connect(replica, "other.db");
  expect(count(open)).toBe(1);
  flip(replica.dataFile("app.db", "database"), 9 * 4096 + 50);
  const check = tryShell(LITEFS, ["check", "-url", replica.url, "-name", "app.db"]);
  expect(check.stdout).toContain("app.db: the pages have checksum");
  expect(check.code).toBe(1);
  // Whoever has it open gets an error, never what is wrong. (SQLite calls EIO while reading so.)
  expect(refusal(() => open.prepare("SELECT sum(length(x)) FROM t").get())).toMatch(
    /^SQLITE_(?:IOERR|CORRUPT)/,
  );
  expect(count(other)).toBe(1);
  await waitForStatus(replica, "app.db", "ok");
  expect(await metric(replica, "litefs_db_quarantines_total", "app.db")).toBe(1);
  expect(await metric(replica, "litefs_db_heals_total", "app.db")).toBe(1);
  expect(await metric(replica, "litefs_db_quarantines_total", "other.db")).toBe(0);
  expect(replica.log).toMatch(/database serves again.*app\.db/);
  const [kept] = fs.readdirSync(replica.dataFile("app.db", "quarantine"));
  expect(fs.existsSync(replica.dataFile("app.db", `quarantine/${kept}/database`))).toBe(true);
  expect(count(cluster.connect(replica, "app.db"))).toBe(1);
  await cluster.verify();
});

test("a bit is flipped on the primary: found after an unclean start, mended from a replica", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  for (const name of ["app.db", "other.db"]) {
    const db = cluster.connect(primary, name);
    createTable(db, "WAL");
    db.exec("INSERT INTO t(x) VALUES (zeroblob(50000)), (1), (2)");
    db.pragma("wal_checkpoint(TRUNCATE)");
    db.exec("INSERT INTO t(x) VALUES (3)");
    await cluster.waitForReplicas(name);
  }
  cluster.closeConnections();
  await primary.restart();
  expect(primary.log).not.toContain("verified all databases");
  await primary.kill();
  flip(primary.dataFile("app.db", "database"), 9 * 4096 + 50);
  await primary.start();
  await primary.waitForLog("verified all databases", WAIT_MS);
  const reason = await waitForStatus(primary, "app.db", "quarantined");
  expect(reason).toContain("litefs repair -name app.db");
  expect(await metric(primary, "litefs_db_quarantined", "app.db")).toBe(1);
  expect(() => new Database(primary.file("app.db"))).toThrow();
  cluster.connect(primary, "other.db").exec("INSERT INTO t(x) VALUES (4)");
  await cluster.waitForReplicas("other.db");
  expect(count(cluster.connect(replica, "app.db"))).toBe(4);
  cluster.closeConnections();
  // It stays so, also without reading everything again.
  await primary.restart();
  expect(await waitForStatus(primary, "app.db", "quarantined")).toBe(reason);

  const position = replica.position("app.db") ?? "";
  const running = tryShell(LITEFS, ["repair", "-config", primary.configPath, "-name", "app.db"]);
  expect(running.stderr).toContain("is in use by another litefs");
  await primary.stop();
  const repair = ["repair", "-config", primary.configPath, "-name", "app.db"];
  const dry = tryShell(LITEFS, [...repair, "-from", replica.url, "-dry-run"]);
  expect(dry.stdout).toContain("dry run: nothing was changed");
  const { code, stdout } = tryShell(LITEFS, [...repair, "-from", replica.url]);
  expect(stdout).toContain(`taken from ${replica.url} at ${position}`);
  expect(code).toBe(0);
  const sent = primary.log.match(/snapshot sent/g)?.length ?? 0;
  await primary.start();
  cluster.connect(primary, "app.db").exec("INSERT INTO t(x) VALUES (5)");
  await cluster.waitForReplicas("app.db");
  expect(count(cluster.connect(replica, "app.db"))).toBe(5);
  // The replica went on from its position.
  expect(primary.log.match(/snapshot sent/g)?.length ?? 0).toBe(sent);
  await cluster.verify();
});
