import * as http2 from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { cleanUpAfterEach, Cluster, waitFor } from "../../support/cluster.ts";
import type { ClusterOptions } from "../../support/cluster.ts";
import type { TestNode } from "../../support/test-node.ts";
import { startPython } from "../../support/shell.ts";

const MODES = ["WAL", "DELETE", "TRUNCATE", "PERSIST"];
const WAIT_MS = 30_000;
/** Longer than any test waits: what returns did not return because of it. */
const PATIENT = "sync: {replicas: 1, timeout: 60s}";

cleanUpAfterEach();

let modeOfConnections = "";

/** A synchronous primary with one row in `app.db`, and replicas that have it, through proxies. */
async function started(
  mode: string,
  config: string,
  options: ClusterOptions = { replicas: 1, proxies: true },
): Promise<Cluster> {
  modeOfConnections = mode;
  const cluster = await Cluster.start({ ...options, config });
  await untilAcknowledging(cluster, cluster.replicas.length);
  const db = cluster.connect(cluster.primary, "app.db");
  db.pragma(`journal_mode=${mode}`);
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x); INSERT INTO t(x) VALUES ('first')");
  db.close();
  await cluster.waitForReplicas("app.db");
  return cluster;
}

async function untilAcknowledging({ primary }: Cluster, count: number): Promise<void> {
  await waitFor(`${count} replicas to acknowledge`, WAIT_MS, async () => {
    const found = await metric(primary, "litefs_sync_replicas");
    return found === count ? undefined : String(found);
  });
}

async function metric(node: TestNode, name: string): Promise<number> {
  const text = await (await node.get("/metrics")).text();
  const line = text.split("\n").find((found) => found.startsWith(`${name} `));
  return Number(line?.slice(name.length + 1));
}

function waitsWith(node: TestNode, outcome: string): Promise<number> {
  return metric(node, `litefs_sync_wait_seconds_count{outcome="${outcome}"}`);
}

interface Insert {
  /** `ok` or what SQLite said. */
  readonly said: Promise<string>;
  isOver: boolean;
}

/** Inserts while the test goes on. TRUNCATE and PERSIST are modes of the connection alone. */
function startInsert(node: TestNode, text: string, busyMs = 500): Insert {
  const source = `
try:
  db.execute("PRAGMA busy_timeout=${busyMs}")
  if "${modeOfConnections}" != "WAL": db.execute("PRAGMA journal_mode=${modeOfConnections}")
  db.execute("INSERT INTO t(x) VALUES ('${text}')")
  print("ok")
except sqlite3.Error as error: print(type(error).__name__, error)`;
  const insert: Insert = {
    isOver: false,
    said: startPython(node.file("app.db"), source).then(({ stdout, stderr }) => {
      insert.isOver = true;
      return stdout + stderr;
    }),
  };
  return insert;
}

async function inserted(node: TestNode, text: string, busyMs = 500): Promise<string> {
  return await startInsert(node, text, busyMs).said;
}

function rows(cluster: Cluster, node: TestNode): unknown[] {
  const db = cluster.connect(node, "app.db");
  const found = db.prepare("SELECT x FROM t ORDER BY id").pluck().all();
  db.close();
  return found;
}

/**
 * Not by the mount: while the removal of a journal waits, the kernel lets nobody look a name up there.
 */
async function positionOf(node: TestNode): Promise<string> {
  const { databases } = await node.status();
  return databases.find(({ name }) => name === "app.db")?.position ?? "none";
}

async function untilPositionMoves(node: TestNode, from: string): Promise<string> {
  let position = from;
  await waitFor("a commit", WAIT_MS, async () => {
    position = await positionOf(node);
    return position === from ? `still at ${from}` : undefined;
  });
  return position;
}

async function untilAt(node: TestNode, position: string): Promise<void> {
  await waitFor(`${node.name} to reach ${position}`, WAIT_MS, async () => {
    const found = await positionOf(node);
    return found === position ? undefined : found;
  });
}

/** A stream that is read, and nothing else. */
function followLikeLitefs(port: number): Promise<{ status: number; stop: () => void }> {
  const session = http2.connect(`http://127.0.0.1:${port}`);
  const stream = session.request({
    ":method": "POST",
    ":path": "/stream",
    "litefs-id": "00000000000000AA",
  });
  stream.end(new Uint8Array(4));
  stream.on("error", () => undefined);
  stream.resume();
  return new Promise((resolve) => {
    stream.once("response", (headers) => {
      resolve({ status: headers[":status"] ?? 0, stop: () => session.destroy() });
    });
  });
}

