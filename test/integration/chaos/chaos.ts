import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Database from "better-sqlite3";
import { waitFor } from "../../support/cluster.ts";
import type { TestNode } from "../../support/test-node.ts";
import { Random } from "../../unit/database/support/fake-disk.ts";
import type { Backend } from "./backend.ts";
import { readBranches } from "./branches.ts";
import { ChaosCluster } from "./chaos-cluster.ts";
import { checkHistory } from "./check-history.ts";
import type { Verdict } from "./check-history.ts";
import { Clients } from "./clients.ts";
import type { FinalState } from "./history.ts";
import { Injector } from "./injector.ts";
import { planFaults } from "./plan.ts";
import { Timeline } from "./timeline.ts";

const DATABASES = [
  { name: "wal.db", mode: "WAL" },
  { name: "delete.db", mode: "DELETE" },
] as const;
const ACCOUNTS = 10;
const BALANCE = 1_000;
const SCHEMA = `
  CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
  CREATE TABLE event (
    id INTEGER PRIMARY KEY, client INTEGER, op INTEGER, part INTEGER,
    debit INTEGER, credit INTEGER, amount INTEGER, mark TEXT);
  CREATE TABLE progress (client INTEGER PRIMARY KEY, op INTEGER, rows INTEGER);
  CREATE TRIGGER count AFTER INSERT ON event BEGIN
    INSERT INTO progress VALUES (new.client, new.op, 1)
      ON CONFLICT (client) DO UPDATE SET op = new.op, rows = rows + 1;
  END;
`;
/** For all nodes to write again, and to have the same, after the last fault. */
const HEAL_TIMEOUT_MS = 90_000;
const LOOK_INTERVAL_MS = 300;
/** More than a run without any fault takes for everything around it. */
const LIFE_MARGIN_SECONDS = 400;

export interface ChaosOptions {
  readonly seed: number;
  readonly nodes: number;
  readonly lengthMs: number;
  readonly backend: Backend;
  /** How long each client rests between two operations, on average. */
  readonly pauseMs: number;
  /** Kinds of faults; all when absent. */
  readonly kinds?: readonly string[];
  readonly print: (line: string) => void;
}

export interface ChaosResult extends Verdict {
  readonly faults: number;
  readonly elections: number;
  /** Of which it is known when they began and ended. */
  readonly terms: number;
  readonly histories: number;
}

/**
 * Clients on every node write and read while the faults of a plan come and go; then the cluster is
 * let heal, and must agree on one history that fits what the clients were told. Throws when it does
 * not, with the seed, the timeline, and the place where everything was kept.
 */
export async function runChaos(options: ChaosOptions): Promise<ChaosResult> {
  const timeline = new Timeline(options.print);
  const cluster = await ChaosCluster.create({
    ...options,
    timeline,
    lifeMaxSeconds: options.lengthMs / 1000 + LIFE_MARGIN_SECONDS,
  });
  const { directory } = cluster.cluster;
  const clients = new Clients({
    directory,
    databases: DATABASES.map(({ name }) => name),
    random: new Random(options.seed),
    accounts: ACCOUNTS,
    pauseMs: options.pauseMs,
  });
  let problem: unknown;
  try {
    return await runFaults(options, cluster, clients, timeline);
  } catch (error) {
    problem = error;
    timeline.add(`failed: ${String(error)}`);
    fs.writeFileSync(path.join(directory, "timeline"), timeline.text);
    throw new Error(
      `seed ${options.seed}, ${options.nodes} nodes, ${options.lengthMs} ms; everything is in ` +
        `${directory}\n${String(error)}\n${timeline.text}`,
      { cause: error },
    );
  } finally {
    const nodesEnded = cluster.dispose(problem !== undefined);
    await Promise.all([nodesEnded, clients.stop()]);
  }
}

