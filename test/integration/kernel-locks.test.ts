import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { LockThread } from "../../src/filesystem/lock-thread-client.ts";
import { SHARED_BYTES } from "../../src/filesystem/messages.ts";
import { kernelDevice, LockTrace } from "../../src/fuse/lock-trace.ts";
import { SystemCalls } from "../../src/fuse/system-calls.ts";
import { cleanUpAfterEach, Cluster } from "../support/cluster.ts";
import { shell, startPython, tryShell } from "../support/shell.ts";
import type { TestNode } from "../support/test-node.ts";
import { PYTHON } from "../support/python-path.ts";

cleanUpAfterEach();

/** Instances of tracefs that belong to some litefs. */
function instances(): string[] {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-test-tracefs-"));
  shell("mount", ["-t", "tracefs", "none", root]);
  try {
    return fs
      .readdirSync(path.join(root, "instances"))
      .filter((name) => name.startsWith("litefs-"));
  } finally {
    shell("umount", [root]);
    fs.rmdirSync(root);
  }
}

async function requestCount(node: TestNode): Promise<number> {
  const { fuse } = (await (await node.get("/debug/vars")).json()) as {
    fuse: Record<string, number>;
  };
  // The question wakes the mount thread itself.
  const counts = Object.entries(fuse).filter(([name]) => name !== "NOTIFY_REPLY");
  return counts.reduce((sum, [, count]) => sum + count, 0);
}

test("reads cost no request, and no write asks for a lock", async () => {
  const cluster = await Cluster.start({ replicas: 1, locks: "kernel" });
  const db = cluster.connect(cluster.primary, "app.db");
  db.pragma("journal_mode=WAL");
  db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  await cluster.waitForReplicas("app.db");
  for (const node of cluster.nodes) {
    const reader = cluster.connect(node, "app.db");
    const select = reader.prepare("SELECT x FROM t").pluck();
    select.get();
    const before = await requestCount(node);
    for (let i = 0; i < 100; i++) expect(select.get()).toBe(1);
    expect(await requestCount(node)).toBe(before);
  }
  const vars = (await (await cluster.primary.get("/debug/vars")).json()) as {
    fuse: Record<string, number>;
  };
  expect(vars.fuse["SETLK"] ?? 0).toBe(0);
  await cluster.verify();
});

test("a replica's application with patience writes, one without is told SQLITE_BUSY", async () => {
  const cluster = await Cluster.start({ replicas: 1, locks: "kernel" });
  const primary = cluster.connect(cluster.primary, "app.db");
  primary.pragma("journal_mode=WAL");
  primary.exec("CREATE TABLE t(x)");
  await cluster.waitForReplicas("app.db");
  const hasty = cluster.connect(cluster.replica, "app.db", { timeout: 0 });
  expect(() => hasty.exec("INSERT INTO t VALUES (1)")).toThrow(/locked/);
  const patient = cluster.connect(cluster.replica, "app.db", { timeout: 20_000 });
  patient.exec("INSERT INTO t VALUES (2)");
  expect(primary.prepare("SELECT x FROM t").pluck().all()).toEqual([2]);
  await cluster.verify();
});

