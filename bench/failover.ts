import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ElectedCluster } from "../test/support/elected-cluster.ts";
import { startConsul } from "../test/support/servers/consul.ts";
import { startEtcd } from "../test/support/servers/etcd.ts";
import { startPython } from "../test/support/shell.ts";
import type { TestNode } from "../test/support/test-node.ts";
import { quantile } from "./statistics.ts";

/*
 * How long a handoff holds writers back, and how long a cluster is without a primary after kill -9:
 *
 *   npm run bench:failover -- [HANDOFFS] [KILLS]
 *
 * Three nodes on loopback, a real etcd (TTL 2 s) and a real Consul (TTL 10 s, lock-delay 1 s). The
 * servers come from Debian's packages, see test/support/servers.
 */
const [handoffs = 10, kills = 3] = process.argv.slice(2).map(Number);

interface Backend {
  readonly name: string;
  readonly lease: readonly string[];
  /** From the last renewal to the moment the lease is free: what no primary can be faster than. */
  readonly boundMs: number;
}

const print = (line: string): boolean => process.stdout.write(`${line}\n`);

/** Inserts without a pause, and notes the time of each COMMIT. */
async function largestPauseMs(
  cluster: ElectedCluster,
  node: TestNode,
  meanwhile: () => Promise<void>,
): Promise<number> {
  const times = path.join(cluster.directory, "times");
  const stop = path.join(cluster.directory, "stop");
  fs.rmSync(stop, { force: true });
  const writer = startPython(
    node.file("app.db"),
    [
      `db.execute("PRAGMA busy_timeout = 60000")`,
      `out = open("${times}", "w")`,
      `while not os.path.exists("${stop}"):`,
      `  db.execute("INSERT INTO t DEFAULT VALUES")`,
      `  out.write("%f\\n" % (time.monotonic() * 1000))`,
    ].join("\n"),
  );
  await sleep(500);
  await meanwhile();
  await sleep(500);
  fs.writeFileSync(stop, "");
  const { code, stderr } = await writer;
  if (code !== 0) throw new Error(stderr);
  const at = fs.readFileSync(times, "utf8").trimEnd().split("\n").map(Number);
  return Math.max(...at.slice(1).map((ms, i) => ms - (at[i] ?? ms)));
}

async function measureHandoffs(cluster: ElectedCluster): Promise<void> {
  const took: number[] = [];
  for (let i = 0; i < handoffs; i++) {
    const node = cluster.node((i + 1) % 2);
    const started = performance.now();
    const answer = await node.post("/promote");
    if (!answer.ok) throw new Error(await answer.text());
    took.push(performance.now() - started);
    await cluster.waitForPrimary();
  }
  const [n0, n1] = [cluster.node(0), cluster.node(1)];
  const primary = await cluster.waitForPrimary();
  const other = primary === n0 ? n1 : n0;
  // There and back, so that the writer's own node is the primary at both ends.
  const pause = await largestPauseMs(cluster, primary, async () => {
    for (const node of [other, primary]) {
      const answer = await node.post("/promote");
      if (!answer.ok) throw new Error(await answer.text());
    }
  });
  print(
    `  handoff: p50 ${quantile(took, 0.5).toFixed(0)} ms, max ${quantile(took, 1).toFixed(0)} ms ` +
      `(${handoffs}); a writer's longest wait over two of them ${pause.toFixed(0)} ms`,
  );
}

async function measureKills(cluster: ElectedCluster, boundMs: number): Promise<void> {
  const took: number[] = [];
  for (let i = 0; i < kills; i++) {
    const primary = await cluster.waitForPrimary();
    // Not right after a renewal every time.
    await sleep(Math.random() * 2_000);
    const started = performance.now();
    await primary.kill();
    const others = cluster.nodes.filter((node) => node !== primary);
    for (let isOver = false; !isOver; await sleep(5)) {
      const states = await Promise.all(others.map((node) => node.status()));
      isOver = states.some(({ isPrimary }) => isPrimary);
    }
    took.push(performance.now() - started);
    await primary.start();
  }
  print(
    `  kill -9 to the next primary: p50 ${quantile(took, 0.5).toFixed(0)} ms, ` +
      `max ${quantile(took, 1).toFixed(0)} ms (${kills}); the lease's own bound ${boundMs} ms`,
  );
}

async function measure({ name, lease, boundMs }: Backend): Promise<void> {
  print(name);
  const cluster = await ElectedCluster.start({ lease });
  try {
    const db = cluster.connect(cluster.node(0), "app.db");
    db.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (x INTEGER PRIMARY KEY)");
    cluster.closeConnections();
    await measureHandoffs(cluster);
    await measureKills(cluster, boundMs);
    await cluster.verify();
  } catch (error) {
    cluster.printLogs();
    throw error;
  } finally {
    await cluster.dispose();
  }
}

const etcd = await startEtcd();
if (etcd !== undefined) {
  const lease = ["type: etcd", `etcd: {endpoints: ["${etcd.url}"], key: KEY, ttl: 2s}`];
  try {
    // etcd looks for leases that have ended twice a second, and grants a second more than asked for.
    await measure({ name: "etcd, TTL 2 s", lease, boundMs: 3_500 });
  } finally {
    await etcd.process.dispose();
  }
}
const consul = await startConsul();
if (consul !== undefined) {
  const backend = `consul: {url: "${consul.url}", key: KEY, ttl: 10s, lock-delay: 1s}`;
  try {
    const lease = ["type: consul", backend];
    await measure({ name: "Consul, TTL 10 s", lease, boundMs: 21_000 });
  } finally {
    await consul.process.dispose();
  }
}
