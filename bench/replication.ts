import * as path from "node:path";
import Database from "better-sqlite3";
import { waitUntilEqual } from "./node-process.ts";
import type { NodeProcess } from "./node-process.ts";
import { quantile } from "./statistics.ts";
import type { InstantsResult } from "./worker.ts";
import { WorkerProcess } from "./worker-process.ts";

const LAG_WRITE_PAUSE_US = 5_000;
const LAG_POLL_PAUSE_US = 50;
const BURST_POLL_PAUSE_US = 2_000;

export interface Lag {
  readonly transactions: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export interface Burst {
  readonly transactions: number;
  /** From before the first commit until the last row is visible on the replica. */
  readonly visiblePerSecond: number;
  /** On the primary alone. */
  readonly committedPerSecond: number;
  /** Between the first and the last row that the replica shows. */
  readonly appliedPerSecond: number;
  /** How long after the last commit the replica had everything. */
  readonly behindMs: number;
}

/** From the return of COMMIT on the primary until a reader's SELECT on the replica sees the row. */
export async function measureLag(
  primary: NodeProcess,
  replica: NodeProcess,
  transactions: number,
): Promise<Lag> {
  const { written, seen } = await writeAndWatch(primary, replica, {
    name: "lag.db",
    transactions,
    writePauseUs: LAG_WRITE_PAUSE_US,
    pollPauseUs: LAG_POLL_PAUSE_US,
  });
  // The reader may see a row before the writer has looked at its clock.
  const lags = seen.atUs.map((us, i) => Math.max(0, us - (written.atUs[i] ?? Number.NaN)) / 1_000);
  return {
    transactions,
    p50Ms: quantile(lags, 0.5),
    p99Ms: quantile(lags, 0.99),
    maxMs: quantile(lags, 1),
  };
}

/** Autocommit transactions as fast as the primary takes them. */
export async function measureBurst(
  primary: NodeProcess,
  replica: NodeProcess,
  index: number,
  transactions: number,
): Promise<Burst> {
  const { written, seen } = await writeAndWatch(primary, replica, {
    name: `burst-${index}.db`,
    transactions,
    writePauseUs: 0,
    pollPauseUs: BURST_POLL_PAUSE_US,
  });
  const lastCommitUs = written.atUs.at(-1) ?? Number.NaN;
  const firstSeenUs = seen.atUs[0] ?? Number.NaN;
  const lastSeenUs = seen.atUs.at(-1) ?? Number.NaN;
  const seenAtFirst = seen.atUs.filter((us) => us === firstSeenUs).length;
  return {
    transactions,
    visiblePerSecond: (transactions * 1e6) / (lastSeenUs - written.startUs),
    committedPerSecond: (transactions * 1e6) / (lastCommitUs - written.startUs),
    appliedPerSecond: ((transactions - seenAtFirst) * 1e6) / (lastSeenUs - firstSeenUs),
    behindMs: Math.max(0, lastSeenUs - lastCommitUs) / 1_000,
  };
}

export interface Forwarding {
  /** One transaction after the other, while the right to write stays on the replica. */
  readonly lingeringMs: readonly number[];
  /** Each long after the one before, so that the right has gone back. */
  readonly coldMs: readonly number[];
}

const COLD_PAUSE_US = 1_500_000;

/** Autocommit inserts on the replica, which the primary commits. */
export async function measureForwarding(
  primary: NodeProcess,
  replica: NodeProcess,
  transactions: number,
  coldTransactions: number,
): Promise<Forwarding> {
  const insert = async (name: string, count: number, pauseUs: number): Promise<number[]> => {
    const db = new Database(path.join(primary.mountPoint, name));
    db.pragma("journal_mode = WAL");
    db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)");
    db.close();
    await waitUntilEqual(primary, replica);
    const writer = new WorkerProcess();
    const file = path.join(replica.mountPoint, name);
    const { tookUs } = await writer.ask({ type: "write", file, count, pauseUs });
    await writer.end();
    // The first one opens the database and borrows the right.
    return tookUs.slice(1).map((us) => us / 1_000);
  };
  return {
    lingeringMs: await insert("forward.db", transactions, 0),
    coldMs: await insert("forward-cold.db", coldTransactions, COLD_PAUSE_US),
  };
}

interface Plan {
  readonly name: string;
  readonly transactions: number;
  readonly writePauseUs: number;
  readonly pollPauseUs: number;
}

async function writeAndWatch(
  primary: NodeProcess,
  replica: NodeProcess,
  plan: Plan,
): Promise<{ written: InstantsResult; seen: InstantsResult }> {
  const db = new Database(path.join(primary.mountPoint, plan.name));
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)");
  db.close();
  await waitUntilEqual(primary, replica);
  const count = plan.transactions;
  const writer = new WorkerProcess();
  const reader = new WorkerProcess();
  await reader.ask({
    type: "watch",
    file: path.join(replica.mountPoint, plan.name),
    count,
    pauseUs: plan.pollPauseUs,
  });
  const seen = reader.nextAnswer<"watch">();
  const file = path.join(primary.mountPoint, plan.name);
  const written = writer.ask({ type: "write", file, count, pauseUs: plan.writePauseUs });
  const [writerResult, readerResult] = await Promise.all([written, seen]);
  await writer.end();
  await reader.end();
  return { written: writerResult, seen: readerResult };
}