describe.each(MODES)("%s", (mode) => {
  test("COMMIT returns when the replica has said that it has the transaction", async () => {
    const cluster = await started(mode, PATIENT);
    const { primary, replica } = cluster;
    expect(await inserted(primary, "before")).toBe("ok");
    const position = await positionOf(primary);
    // Everything reaches the replica, and nothing comes back.
    await cluster.proxy.set({ toServer: "hold" });
    const insert = startInsert(primary, "waiting");
    await untilAt(replica, await untilPositionMoves(primary, position));
    await sleep(300);
    expect(insert.isOver).toBe(false);
    await cluster.proxy.heal();
    expect(await insert.said).toBe("ok");
    expect(rows(cluster, primary)).toEqual(["first", "before", "waiting"]);
    expect(await waitsWith(primary, "acknowledged")).toBeGreaterThan(0);
    await cluster.verify();
  });
});

const SOME_MODES = ["WAL", "DELETE"];

describe.each(SOME_MODES)("%s", (mode) => {
  test("a timeout is an error, and nobody writes until the replica has what it was about", async () => {
    const cluster = await started(mode, "sync: {replicas: 1, timeout: 1s}");
    const { primary, replica } = cluster;
    await cluster.proxy.set({ toServer: "hold" });
    expect(await inserted(primary, "unknown")).toContain("disk I/O error");
    expect(await metric(primary, "litefs_sync_fenced_databases")).toBe(1);
    expect(await inserted(primary, "refused")).toContain("database is locked");
    expect(rows(cluster, primary)).toEqual(["first", "unknown"]);
    await cluster.proxy.heal();
    await waitFor("writes to go on", WAIT_MS, async () => {
      const said = await inserted(primary, "after");
      return said === "ok" ? undefined : said;
    });
    expect(rows(cluster, primary)).toEqual(["first", "unknown", "after"]);
    await cluster.waitForReplicas("app.db");
    expect(rows(cluster, replica)).toEqual(["first", "unknown", "after"]);
    expect(await metric(primary, "litefs_sync_fenced_databases")).toBe(0);
    expect(await waitsWith(primary, "timed-out")).toBe(1);
    await cluster.verify();
  });

  test("without replicas nobody writes, and readers go on", async () => {
    const cluster = await started(mode, PATIENT);
    const { primary } = cluster;
    const position = await positionOf(primary);
    await cluster.proxy.cut();
    await untilAcknowledging(cluster, 0);
    expect(await inserted(primary, "refused")).toContain("database is locked");
    expect(rows(cluster, primary)).toEqual(["first"]);
    expect(await positionOf(primary)).toBe(position);
    const status = await (await primary.get("/status")).json();
    expect(status).toMatchObject({ sync: { replicas: 0, fenced: ["app.db"], degraded: [] } });
    await cluster.proxy.heal();
    expect(await inserted(primary, "after", 20_000)).toBe("ok");
    expect(rows(cluster, primary)).toEqual(["first", "after"]);
    await cluster.verify();
  });

  test("on-timeout async: one commit waits in vain, the next ones do not wait", async () => {
    const config = "sync: {replicas: 1, timeout: 2s, on-timeout: async}";
    const cluster = await started(mode, config);
    const { primary } = cluster;
    await cluster.proxy.set({ toServer: "hold" });
    expect(await inserted(primary, "late")).toBe("ok");
    expect(await metric(primary, "litefs_sync_degraded_databases")).toBe(1);
    for (let i = 0; i < 3; i++) expect(await inserted(primary, `async ${i}`)).toBe("ok");
    expect(await waitsWith(primary, "degraded")).toBe(1);
    await cluster.proxy.heal();
    await waitFor("commits to wait again", WAIT_MS, async () => {
      const degraded = await metric(primary, "litefs_sync_degraded_databases");
      return degraded === 0 ? undefined : "degraded";
    });
    const before = await waitsWith(primary, "acknowledged");
    expect(await inserted(primary, "again")).toBe("ok");
    expect(await waitsWith(primary, "acknowledged")).toBe(before + 1);
    await cluster.verify();
  });

  test("on-timeout async: without replicas commits do not wait", async () => {
    const cluster = await started(mode, PATIENT.replace("}", ", on-timeout: async}"));
    const { primary } = cluster;
    await cluster.proxy.set({ toServer: "hold" });
    const position = await positionOf(primary);
    const insert = startInsert(primary, "waiting");
    await untilPositionMoves(primary, position);
    // What waits already learns of it as well.
    await cluster.proxy.cut();
    expect(await insert.said).toBe("ok");
    expect(await inserted(primary, "alone")).toBe("ok");
    expect(await metric(primary, "litefs_sync_degraded_databases")).toBe(1);
    await cluster.proxy.heal();
    await untilAcknowledging(cluster, 1);
    await cluster.waitForReplicas("app.db");
    await cluster.verify();
  });

  test("a write on a replica waits for the replicas, and that node is one of them", async () => {
    const cluster = await started(mode, PATIENT);
    const { primary, replica } = cluster;
    expect(await inserted(replica, "forwarded")).toBe("ok");
    expect(await inserted(replica, "lingering")).toBe("ok");
    expect(await waitsWith(primary, "acknowledged")).toBeGreaterThanOrEqual(2);
    expect(rows(cluster, replica)).toEqual(["first", "forwarded", "lingering"]);
    expect(rows(cluster, primary)).toEqual(["first", "forwarded", "lingering"]);
    await cluster.verify();
  });

  test("a write on a replica whose second replica is silent ends in an error, and stays", async () => {
    const config = "sync: {replicas: all, nodes: 3, timeout: 1s}";
    const cluster = await started(mode, config, { replicas: 2, proxies: true });
    const { primary, replica } = cluster;
    expect(await inserted(replica, "before")).toBe("ok");
    await cluster.proxyOf(2).set({ toServer: "hold" });
    expect(await inserted(replica, "unknown")).toContain("disk I/O error");
    expect(await inserted(replica, "refused")).toContain("database is locked");
    expect(rows(cluster, replica)).toEqual(["first", "before", "unknown"]);
    await cluster.proxyOf(2).heal();
    await waitFor("writes to go on", WAIT_MS, async () => {
      const said = await inserted(replica, "after", 2_000);
      return said === "ok" ? undefined : said;
    });
    expect(rows(cluster, primary)).toEqual(["first", "before", "unknown", "after"]);
    await cluster.verify();
  });

  test("a replica that is killed is missed only if there is no other", async () => {
    const cluster = await started(mode, PATIENT, { replicas: 2 });
    const { primary } = cluster;
    await cluster.node(2).kill();
    expect(await inserted(primary, "one left", 20_000)).toBe("ok");
    await cluster.node(1).kill();
    expect(await inserted(primary, "refused")).toContain("database is locked");
    await cluster.node(2).start();
    expect(await inserted(primary, "again", 20_000)).toBe("ok");
    expect(rows(cluster, primary)).toEqual(["first", "one left", "again"]);
    await cluster.verify();
  });

  test("the primary is killed while a commit waits: it stays, once", async () => {
    const cluster = await started(mode, PATIENT);
    const { primary, replica } = cluster;
    await cluster.proxy.set({ toServer: "hold" });
    const position = await positionOf(primary);
    const insert = startInsert(primary, "pending");
    await untilAt(replica, await untilPositionMoves(primary, position));
    await primary.kill();
    expect(await insert.said).toMatch(/Error/);
    await primary.start();
    await cluster.proxy.heal();
    await untilAcknowledging(cluster, 1);
    expect(await inserted(primary, "after")).toBe("ok");
    expect(rows(cluster, primary)).toEqual(["first", "pending", "after"]);
    await cluster.verify();
  });

  test("an application that is killed while its commit waits goes at once, and the commit stays", async () => {
    const cluster = await started(mode, PATIENT);
    const { primary, replica } = cluster;
    await cluster.proxy.set({ toServer: "hold" });
    const position = await positionOf(primary);
    const kill = new AbortController();
    const source = `
db.execute("PRAGMA journal_mode=${mode}")
db.execute("INSERT INTO t(x) VALUES ('orphan')")`;
    const insert = startPython(primary.file("app.db"), source, kill.signal);
    await untilAt(replica, await untilPositionMoves(primary, position));
    kill.abort();
    await insert;
    // It was not the end of the wait that let it go.
    expect(primary.log).not.toContain("its outcome is unknown");
    expect(rows(cluster, primary)).toEqual(["first", "orphan"]);
    await cluster.proxy.heal();
    expect(await inserted(primary, "after", 20_000)).toBe("ok");
    expect(rows(cluster, primary)).toEqual(["first", "orphan", "after"]);
    await cluster.verify();
  });
});

