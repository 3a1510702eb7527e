import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parseArgs } from "node:util";
import Database from "better-sqlite3";
import { measureAtRest } from "./at-rest.ts";
import { renderChart } from "./chart.ts";
import { measureColdScan } from "./cold-scan.ts";
import { compare } from "./compare.ts";
import { createLargeDatabase } from "./large-database.ts";
import { measureManyDatabases } from "./many-databases.ts";
import { NodeProcess, waitUntilEqual } from "./node-process.ts";
import { OPERATIONS } from "./operations.ts";
import type { Locks } from "./operations.ts";
import { measureBurst, measureForwarding, measureLag } from "./replication.ts";
import { renderReport } from "./report.ts";
import type { LargeOpen, Results } from "./report.ts";
import { measureSpeedtest } from "./speedtest.ts";
import { WorkerProcess } from "./worker-process.ts";

const USAGE = `usage: npm run bench -- [options]

  --quick          Under a minute, for a first impression.
  --only NAME      Only this measurement; may be repeated. Names:
                   ${[...OPERATIONS.map(({ name }) => name), "rest", "lag", "burst", "forward", "scan", "speedtest", "large", "many"].join(", ")}
  --locks WHO      Who keeps SQLite's locks: daemon, as by default, or kernel.
  --write          Put the tables into docs/performance.md as well.
`;

const DOCUMENT = path.join(import.meta.dirname, "../docs/performance.md");
const CHARTS = path.join(import.meta.dirname, "../docs");
const KEEPER = { daemon: "litefs", kernel: "the kernel" } as const;
const LARGE_GIB = 10;
const MANY = 50_000;

const QUICK = {
  rounds: 3,
  roundMs: 250,
  singles: 15,
  lagTransactions: 300,
  coldTransactions: 4,
  bursts: 1,
  startRounds: 1,
  restMs: 3_000,
  scanMiB: 512,
  scanRounds: 1,
  speedtestSize: 10,
} as const;
const FULL = {
  rounds: 9,
  roundMs: 700,
  singles: 101,
  lagTransactions: 2_000,
  coldTransactions: 30,
  bursts: 5,
  startRounds: 5,
  restMs: 10_000,
  scanMiB: 2_048,
  scanRounds: 3,
  speedtestSize: 100,
} as const;

type Mode = typeof QUICK | typeof FULL;

async function run(root: string, isQuick: boolean, only: ReadonlySet<string>): Promise<Results> {
  const mode = isQuick ? QUICK : FULL;
  const wants = (name: string): boolean => only.size === 0 || only.has(name);
  const wantsLong = (name: string): boolean => wants(name) && (!isQuick || only.size > 0);
  const native = path.join(root, "native");
  fs.mkdirSync(native);
  const primary = await NodeProcess.start(path.join(root, "primary"));
  const replica = await NodeProcess.start(path.join(root, "replica"), primary.port);
  const nodes = [primary, replica];
  writeOneRow(path.join(primary.mountPoint, "app.db"));
  await waitUntilEqual(primary, replica);

  const results: { -readonly [K in keyof Results]: Results[K] } = {
    mode: isQuick ? "quick" : "full",
    comparisons: [],
    bursts: [],
  };
  if (wants("rest")) results.fresh = await measureAtRest(nodes, mode.restMs);
  for (const operation of OPERATIONS) {
    if (!wants(operation.name)) continue;
    process.stderr.write(`${operation.title} …\n`);
    const comparison = await compare(operation, mode, native, primary, replica);
    results.comparisons = [...results.comparisons, comparison];
  }
  if (wants("lag")) {
    process.stderr.write("lag …\n");
    results.lag = await measureLag(primary, replica, mode.lagTransactions);
  }
  if (wants("burst")) {
    for (let i = 0; i < mode.bursts; i++) {
      process.stderr.write("burst …\n");
      results.bursts = [...results.bursts, await measureBurst(primary, replica, i, 10_000)];
    }
  }
  if (wants("forward")) {
    process.stderr.write("forward …\n");
    const { lagTransactions, coldTransactions } = mode;
    results.forwarding = await measureForwarding(
      primary,
      replica,
      lagTransactions,
      coldTransactions,
    );
  }
  if (wants("rest")) {
    await waitUntilEqual(primary, replica);
    results.afterLoad = await measureAtRest(nodes, mode.restMs);
  }
  if (wantsLong("scan")) {
    process.stderr.write("scan …\n");
    results.scan = await measureColdScan(native, primary, mode.scanMiB, mode.scanRounds);
    await waitUntilEqual(primary, replica);
  }
  if (wantsLong("speedtest")) {
    process.stderr.write("speedtest …\n");
    results.speedtest = await measureSpeedtest(native, primary, mode.speedtestSize);
  }
  await NodeProcess.stopAll();
  if (wants("large")) results.large = await measureLargeOpen(root, mode);
  if (wantsLong("many")) {
    process.stderr.write(`start with ${MANY.toLocaleString("en")} databases …\n`);
    results.many = await measureManyDatabases(root, MANY);
  }
  return results;
}

