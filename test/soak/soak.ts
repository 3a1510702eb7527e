import { fork, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { TestNode } from "../support/test-node.ts";
import { svgChart, textChart } from "./chart.ts";
import { CutProxy } from "./cut-proxy.ts";
import { growthOf, heapBytesOf, logBytesOf, meanOf, sampleProcess } from "./samples.ts";
import type { Sample } from "./samples.ts";
import type { ChildMessage } from "./workload.ts";
import { PYTHON } from "../support/python-path.ts";

/*
 * npm run soak [-- --minutes N] [--svg FILE] [--pause MILLISECONDS]
 *
 * Mixed load on a primary and two replicas: writers in two languages, schema changes, VACUUM,
 * backups, databases that come and go, readers on every node that check what they see; applications
 * are killed and streams cut all the time, nodes are killed in the first half. Prints a line a minute.
 * Fails when a reader sees something wrong, when the nodes differ at the end, or when memory or
 * descriptors of a node still grow in the second half.
 */
const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "60" },
    svg: { type: "string" },
    pause: { type: "string", default: "20" },
  },
});
const MEGABYTE = 1024 * 1024;
const SAMPLE_INTERVAL_MS = 10_000;
/** What the fit may show over the second half, beyond noise. */
const MAX_GROWTH_BYTES = 24 * MEGABYTE;
const MAX_GROWTH_SHARE = 0.15;
const MAX_GROWTH_DESCRIPTORS = 6;
const SETTLE_TIMEOUT_MS = 120_000;
const CONFIG = "";

const totalMs = Number(values.minutes) * 60_000;
const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-soak-"));
const problems: string[] = [];
const samples = new Map<TestNode, Sample[]>();
const transactions = new Map<number, number>();
/** Aborted: no more work is started. */
const over = new AbortController();
let arePaused = false;
let kills = 0;
let cuts = 0;

