import { once } from "node:events";
import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Cluster } from "../test/support/cluster.ts";
import { FaultProxy } from "../test/support/fault-proxy.ts";
import { startPython } from "../test/support/shell.ts";
import type { TestNode } from "../test/support/test-node.ts";
import { quantile, sum } from "./statistics.ts";

/*
 * Writers on every node at once, and a replica that is far away from the primary:
 *
 *   npm run bench:forwarding -- [SECONDS]
 *
 * Five nodes on loopback with four writers each, all autocommit inserts into one table. What counts is
 * the rate of all together, and that nobody starves. Then one writer on a replica whose connection to
 * the primary takes 50 ms each way. How long a round trip is, is measured with a byte that comes back
 * at once by the same kind of connection, because timers are late; how many a commit waits for is its
 * time divided by that.
 */
const [seconds = 5] = process.argv.slice(2).map(Number);
const WRITERS_PER_NODE = 4;
const LATENCY_MS = 50;

const print = (line: string): boolean => process.stdout.write(`${line}\n`);

interface Writer {
  readonly node: string;
  readonly tookMs: readonly number[];
}

/** Inserts from when the file `go` appears until the time is over. */
async function write(node: TestNode, go: string, mode: string, pauseMs = 0): Promise<Writer> {
  const synchronous = mode === "WAL" ? "NORMAL" : "FULL";
  const source = [
    "import json",
    `db.execute("PRAGMA busy_timeout = 30000")`,
    `db.execute("PRAGMA synchronous = ${synchronous}")`,
    `while not os.path.exists("${go}"): time.sleep(0.01)`,
    `end = time.monotonic() + ${seconds}`,
    "took = []",
    "while time.monotonic() < end:",
    "  began = time.monotonic()",
    `  try: db.execute("INSERT INTO t(node) VALUES ('${node.name}')")`,
    "  except sqlite3.OperationalError: continue",
    "  took.append((time.monotonic() - began) * 1000)",
    `  time.sleep(${pauseMs / 1000})`,
    "print(json.dumps(took))",
  ].join("\n");
  const { code, stdout, stderr } = await startPython(node.file("app.db"), source);
  if (code !== 0) throw new Error(stderr);
  const tookMs: number[] = JSON.parse(stdout);
  return { node: node.name, tookMs };
}

async function withCluster(
  mode: string,
  options: { readonly replicas: number; readonly proxies?: boolean },
  measure: (cluster: Cluster, go: string) => Promise<void>,
): Promise<void> {
  const cluster = await Cluster.start(options);
  try {
    const db = cluster.connect(cluster.primary, "app.db");
    db.pragma(`journal_mode = ${mode}`);
    db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, node)");
    db.close();
    await cluster.waitForReplicas("app.db");
    await measure(cluster, path.join(cluster.directory, "go"));
    await cluster.verify();
  } catch (error) {
    cluster.printLogs();
    throw error;
  } finally {
    await cluster.dispose();
  }
}

async function measureContention(mode: string): Promise<void> {
  await withCluster(mode, { replicas: 4 }, async (cluster, go) => {
    const writing = cluster.nodes.flatMap((node) =>
      Array.from({ length: WRITERS_PER_NODE }, () => write(node, go, mode)),
    );
    await sleep(2_000);
    fs.writeFileSync(go, "");
    const writers = await Promise.all(writing);
    const counts = writers.map(({ tookMs }) => tookMs.length);
    const longest = Math.max(...writers.flatMap(({ tookMs }) => tookMs));
    print(
      `${mode}: ${writers.length} writers on ${cluster.nodes.length} nodes: ` +
        `${(sum(counts) / seconds).toFixed(0)} tx/s together [≥ 500]; of one writer ` +
        `${Math.min(...counts)} to ${Math.max(...counts)} in ${seconds} s, ` +
        `longest wait ${longest.toFixed(0)} ms`,
    );
  });
}

/** What the slow connection itself takes, there and back. */
async function measureRoundTripMs(): Promise<number> {
  const echo = net.createServer({ noDelay: true }, (socket) => void socket.pipe(socket));
  await once(echo.listen(0, "127.0.0.1"), "listening");
  const proxy = await FaultProxy.start((echo.address() as net.AddressInfo).port);
  await proxy.set({ latencyMs: LATENCY_MS });
  const socket = net.connect({ port: proxy.port, host: "127.0.0.1", noDelay: true });
  const tookMs: number[] = [];
  try {
    await once(socket, "connect");
    for (let i = 0; i < 20; i++) {
      const startedAtMs = performance.now();
      socket.write("x");
      await once(socket, "data");
      tookMs.push(performance.now() - startedAtMs);
    }
  } finally {
    socket.destroy();
    await proxy.close();
    echo.close();
  }
  return quantile(tookMs, 0.5);
}

async function measureDistance(mode: string, roundTripMs: number): Promise<void> {
  await withCluster(mode, { replicas: 1, proxies: true }, async (cluster, go) => {
    await cluster.proxy.set({ latencyMs: LATENCY_MS });
    const writing = write(cluster.replica, go, mode);
    await sleep(2_000);
    fs.writeFileSync(go, "");
    // The first one borrows the right.
    const [first = 0, ...rest] = (await writing).tookMs;
    const p50 = quantile(rest, 0.5);
    print(
      `${mode}: ${LATENCY_MS} ms away: p50 ${p50.toFixed(1)} ms, p99 ${quantile(rest, 0.99).toFixed(1)} ms ` +
        `= ${Math.floor(p50 / roundTripMs)} round trip of ${roundTripMs.toFixed(1)} ms + ` +
        `${(p50 % roundTripMs).toFixed(1)} ms [≤ 1 + 5 ms]; the first ${first.toFixed(0)} ms`,
    );
  });
}

const roundTripMs = await measureRoundTripMs();
for (const mode of ["WAL", "DELETE"]) {
  await measureContention(mode);
  await measureDistance(mode, roundTripMs);
}
