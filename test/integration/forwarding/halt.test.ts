import { spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import * as path from "node:path";
import { text } from "node:stream/consumers";
import { describe, expect, onTestFinished, test } from "vitest";
import { cleanUpAfterEach, Cluster, waitFor } from "../../support/cluster.ts";
import { LockHolder } from "../../support/lock-holder.ts";
import type { TestNode } from "../../support/test-node.ts";
import { PYTHON } from "../../support/python-path.ts";

const WAIT_MS = 30_000;
const LITEFS = path.join(import.meta.dirname, "../../../bin/litefs");

cleanUpAfterEach();

async function start(
  mode: string,
  options: { replicas?: number; proxies?: boolean; locks?: "kernel" | "daemon" } = {},
): Promise<Cluster> {
  const config = "forward: {timeout: 500ms, linger: 10ms}";
  const cluster = await Cluster.start({ replicas: 1, config, ...options });
  const db = cluster.connect(cluster.primary, "app.db");
  db.pragma(`journal_mode=${mode}`);
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
  db.close();
  await cluster.waitForReplicas("app.db");
  return cluster;
}

/** Where the kernel keeps the locks, fcntl(2) takes none that would mean something. */
function holder(node: TestNode): LockHolder {
  const process = new LockHolder(node.file("app.db"), node.locks === "kernel" ? "write" : "fcntl");
  onTestFinished(() => process.end());
  return process;
}

function insert(cluster: Cluster, node: TestNode, value: string): string {
  const db = cluster.connect(node, "app.db", { timeout: 100 });
  try {
    db.prepare("INSERT INTO t(x) VALUES (?)").run(value);
    return "ok";
  } catch (error) {
    return String(error);
  } finally {
    db.close();
  }
}

async function untilWritable(cluster: Cluster, node: TestNode, value: string): Promise<void> {
  await waitFor(`${node.name} to write`, WAIT_MS, () => {
    const outcome = insert(cluster, node, value);
    return outcome === "ok" ? undefined : outcome;
  });
}

function rows(cluster: Cluster, node: TestNode): unknown[] {
  const db = cluster.connect(node, "app.db");
  const found = db.prepare("SELECT x FROM t ORDER BY id").pluck().all();
  db.close();
  return found;
}

async function litefs(...args: string[]): Promise<{ code: unknown; out: string; error: string }> {
  const child = spawn(LITEFS, args, { stdio: ["ignore", "pipe", "pipe"] });
  const [out, error, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "exit"),
  ]);
  return { code, out, error };
}

describe.each(["WAL", "DELETE"])("%s", (mode) => {
  test("whoever has the halt lock writes, and nobody on another node does", async () => {
    const cluster = await start(mode, { replicas: 2 });
    const { primary, replica } = cluster;
    const mine = holder(replica);
    expect(await mine.lock()).toBe("ok");
    for (const value of ["a", "b"]) expect(await mine.insert(value)).toBe("ok");
    for (const node of [primary, cluster.node(2)]) {
      expect(insert(cluster, node, "refused")).toContain("database is locked");
      await waitFor("the reader to see it", WAIT_MS, () =>
        rows(cluster, node).length === 2 ? undefined : "not yet",
      );
    }
    // The others' asking has not cost him the lock.
    expect(await mine.insert("c")).toBe("ok");
    expect(await mine.unlock()).toBe("ok");
    await untilWritable(cluster, primary, "d");
    await untilWritable(cluster, cluster.node(2), "e");
    expect(await mine.insert("f")).toMatch(/ok|locked/);
    await cluster.verify();
  });

  test("it ends with its process, and the transaction that he had begun with it", async () => {
    const cluster = await start(mode);
    const mine = holder(cluster.replica);
    expect(await mine.lock()).toBe("ok");
    expect(await mine.do(`db.execute("BEGIN IMMEDIATE")`)).toBe("ok");
    expect(await mine.insert("lost")).toBe("ok");
    expect(insert(cluster, cluster.primary, "refused")).toContain("database is locked");
    await mine.end();
    await untilWritable(cluster, cluster.primary, "after");
    expect(rows(cluster, cluster.primary)).toEqual(["after"]);
    await cluster.verify();
  });
});