function problem(text: string): void {
  problems.push(text);
  process.stdout.write(`PROBLEM ${text}\n`);
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

/** A process that is started again whenever it ends. */
class Application {
  readonly #start: () => ChildProcess;
  #child: ChildProcess | undefined;

  constructor(start: () => ChildProcess) {
    this.#start = start;
    this.#launch();
  }

  #launch(): void {
    const child = this.#start();
    this.#child = child;
    child.on("message", (message: ChildMessage) => {
      if (message.type === "problem") problem(message.text);
      else transactions.set(child.pid ?? 0, message.transactions);
    });
    child.once("exit", () => {
      this.#child = undefined;
      if (!over.signal.aborted) setTimeout(() => this.#relaunch(), 1000);
    });
  }

  #relaunch(): void {
    if (over.signal.aborted) return;
    if (arePaused) setTimeout(() => this.#relaunch(), 1000);
    else this.#launch();
  }

  kill(): void {
    this.#child?.kill("SIGKILL");
  }

  async ended(): Promise<void> {
    while (this.#child !== undefined) await sleep(50);
  }
}

function script(name: string, ...args: string[]): ChildProcess {
  return fork(path.join(import.meta.dirname, name), args, { stdio: ["ignore", 2, 2, "ipc"] });
}

async function sample(node: TestNode): Promise<void> {
  if (!node.isRunning) return;
  try {
    const metrics = await (await node.get("/metrics")).text();
    const list = samples.get(node) ?? [];
    list.push({
      atMs: Date.now(),
      ...sampleProcess(node.pid),
      heapBytes: heapBytesOf(metrics),
      logBytes: logBytesOf(node.dataDirectory),
    });
    samples.set(node, list);
  } catch (error) {
    // Nodes are killed while they are looked at.
    if (node.isRunning && Date.now() - startedMs > totalMs / 2)
      problem(`sampling: ${String(error)}`);
  }
}

function printMinute(minute: number, nodes: readonly TestNode[]): void {
  const total = [...transactions.values()].reduce((sum, count) => sum + count, 0);
  const cells = nodes.map((node) => {
    const last = samples.get(node)?.at(-1);
    if (last === undefined) return "-";
    const mb = (bytes: number): string => (bytes / MEGABYTE).toFixed(0);
    return `${mb(last.residentBytes)} | ${last.descriptors} | ${mb(last.heapBytes)} | ${mb(last.logBytes)}`;
  });
  process.stdout.write(`| ${minute} | ${total} | ${kills} | ${cuts} | ${cells.join(" | ")} |\n`);
}

async function databasesOf(node: TestNode): Promise<Map<string, string>> {
  const body: unknown = await (await node.get("/debug/vars")).json();
  const { store } = body as { store: { dbs: Record<string, Record<string, string>> } };
  return new Map(
    Object.entries(store.dbs).map(([name, db]) => [
      name,
      `${db["txid"]}/${db["checksum"]} ${db["status"] ?? ""}`,
    ]),
  );
}

/** All nodes stand where the primary stands, each is what its position says, and bytes are equal. */
async function compare(nodes: readonly TestNode[]): Promise<void> {
  const [primary, ...replicas] = nodes;
  if (primary === undefined) return;
  const deadline = Date.now() + SETTLE_TIMEOUT_MS;
  for (const replica of replicas) {
    for (;;) {
      const expected = await databasesOf(primary);
      const found = await databasesOf(replica);
      const differs = [...expected].filter(
        ([name, state]) => !state.startsWith("0000000000000000/") && found.get(name) !== state,
      );
      if (differs.length === 0) break;
      if (Date.now() > deadline) {
        const [name = "", state = ""] = differs[0] ?? [];
        problem(`${replica.name} has ${name} at ${found.get(name) ?? "nothing"}, not ${state}`);
        return;
      }
      await sleep(200);
    }
  }
  for (const [name, state] of await databasesOf(primary)) {
    if (!state.endsWith(" ok") || state.startsWith("0000000000000000/")) continue;
    const bytes = await primary.exportBytes(name);
    for (const node of nodes) {
      const check = await (await node.get(`/check?name=${encodeURIComponent(name)}`)).text();
      if (!/"result": "ok"/.test(check)) problem(`${node.name} ${name}: ${check.trim()}`);
      const isSame = (await node.exportBytes(name)).equals(bytes);
      if (!isSame) problem(`${node.name} ${name}: other bytes than the primary`);
    }
  }
}

/** Growth over the second half, in which no node was restarted. */
function judge(nodes: readonly TestNode[]): void {
  const fromMs = startedMs + totalMs / 2;
  for (const node of nodes) {
    const half = (samples.get(node) ?? []).filter(({ atMs }) => atMs >= fromMs);
    const mean = meanOf(half.map(({ residentBytes }) => residentBytes));
    const grown = growthOf(half, ({ residentBytes }) => residentBytes);
    const descriptors = growthOf(half, (one) => one.descriptors);
    const series = half.map(({ residentBytes }) => residentBytes / MEGABYTE);
    process.stdout.write(
      `${node.name}: mean ${(mean / MEGABYTE).toFixed(0)} MiB, fit over the second half ` +
        `${(grown / MEGABYTE).toFixed(1)} MiB, ${descriptors.toFixed(1)} descriptors ` +
        `${textChart(series)}\n`,
    );
    if (grown > Math.max(MAX_GROWTH_BYTES, mean * MAX_GROWTH_SHARE)) {
      problem(`${node.name} grows: ${(grown / MEGABYTE).toFixed(1)} MiB in the second half`);
    }
    if (descriptors > MAX_GROWTH_DESCRIPTORS) {
      problem(`${node.name} opens more and more files: ${descriptors.toFixed(1)}`);
    }
  }
}

const ports = [await freePort(), await freePort(), await freePort()];
const proxy = await CutProxy.listen(ports[0] ?? 0);
const nodes = ports.map(
  (port, i) =>
    new TestNode({
      name: `n${i}`,
      directory: path.join(directory, `n${i}`),
      port,
      config: CONFIG,
      isPrimary: i === 0,
      primaryName: "n0",
      primaryPort: i === 0 ? port : proxy.port,
      lifeMaxSeconds: Math.ceil(totalMs / 1000) + 600,
    }),
);
const [primary] = nodes;
if (primary === undefined) throw new Error("no nodes");
for (const node of nodes) {
  node.useDataConfig("retention: 1m");
  node.useDataConfig("retention-monitor-interval: 10s");
  await node.start();
}
const startedMs = Date.now();
const mount = primary.mountPoint;
const pause = values.pause;
const applications = [
  new Application(() => script("writer.ts", mount, pause)),
  new Application(() => {
    const program = path.join(import.meta.dirname, "writer.py");
    const seconds = String(Number(pause) / 200);
    return spawn(PYTHON, [program, mount, seconds], { stdio: ["ignore", 2, 2] });
  }),
  ...nodes.map((node) => new Application(() => script("reader.ts", node.mountPoint, pause))),
];
const heads = nodes.map(({ name }) => `${name} RSS MiB | fds | heap | log`).join(" | ");
process.stdout.write(`| minute | transactions | kills | cuts | ${heads} |\n`);
process.stdout.write(`|${"---|".repeat(4 + 4 * nodes.length)}\n`);

for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.once(name, () => {
    problem(`ended by ${name}`);
    over.abort();
  });
}
let minute = 0;
let nextChaosMs = startedMs + 20_000;
try {
  while (Date.now() - startedMs < totalMs && !over.signal.aborted) {
    await sleep(SAMPLE_INTERVAL_MS);
    await Promise.all(nodes.map(sample));
    if (Date.now() - startedMs >= (minute + 1) * 60_000) printMinute(++minute, nodes);
    if (Date.now() < nextChaosMs) continue;
    nextChaosMs = Date.now() + 10_000 + Math.random() * 20_000;
    await chaos();
  }
  over.abort();
  for (const application of applications) application.kill();
  for (const application of applications) await application.ended();
  await compare(nodes);
  judge(nodes);
  if (values.svg !== undefined) {
    const lines = nodes.map((node) => ({
      name: node.name,
      values: (samples.get(node) ?? []).map(({ residentBytes }) => residentBytes / MEGABYTE),
    }));
    fs.writeFileSync(
      values.svg,
      svgChart(`resident memory, MiB, ${values.minutes} minutes`, lines),
    );
  }
} finally {
  over.abort();
  for (const application of applications) application.kill();
  await Promise.all(nodes.map((node) => node.dispose()));
  proxy.close();
  if (problems.length === 0) fs.rmSync(directory, { recursive: true, force: true });
}
process.stdout.write(
  problems.length === 0 ? "no problem\n" : `${problems.length} problems; logs in ${directory}\n`,
);
process.exit(problems.length === 0 ? 0 : 1);

/** One disturbance. Nodes are killed in the first half only, so that the second can be judged. */
async function chaos(): Promise<void> {
  const roll = Math.random();
  if (roll < 0.35) {
    cuts++;
    proxy.cut();
    return;
  }
  kills++;
  const isFirstHalf = Date.now() - startedMs < totalMs / 2 - 30_000;
  if (roll < 0.7 || !isFirstHalf) {
    applications[Math.floor(Math.random() * applications.length)]?.kill();
    return;
  }
  const node = nodes[Math.floor(Math.random() * nodes.length)];
  if (node === undefined) return;
  await node.kill();
  // Whoever goes on writes into the empty directory below the mount, which is then refused.
  arePaused = true;
  for (const application of applications) application.kill();
  for (const application of applications) await application.ended();
  for (const name of fs.readdirSync(node.mountPoint)) fs.rmSync(path.join(node.mountPoint, name));
  samples.set(node, []);
  await node.start();
  arePaused = false;
}