function writeOneRow(file: string): void {
  const db = new Database(file);
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT); INSERT INTO t (body) VALUES ('a')");
  db.close();
}

/** From the start of the process until the node is ready, with the page cache warm. */
async function measureLargeOpen(root: string, mode: Mode): Promise<LargeOpen> {
  process.stderr.write(`start with ${LARGE_GIB} GiB …\n`);
  createLargeDatabase(path.join(root, "large/data"), LARGE_GIB * 2 ** 30);
  let readyMs = Infinity;
  let emptyReadyMs = Infinity;
  let firstQueryMs = Infinity;
  for (let i = 0; i < mode.startRounds; i++) {
    const empty = await NodeProcess.start(path.join(root, "empty"));
    emptyReadyMs = Math.min(emptyReadyMs, empty.readyAfterMs);
    await empty.stop();
    const large = await NodeProcess.start(path.join(root, "large"));
    readyMs = Math.min(readyMs, large.readyAfterMs);
    const worker = new WorkerProcess();
    const file = path.join(large.mountPoint, "large.db");
    const queryUs = await worker.ask({ type: "first-query", file });
    firstQueryMs = Math.min(firstQueryMs, queryUs / 1_000);
    await worker.end();
    await large.stop();
  }
  return { sizeGiB: LARGE_GIB, readyMs, emptyReadyMs, firstQueryMs };
}

function writeDocument(report: string, results: Results, locks: Locks): void {
  const chart = renderChart(results.comparisons, `Locks kept by ${KEEPER[locks]}`);
  if (chart !== undefined) fs.writeFileSync(path.join(CHARTS, `bench-${locks}.svg`), chart);
  const text = fs.readFileSync(DOCUMENT, "utf8");
  const [beginMark, endMark] = [`<!-- bench ${locks}: begin -->`, `<!-- bench ${locks}: end -->`];
  const begin = text.indexOf(beginMark);
  const end = text.indexOf(endMark);
  if (begin < 0 || end < begin) throw new Error(`${DOCUMENT} lacks ${beginMark} or ${endMark}`);
  const head = text.slice(0, begin + beginMark.length);
  fs.writeFileSync(DOCUMENT, `${head}\n\n${report}\n\n${text.slice(end)}`);
}

let cleaning: Promise<void> | undefined;

/** Once, although an interrupted bench fails as well. */
function cleanUp(root: string): Promise<void> {
  cleaning ??= endEverything(root);
  return cleaning;
}

async function endEverything(root: string): Promise<void> {
  await WorkerProcess.endAll();
  await NodeProcess.stopAll();
  fs.rmSync(root, { recursive: true, force: true });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      write: { type: "boolean", default: false },
      locks: { type: "string", default: "daemon" },
      only: { type: "string", multiple: true, default: [] },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return;
  }
  if (values.locks !== "daemon" && values.locks !== "kernel") {
    throw new Error(`--locks is daemon or kernel, not "${values.locks}"`);
  }
  NodeProcess.locks = values.locks;
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-bench-"));
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.once(name, () => void cleanUp(root).finally(() => process.exit(1)));
  }
  try {
    const results = await run(root, values.quick, new Set(values.only));
    const report = renderReport(results);
    process.stdout.write(`${report}\n`);
    if (values.write) writeDocument(report, results, NodeProcess.locks);
  } finally {
    await cleanUp(root);
  }
}

await main();
