import * as fs from "node:fs";
import * as path from "node:path";
import { afterEach, expect, test } from "vitest";
import { waitFor } from "../support/cluster.ts";
import { cleanUpElectedAfterEach, ElectedCluster } from "../support/elected-cluster.ts";
import { etcdLease, startEtcd } from "../support/servers/etcd.ts";
import { useServer } from "../support/servers/use-server.ts";
import { startPython } from "../support/shell.ts";
import type { TestNode } from "../support/test-node.ts";

/** Short, so that failover does not take long. */
const TTL_MS = 2_000;
/** Where nothing shall expire, however busy the machine is. */
const LONG_TTL_MS = 30_000;

const etcdServer = useServer(startEtcd);
cleanUpElectedAfterEach();
/** Ends the writers that a failed test has left. */
let ended = new AbortController();

afterEach(() => {
  ended.abort();
  ended = new AbortController();
});

/**
 * Inserts rows one by one until told to stop, and writes down what SQLite said: `ok` and the row,
 * or the error. In a process of its own, because a stopped node blocks whoever uses its mount.
 */
class Writer {
  readonly #file: string;
  readonly #stop: string;
  readonly #done: Promise<unknown>;

  constructor(directory: string, node: TestNode, name: string, journalMode: string) {
    this.#file = path.join(directory, `${name}.writes`);
    this.#stop = path.join(directory, `${name}.stop`);
    this.#done = startPython(
      node.file("app.db"),
      [
        `db.execute("PRAGMA busy_timeout = 60000")`,
        `out = open("${this.#file}", "w", buffering=1)`,
        "i = 0",
        `while not os.path.exists("${this.#stop}"):`,
        "  i += 1",
        `  row = "${name}-%d" % i`,
        "  try:",
        `    db.execute("INSERT INTO t (row) VALUES (?)", (row,))`,
        `    out.write("ok %s\\n" % row)`,
        "  except sqlite3.Error as error:",
        `    out.write("failed %s %s\\n" % (row, error))`,
        "    if db.in_transaction: db.rollback()",
        "  time.sleep(0.003)",
        `assert "${journalMode}" == db.execute("PRAGMA journal_mode").fetchone()[0]`,
      ].join("\n"),
      ended.signal,
    );
    this.#done.catch(() => undefined);
  }

  lines(): string[] {
    if (!fs.existsSync(this.#file)) return [];
    return fs
      .readFileSync(this.#file, "utf8")
      .split("\n")
      .filter((line) => line !== "");
  }

  acknowledged(): string[] {
    return this.lines().flatMap((line) => (line.startsWith("ok ") ? [line.slice(3)] : []));
  }

  failures(): string[] {
    return this.lines().filter((line) => line.startsWith("failed "));
  }

  async stop(): Promise<void> {
    fs.writeFileSync(this.#stop, "");
    const result = (await this.#done) as { code: number | null; stderr: string };
    expect(result.stderr).toBe("");
    expect(result.code).toBe(0);
  }

  async waitForMore(count: number): Promise<void> {
    const before = this.acknowledged().length;
    await waitFor(`${count} more writes`, 60_000, () => {
      const more = this.acknowledged().length - before;
      return more >= count ? undefined : `${more}, ${this.failures().at(-1) ?? "no failure"}`;
    });
  }
}

function makeTable(at: ElectedCluster, node: TestNode, journalMode: string): void {
  const db = at.connect(node, "app.db");
  db.pragma(`journal_mode = ${journalMode}`);
  db.exec("CREATE TABLE t (row TEXT)");
  at.closeConnections();
}

function rowsOf(at: ElectedCluster, node: TestNode): string[] {
  const db = at.connect(node, "app.db", { readonly: true });
  return db.prepare("SELECT row FROM t").pluck().all() as string[];
}

test.each(["wal", "delete"])(
  "a primary stopped for longer than its TTL acknowledges nothing that its successor lacks (%s)",
  async (journalMode) => {
    const etcd = etcdServer();
    if (etcd === undefined) return;
    const cluster = await ElectedCluster.start({ lease: etcdLease(etcd, `${TTL_MS}ms`), nodes: 2 });
    const [n0, n1] = [cluster.node(0), cluster.node(1)];
    makeTable(cluster, n0, journalMode);
    const writer = new Writer(cluster.directory, n0, "w", journalMode);
    await writer.waitForMore(50);

    await n0.freeze();
    const before = writer.acknowledged();
    expect(await cluster.waitForPrimary([n1])).toBe(n1);
    const other = cluster.connect(n1, "app.db");
    other.prepare("INSERT INTO t (row) VALUES ('successor')").run();
    n0.signal("SIGCONT");

    expect(await cluster.waitForPrimary()).toBe(n1);
    await waitFor("the stopped node to follow", 60_000, () =>
      n0.role() === "replica" ? undefined : n0.role(),
    );
    await writer.stop();
    // Under load the lease may have moved again; wherever it is, n1 has all the others have.
    await cluster.verify();
    const rows = new Set(rowsOf(cluster, n1));
    expect(rows.has("successor")).toBe(true);
    const after = writer.acknowledged().slice(before.length);
    // One may have been acknowledged between the last look and the stop, as before any crash.
    expect(after.slice(1).filter((row) => !rows.has(row))).toEqual([]);
    // Replication is asynchronous: of what was acknowledged right before the stop, the successor
    // may lack what was under way.
    const lost = before.filter((row) => !rows.has(row));
    expect(lost.length).toBeLessThanOrEqual(3);
    // Nothing that was refused is there all the same.
    const refused = writer.failures().map((line) => line.split(" ")[1] ?? "");
    expect(refused.filter((row) => rows.has(row))).toEqual([]);
  },
);

test("a handoff under load: no write of the primary's own fails, and none is lost", async ({
  skip,
}) => {
  const etcd = etcdServer();
  if (etcd === undefined) return skip();
  const cluster = await ElectedCluster.start({
    lease: etcdLease(etcd, `${LONG_TTL_MS}ms`),
    nodes: 3,
  });
  const [n0, n1] = [cluster.node(0), cluster.node(1)];
  makeTable(cluster, n0, "wal");
  const acknowledged: string[] = [];
  for (const [from, to, name] of [
    [n0, n1, "w0"],
    [n1, n0, "w1"],
  ] as const) {
    const writer = new Writer(cluster.directory, from, name, "wal");
    await writer.waitForMore(20);
    const answer = await to.post("/promote");
    expect(answer.status, await answer.text()).toBe(200);
    // From now on they go to the other node.
    await writer.waitForMore(20);
    await writer.stop();
    expect(writer.failures()).toEqual([]);
    acknowledged.push(...writer.acknowledged());
    await cluster.waitForPrimary();
  }
  expect(rowsOf(cluster, n0).sort()).toEqual(acknowledged.sort());
  await cluster.verify();
});

test("handoffs while both nodes write: nothing is lost, and nothing is there that was refused", async ({
  skip,
}) => {
  const etcd = etcdServer();
  if (etcd === undefined) return skip();
  const cluster = await ElectedCluster.start({
    lease: etcdLease(etcd, `${LONG_TTL_MS}ms`),
    nodes: 3,
  });
  const [n0, n1] = [cluster.node(0), cluster.node(1)];
  makeTable(cluster, n0, "wal");
  await waitFor("the table to reach the replica", 30_000, () =>
    n1.position("app.db") === n0.position("app.db") ? undefined : "not yet",
  );
  const writers = [
    new Writer(cluster.directory, n0, "w0", "wal"),
    new Writer(cluster.directory, n1, "w1", "wal"),
  ];
  for (const node of [n1, n0, n1, n0]) {
    for (const writer of writers) await writer.waitForMore(10);
    const answer = await node.post("/promote");
    expect(answer.status, await answer.text()).toBe(200);
  }
  for (const writer of writers) await writer.waitForMore(10);
  for (const writer of writers) await writer.stop();
  const primary = await cluster.waitForPrimary();
  const rows = rowsOf(cluster, primary);
  expect(rows.sort()).toEqual(writers.flatMap((writer) => writer.acknowledged()).sort());
  await cluster.verify();
});

test("kill -9 of the primary under load: what survives is a beginning of what was written", async ({
  skip,
}) => {
  const etcd = etcdServer();
  if (etcd === undefined) return skip();
  const cluster = await ElectedCluster.start({ lease: etcdLease(etcd, `${TTL_MS}ms`), nodes: 3 });
  const [n0, n1, n2] = [cluster.node(0), cluster.node(1), cluster.node(2)];
  makeTable(cluster, n0, "wal");
  const writer = new Writer(cluster.directory, n0, "w", "wal");
  await writer.waitForMore(100);
  await n0.kill();
  const killedAt = Date.now();
  const next = await cluster.waitForPrimary([n1, n2]);
  const tookMs = Date.now() - killedAt;
  // The lease's own bound and then as much as a busy machine may need.
  expect(tookMs).toBeLessThan(TTL_MS + 20_000);
  const acknowledged = writer.acknowledged();
  const rows = rowsOf(cluster, next);
  expect(acknowledged.slice(0, rows.length)).toEqual(rows.slice(0, acknowledged.length));
  cluster.closeConnections();

  await n0.start();
  const kept = cluster.connect(next, "app.db");
  kept.prepare("INSERT INTO t (row) VALUES ('next')").run();
  await cluster.verify();
  // Whatever only the old primary had is kept aside.
  const lost = acknowledged.length > rows.length;
  const [database] = (await n0.status()).databases;
  if (lost) expect(database?.divergedHistories).toBeGreaterThan(0);
});