async function runFaults(
  options: ChaosOptions,
  cluster: ChaosCluster,
  clients: Clients,
  timeline: Timeline,
): Promise<ChaosResult> {
  await cluster.start();
  for (const { name, mode } of DATABASES) prepare(cluster.node(0), name, mode);
  const { nodes } = cluster.cluster;
  for (const node of nodes) clients.start(node);
  await untilAllWrite(clients, nodes);
  timeline.add("all nodes write");

  const plan = planFaults({ ...options, ttlMs: options.backend.ttlMs });
  await new Injector(cluster, clients, timeline).run(plan);
  timeline.add("all faults are over");
  await untilAllWrite(clients, nodes);
  timeline.add("all nodes write again");
  await clients.stop();
  if (clients.errors !== "") throw new Error(`a client failed: ${clients.errors}`);
  await cluster.cluster.verify();
  const primary = await cluster.cluster.waitForPrimary();
  const finals: FinalState[] = [];
  for (const { name } of DATABASES) finals.push(await readFinal(primary, name));
  await cluster.stop();
  timeline.add("all nodes are the same, and have ended");
  return judge(cluster, clients, finals, plan.length);
}

function judge(
  cluster: ChaosCluster,
  clients: Clients,
  finals: readonly FinalState[],
  faults: number,
): ChaosResult {
  const { nodes } = cluster.cluster;
  const branches = DATABASES.map(({ name }) => ({ name, ...readBranches(nodes, name) }));
  const histories = branches.flatMap((branch) => branch.histories);
  const elections = cluster.countElections();
  const verdict = checkHistory(
    {
      operations: clients.operations(),
      finals,
      histories,
      txids: new Map(branches.map(({ name, txids }) => [name, txids])),
      elections,
      terms: cluster.terms.terms,
    },
    { accounts: ACCOUNTS, balance: BALANCE, synchronous: new Set() },
  );
  const quarantined = nodes
    .flatMap((node) => DATABASES.map(({ name }) => node.dataFile(name, "quarantine")))
    .filter((directory) => fs.existsSync(directory));
  const problems = [
    ...branches.flatMap(({ conflicts }) => conflicts),
    ...quarantined.map((directory) => `there is a damaged database: ${directory}`),
    ...verdict.violations.map(({ text }) => text),
  ];
  if (problems.length > 0) throw new Error(problems.join("\n"));
  return {
    ...verdict,
    faults,
    elections,
    terms: cluster.terms.terms.length,
    histories: histories.length,
  };
}

function prepare(node: TestNode, name: string, mode: string): void {
  const db = new Database(node.file(name));
  try {
    db.pragma(`journal_mode = ${mode}`);
    // In one transaction: clients look at it from the first moment.
    db.transaction(() => {
      db.exec(SCHEMA);
      const add = db.prepare("INSERT INTO account VALUES (?, ?)");
      for (let id = 1; id <= ACCOUNTS; id++) add.run(id, BALANCE);
    })();
  } finally {
    db.close();
  }
}

/** A client of each database on each node is told of a write that it began after now. */
async function untilAllWrite(clients: Clients, nodes: readonly TestNode[]): Promise<void> {
  const nowUs = Number(process.hrtime.bigint() / 1000n);
  await waitFor("all nodes to write", HEAL_TIMEOUT_MS, async () => {
    // Each look reads all that the clients have told.
    await sleep(LOOK_INTERVAL_MS);
    const ended = nodes.find((node) => !node.isRunning);
    if (ended !== undefined) throw new Error(`${ended.name} has ended by itself: see its log`);
    const idle = clients.idleSince(nowUs);
    return idle.length === 0 ? undefined : `nobody writes ${idle.join(", ")}`;
  });
}

/** Read from an export: the mounts are left alone. */
async function readFinal(node: TestNode, database: string): Promise<FinalState> {
  const file = path.join(node.options.directory, `final-${database}`);
  fs.writeFileSync(file, await node.exportBytes(database));
  const db = new Database(file);
  try {
    const check: unknown = db.pragma("integrity_check", { simple: true });
    if (check !== "ok") throw new Error(`${database}: ${JSON.stringify(check)}`);
    const pairs = (sql: string): Map<number, number> =>
      new Map(db.prepare(sql).raw().all() as [number, number][]);
    const rows = db.prepare("SELECT client, op AS number, part FROM event").all();
    return {
      database,
      rows: rows as FinalState["rows"],
      accounts: pairs("SELECT id, balance FROM account"),
      moved: pairs(
        `SELECT id, sum(amount) FROM (SELECT credit AS id, amount FROM event
           UNION ALL SELECT debit, -amount FROM event) GROUP BY id`,
      ),
    };
  } finally {
    db.close();
  }
}