test("processes of one node take turns, and a signal ends the wait", async () => {
  const cluster = await start("WAL", { locks: "daemon" });
  for (const node of [cluster.primary, cluster.replica]) {
    const [first, second] = [holder(node), holder(node)];
    expect(await first.do("owner()")).toBe("free");
    expect(await first.tryLock()).toBe("ok");
    expect(await first.lock()).toBe("ok");
    expect(await second.do("owner()")).toBe(`${first.pid} at 72`);
    expect(await second.tryLock()).toBe("EAGAIN");
    expect(await second.do("interrupted()")).toBe("EINTR");
    const waits = second.lock();
    expect(await first.insert("first")).toBe("ok");
    expect(await first.unlock()).toBe("ok");
    expect(await waits).toBe("ok");
    expect(await first.do("owner()")).toBe(`${second.pid} at 72`);
    await second.end();
    expect(await first.tryLock()).toBe("ok");
    await first.end();
  }
  await cluster.verify();
});

test("only a write lock of byte 72 means something", async () => {
  const cluster = await start("WAL", { locks: "daemon" });
  const mine = holder(cluster.replica);
  expect(await mine.do("lock(fcntl.F_SETLK, fcntl.F_RDLCK)")).toBe("EINVAL");
  expect(await mine.do("lock(fcntl.F_SETLK, fcntl.F_WRLCK, 71)")).toBe("EINVAL");
  expect(await mine.do("lock(fcntl.F_SETLK, fcntl.F_WRLCK, 72, 2)")).toBe("EINVAL");
  expect(await mine.do(`os.pwrite(fd, b"xy", 72)`)).toBe("EIO");
  expect(await mine.do(`os.pwrite(fd, b"x", 0)`)).toBe("EIO");
  expect(await mine.do("len(os.read(fd, 100))")).toBe("0");
  await untilWritable(cluster, cluster.primary, "free");
  await cluster.verify();
});

test("children that inherit the descriptor, and other descriptors that close, end no OFD lock", async () => {
  const cluster = await start("WAL", { locks: "daemon" });
  const mine = holder(cluster.replica);
  expect(await mine.do("lock(F_OFD_SETLKW, fcntl.F_WRLCK)")).toBe("ok");
  expect(await mine.do(`subprocess.call(["true"], pass_fds=[fd])`)).toBe("0");
  expect(await mine.do(`subprocess.call(["true"])`)).toBe("0");
  expect(await mine.do(`os.close(os.dup(fd))`)).toBe("ok");
  expect(await mine.do(`os.close(os.open(path + "-lock", os.O_RDONLY))`)).toBe("ok");
  expect(insert(cluster, cluster.primary, "refused")).toContain("database is locked");
  expect(await mine.do("os.close(fd)")).toBe("ok");
  await untilWritable(cluster, cluster.primary, "after");
  await cluster.verify();
});

test("a program without fcntl takes it by a write, until it closes the file", async () => {
  const cluster = await start("WAL");
  const lockFile = `${cluster.replica.file("app.db")}-lock`;
  const file = await fs.promises.open(lockFile, fs.constants.O_WRONLY);
  await file.write(Uint8Array.of(1), 0, 1, 72);
  const other = holder(cluster.replica);
  if (cluster.replica.locks !== "kernel") expect(await other.tryLock()).toBe("EAGAIN");
  expect(insert(cluster, cluster.primary, "refused")).toContain("database is locked");
  expect(await other.insert("here")).toBe("ok");
  await file.close();
  await untilWritable(cluster, cluster.primary, "after");
  await cluster.verify();
});