test("a signal that does not kill leaves the commit waiting", async () => {
  const cluster = await started("WAL", PATIENT);
  const { primary, replica } = cluster;
  await cluster.proxy.set({ toServer: "hold" });
  const position = await positionOf(primary);
  const source = `
import signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
db.execute("INSERT INTO t(x) VALUES ('interrupted')")
print("ok")`;
  const insert = startPython(primary.file("app.db"), source);
  await untilAt(replica, await untilPositionMoves(primary, position));
  await sleep(500);
  await cluster.proxy.heal();
  expect((await insert).stdout).toBe("ok");
  expect(rows(cluster, primary)).toEqual(["first", "interrupted"]);
  await cluster.verify();
});

test("readers on the primary go on while a commit in WAL mode waits, and do not see it", async () => {
  const cluster = await started("WAL", PATIENT);
  const { primary, replica } = cluster;
  // Opened before: as root SQLite gives the WAL an owner, for which the kernel waits for the write.
  const reader = cluster.connect(primary, "app.db");
  const read = reader.prepare("SELECT x FROM t ORDER BY id").pluck();
  await cluster.proxy.set({ toServer: "hold" });
  const position = await positionOf(primary);
  const insert = startInsert(primary, "waiting");
  await untilAt(replica, await untilPositionMoves(primary, position));
  expect(read.all()).toEqual(["first"]);
  expect(insert.isOver).toBe(false);
  await cluster.proxy.heal();
  expect(await insert.said).toBe("ok");
  expect(rows(cluster, primary)).toEqual(["first", "waiting"]);
});