test("the first thing that happens on a replica is a write", async () => {
  const cluster = await Cluster.start({ replicas: 1, locks: "kernel" });
  const primary = cluster.connect(cluster.primary, "app.db");
  primary.pragma("journal_mode=WAL");
  primary.exec("CREATE TABLE t(x)");
  await cluster.waitForReplicas("app.db");
  // Each comes as the first, builds nothing, and finds a wal-index that is right.
  for (let i = 1; i <= 5; i++) {
    const { code, stderr } = await startPython(
      cluster.replica.file("app.db"),
      `db.execute("PRAGMA busy_timeout=20000"); db.execute("INSERT INTO t VALUES (${i})")
assert db.execute("SELECT count(*) FROM t").fetchone()[0] == ${i}`,
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  }
  await cluster.verify();
});

test("nothing is left of the trace, and what a killed node left is removed by the next", async () => {
  const cluster = await Cluster.start({ replicas: 0, locks: "kernel" });
  const node = cluster.primary;
  const ofPid = (pid: number): string[] =>
    instances().filter((name) => name.startsWith(`litefs-${pid}-`));
  const first = node.pid;
  expect(ofPid(first)).toHaveLength(1);
  await node.kill();
  expect(ofPid(first)).toHaveLength(1);
  await node.start();
  const second = node.pid;
  expect(ofPid(second)).toHaveLength(1);
  expect(ofPid(first)).toEqual([]);
  expect((await node.stop()).code).toBe(0);
  expect(ofPid(second)).toEqual([]);
});

test("tracefs that a node killed at its start has left mounted is unmounted by the next", async () => {
  // No process has a number as large as this: the kernel's limit is 2^22.
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-tracefs-99999999-"));
  shell("mount", ["-t", "tracefs", "litefs", root]);
  onTestFinished(() => {
    tryShell("umount", ["-l", root]);
    fs.rmSync(root, { recursive: true, force: true });
  });
  const ours = fs.mkdtempSync(path.join(os.tmpdir(), `litefs-tracefs-${process.pid}-`));
  shell("mount", ["-t", "tracefs", "litefs", ours]);
  onTestFinished(() => {
    shell("umount", ["-l", ours]);
    fs.rmdirSync(ours);
  });
  await Cluster.start({ replicas: 0, locks: "kernel" });
  expect(fs.existsSync(root)).toBe(false);
  // That of a process that is running is left alone.
  expect(fs.existsSync(path.join(ours, "instances"))).toBe(true);
});

test("nodes that start at the same moment do not take each other's trace away", async () => {
  for (let round = 0; round < 3; round++) {
    const clusters = await Promise.all(
      Array.from({ length: 4 }, () => Cluster.start({ replicas: 0, locks: "kernel" })),
    );
    for (const { primary } of clusters)
      expect(primary.log).toContain("the kernel keeps SQLite's locks");
    await Promise.all(clusters.map((cluster) => cluster.primary.stop()));
  }
});

test("a node that is killed with files open ends at once", async () => {
  const cluster = await Cluster.start({ replicas: 0, locks: "kernel" });
  const db = cluster.connect(cluster.primary, "app.db");
  db.pragma("journal_mode=WAL");
  db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  expect((await cluster.primary.kill()).signal).toBe("SIGKILL");
  db.close();
  await cluster.primary.start();
  const again = cluster.connect(cluster.primary, "app.db");
  expect(again.prepare("SELECT x FROM t").pluck().get()).toBe(1);
});

test("where the kernel cannot keep the locks, the reason is told", async () => {
  const shared = new SharedArrayBuffer(SHARED_BYTES);
  const fail = (): never => expect.unreachable();
  const started = await LockThread.start("/nonexistent", shared, fail);
  expect(started).toMatchObject({ reason: expect.stringContaining("ENOENT") });
});

test("the kernel tells of attempts at a lock, and not of our own", () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-test-"));
  onTestFinished(() => fs.rmSync(directory, { recursive: true }));
  const file = path.join(directory, "file");
  fs.writeFileSync(file, "");
  const calls = new SystemCalls();
  const trace = LockTrace.open(`test-${process.pid}`);
  try {
    // An instance that is in use is not taken for a leftover.
    LockTrace.open(`test-${process.pid}-other`).close();
    const [ours, other] = [fs.openSync(file, "r+"), fs.openSync(file, "r+")];
    const { dev, ino } = fs.statSync(file);
    trace.start(kernelDevice(dev), [120]);
    expect(calls.setLock(ours, "write", 120, 120)).toBe(true);
    expect(calls.setLock(other, "write", 120, 120)).toBe(false);
    expect(calls.foreignLock(other, "read", 100, 130)).toEqual({ pid: -1 });
    expect(trace.read()).toEqual([]);
    const attempt = `
import fcntl
f = open(${JSON.stringify(file)}, "r+")
for byte in (119, 120, 121):
  try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte, 0)
  except OSError: print(byte)`;
    expect(shell(PYTHON, ["-c", attempt])).toBe("120");
    expect(calls.waitReadable([trace.fd], 10_000)).toBe(true);
    expect(trace.read()).toMatchObject([{ inode: ino, byte: 120 }]);
    expect(calls.setLock(ours, "none", 120, 120)).toBe(true);
    expect(calls.setLock(other, "write", 120, 120)).toBe(true);
    for (const fd of [ours, other]) fs.closeSync(fd);
  } finally {
    trace.close();
  }
});