test("where the kernel keeps the locks, nobody is given one by fcntl that means nothing", async () => {
  const cluster = await start("WAL", { locks: "kernel" });
  const { replica } = cluster;
  const file = `${replica.file("app.db")}-lock`;
  await expect(fs.promises.open(file, "r+")).rejects.toMatchObject({ code: "ENOTSUP" });
  expect(replica.log).toContain("refused a halt lock by fcntl");
  const mine = holder(replica);
  expect(await mine.lock()).toBe("ok");
  const other = holder(replica);
  const waits = other.lock();
  expect(await mine.insert("first")).toBe("ok");
  expect(insert(cluster, cluster.primary, "refused")).toContain("database is locked");
  expect(await mine.unlock()).toBe("ok");
  expect(await waits).toBe("ok");
  expect(await other.insert("second")).toBe("ok");
  await other.end();
  await untilWritable(cluster, cluster.primary, "after");
  await cluster.verify();
});

test("on the primary it is there at once, and holds no other node back", async () => {
  const cluster = await start("WAL");
  const mine = holder(cluster.primary);
  expect(await mine.lock()).toBe("ok");
  expect(await mine.insert("here")).toBe("ok");
  await untilWritable(cluster, cluster.replica, "there");
  await cluster.verify();
});

test("without a primary it is refused; one that is lost with the connection is borrowed again", async () => {
  const cluster = await start("WAL", { proxies: true });
  const { primary, proxy, replica } = cluster;
  const mine = holder(replica);
  await proxy.cut();
  expect(await mine.lock()).toBe("EAGAIN");
  await proxy.heal();
  await waitFor("the lock", WAIT_MS, async () =>
    (await mine.lock()) === "ok" ? undefined : "not yet",
  );
  await proxy.reset();
  await waitFor("the loss", WAIT_MS, () =>
    replica.log.includes("halt lock lost") ? undefined : "not yet",
  );
  await waitFor("him to write", WAIT_MS, async () =>
    (await mine.insert("again")) === "ok" ? undefined : "not yet",
  );
  expect(insert(cluster, primary, "refused")).toContain("database is locked");
  expect(await mine.insert("kept")).toBe("ok");
  expect(await mine.unlock()).toBe("ok");
  await untilWritable(cluster, primary, "after");
  await cluster.verify();
});

test("litefs run -with-halt-lock-on", async () => {
  const cluster = await start("WAL");
  const { primary, replica } = cluster;
  const file = replica.file("app.db");
  const marker = path.join(cluster.directory, "go");
  const program = `
import os, sqlite3, sys, time
db = sqlite3.connect("${file}", isolation_level=None, timeout=5)
for i in range(3): db.execute("INSERT INTO t(x) VALUES (?)", (i,))
open("${marker}", "w")
while os.path.exists("${marker}"): time.sleep(0.01)
db.execute("INSERT INTO t(x) VALUES (3)")
sys.exit(7)`;
  const flags = ["-url", replica.url, "-with-halt-lock-on", file];
  const running = litefs("run", ...flags, "--", PYTHON, "-c", program);
  await waitFor("the command", WAIT_MS, () => (fs.existsSync(marker) ? undefined : "not yet"));
  expect(insert(cluster, primary, "refused")).toContain("database is locked");
  expect((await litefs("status", "-url", primary.url)).out).toMatch(/app\.db .* lent to /);
  expect((await litefs("status", "-url", replica.url)).out).toMatch(/app\.db .* borrowed for /);
  fs.rmSync(marker);
  expect(await running).toEqual({ code: 7, out: "", error: "" });
  await untilWritable(cluster, primary, "after");
  expect(rows(cluster, primary)).toEqual([0, 1, 2, 3, "after"]);

  const there = ["-url", primary.url, "-with-halt-lock-on", primary.file("app.db")];
  expect(await litefs("run", ...there, "--", "echo", "x")).toMatchObject({ code: 0, out: "x\n" });
  await primary.stop();
  const refused = await litefs("run", ...flags, "--", "echo", "never");
  expect(refused).toMatchObject({ code: 1, out: "" });
  expect(refused.error).toContain("no primary lends it");
});
