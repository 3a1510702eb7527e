import * as fs from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { DemoNode } from "./demo-node.ts";
import { missingForDemo } from "./preflight.ts";
import { ms, percentile, seconds, View } from "./view.ts";

/*
 * Three nodes of litefs on this machine, each with an application that uses better-sqlite3: the
 * first writes, the others show when its rows arrive.
 *
 *   npm run demo [-- --seconds N]
 */

const NODE_COUNT = 3;
const DEFAULT_SECONDS = 20;
const START_TIMEOUT_MS = 30_000;
const CATCH_UP_TIMEOUT_MS = 10_000;
const REFRESH_MS = 100;

/** Ends what waits: a signal, a failure, or nobody reading any more. */
const stop = new AbortController();
let failure: string | undefined;

function print(text: string): void {
  process.stdout.write(text);
}

function fail(reason: string): void {
  failure ??= reason;
  stop.abort();
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => stop.abort());
}
process.stdout.on("error", () => stop.abort());

async function main(): Promise<number> {
  const totalMs = parseSeconds() * 1000;
  const missing = missingForDemo();
  if (missing !== undefined) {
    process.stderr.write(`ERROR: ${missing}\n`);
    return 1;
  }
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-demo-"));
  const view = new View(process.stdout.isTTY && process.env["TERM"] !== "dumb", print);
  const nodes: DemoNode[] = [];
  try {
    nodes.push(...(await createNodes(directory)));
    await run(nodes, view, totalMs);
  } catch (error) {
    fail(error instanceof Error ? error.message : String(error));
  } finally {
    await cleanUp(nodes, directory);
  }
  if (failure === undefined) return 0;
  process.stderr.write(`ERROR: ${failure}\n`);
  return 1;
}

function parseSeconds(): number {
  const { values } = parseArgs({ options: { seconds: { type: "string" } } });
  const count = Number(values.seconds ?? DEFAULT_SECONDS);
  if (count > 0 && count <= 3600) return count;
  throw new Error(`--seconds must be a number from 1 to 3600, not "${values.seconds}"`);
}

async function createNodes(directory: string): Promise<DemoNode[]> {
  const ports = await freePorts(NODE_COUNT);
  return ports.map((port, i) => {
    const name = `node-${i + 1}`;
    const options = { name, port, primaryPort: ports[0] ?? 0, onFailure: fail };
    return new DemoNode({ ...options, directory: path.join(directory, name) });
  });
}

async function run(nodes: readonly DemoNode[], view: View, totalMs: number): Promise<void> {
  view.message("Three nodes of litefs on this machine, each: litefs mount -- node app.ts");
  for (const node of nodes) {
    view.message(`  ${node.name}  ${node.mountPoint}  http://127.0.0.1:${node.port}`);
    node.start();
  }
  view.message("node-1 inserts 50 rows a second; ms: its INSERT, and until a replica SELECTs it.");
  if (!(await until(() => nodes.every((node) => node.rows > 0), START_TIMEOUT_MS))) {
    if (!stop.signal.aborted) fail("not every node has rows; see the requirements in README.md");
    return;
  }
  // What the nodes wrote and waited for while the others were starting says nothing.
  for (const node of nodes) node.latenciesMs.length = 0;
  const startedAtMs = performance.now();
  const elapsed = (): number => performance.now() - startedAtMs;
  while (!stop.signal.aborted && elapsed() < totalMs) {
    view.update(nodes, { elapsedMs: elapsed(), totalMs });
    await sleep(REFRESH_MS, undefined, { signal: stop.signal }).catch(() => undefined);
  }
  if (failure === undefined) await summarize(nodes, view, elapsed());
}

/** Also after Ctrl-C, which is the usual way to end it. */
async function summarize(nodes: readonly DemoNode[], view: View, elapsedMs: number): Promise<void> {
  const [primary] = nodes;
  primary?.stopWriting();
  const isEven = (): boolean =>
    primary?.isDone === true && nodes.every((node) => node.rows === primary.rows);
  for (const endMs = performance.now() + CATCH_UP_TIMEOUT_MS; !isEven() && failure === undefined;) {
    if (performance.now() > endMs) return fail("the replicas did not get all rows");
    await sleep(REFRESH_MS);
  }
  if (failure !== undefined) return;
  const positions = await Promise.all(nodes.map((node) => node.check()));
  const isEqual = new Set(positions).size === 1;
  const lagsMs = nodes.flatMap((node) => (node.isPrimary ? [] : node.latenciesMs));
  const p50 = ms(percentile(lagsMs, 0.5));
  const p99 = ms(percentile(lagsMs, 0.99));
  view.message("");
  view.message(`After ${seconds(elapsedMs)}:`);
  view.message(`  rows       ${nodes.map((node) => node.rows).join(" = ")}`);
  view.message(`  checksums  ${isEqual ? `equal on all nodes at ${positions[0]}` : "DIFFER"}`);
  view.message(`  lag        p50 ${p50} ms, p99 ${p99} ms, from INSERT to a replica's SELECT`);
  view.message(`  a write on a replica gets ${nodes.at(-1)?.refusal}`);
  if (!isEqual) fail(`the databases differ: ${positions.join(", ")}`);
}

async function cleanUp(nodes: readonly DemoNode[], directory: string): Promise<void> {
  const results = await Promise.allSettled(nodes.map((node) => node.stop()));
  const errors = results.flatMap((result) =>
    result.status === "rejected" ? [String(result.reason)] : [],
  );
  // Never through a mount: that would delete databases, not files of the demo.
  if (errors.length === 0) fs.rmSync(directory, { recursive: true, force: true });
  else fail(`${directory} was not removed: ${errors.join("; ")}`);
}

/** False when the time is over, or the demo. */
async function until(condition: () => boolean, timeoutMs: number): Promise<boolean> {
  for (const endMs = performance.now() + timeoutMs; !condition();) {
    if (stop.signal.aborted || performance.now() > endMs) return false;
    await sleep(20);
  }
  return true;
}

/** Ports that the system says are free, all different. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => net.createServer());
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once("error", reject);
          server.listen(0, "127.0.0.1", () => {
            const address = server.address();
            resolve(typeof address === "object" && address !== null ? address.port : 0);
          });
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

process.exitCode = await main().catch((error: unknown) => {
  process.stderr.write(`ERROR: ${error instanceof Error ? error.message : String(error)}\n`);
  return 2;
});