test("what was acknowledged is on the disk of a replica that is killed, and it alone can tell", async () => {
  const cluster = await started("WAL", PATIENT);
  const { primary, replica } = cluster;
  const expected = ["first"];
  for (let i = 0; i < 5; i++) {
    expect(await inserted(primary, `row ${i}`)).toBe("ok");
    expected.push(`row ${i}`);
  }
  await replica.kill();
  await primary.kill();
  replica.launch();
  await replica.waitForLog("LiteFS mounted to");
  await waitFor("the mount", WAIT_MS, () =>
    replica.position("app.db") === undefined ? "no database" : undefined,
  );
  expect(rows(cluster, replica)).toEqual(expected);
});

test("a primary that is told to stop does so while a commit waits", async () => {
  const cluster = await started("WAL", PATIENT);
  const { primary, replica } = cluster;
  await cluster.proxy.set({ toServer: "hold" });
  const position = await positionOf(primary);
  const insert = startInsert(primary, "pending");
  await untilAt(replica, await untilPositionMoves(primary, position));
  const { code } = await primary.stop();
  expect(code).toBe(0);
  expect(await insert.said).toMatch(/Error/);
});

test("a forwarded commit whose answer is lost is asked for, and that waits for the replica too", async () => {
  // The right to write stays, so that the second insert needs no answer until its commit.
  const cluster = await started("WAL", `${PATIENT}\nforward: {linger: 60s}`);
  const { primary, replica } = cluster;
  expect(await inserted(replica, "before")).toBe("ok");
  const position = await positionOf(primary);
  await cluster.proxy.set({ toClient: "drop" });
  const insert = startInsert(replica, "lost");
  await untilPositionMoves(primary, position);
  await cluster.proxy.reset();
  await cluster.proxy.heal();
  expect(await insert.said).toBe("ok");
  expect(rows(cluster, replica)).toEqual(["first", "before", "lost"]);
  expect(rows(cluster, primary)).toEqual(["first", "before", "lost"]);
  await cluster.verify();
});

test("single databases wait, others do not", async () => {
  const config = "sync: {databases: {app.db: 1}, timeout: 60s}";
  const cluster = await started("WAL", config);
  const { primary } = cluster;
  const other = cluster.connect(primary, "other.db");
  other.pragma("journal_mode=WAL");
  other.exec("CREATE TABLE t(x)");
  await cluster.proxy.cut();
  await untilAcknowledging(cluster, 0);
  other.exec("INSERT INTO t VALUES (1)");
  other.close();
  expect(await inserted(primary, "refused")).toContain("database is locked");
  await cluster.proxy.heal();
  expect(await inserted(primary, "after", 20_000)).toBe("ok");
  await cluster.verify();
});

test("a node that does not acknowledge, as LiteFS's do not, never counts", async () => {
  const cluster = await Cluster.create({ replicas: 1, config: "sync: {replicas: 1}" });
  // Of its requests only POST /stream, without the words that LiteFS does not know.
  await cluster.primary.start();
  const { stop, status } = await followLikeLitefs(cluster.primary.options.port);
  expect(status).toBe(200);
  const db = cluster.connect(cluster.primary, "app.db", { timeout: 100 });
  expect(() => db.exec("CREATE TABLE t(x)")).toThrow(/locked|I\/O error/);
  stop();
});
