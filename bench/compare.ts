import { setTimeout as sleep } from "node:timers/promises";
import { NodeProcess, waitUntilEqual } from "./node-process.ts";
import type { Locks, Operation } from "./operations.ts";
import { sum } from "./statistics.ts";
import { WorkerProcess } from "./worker-process.ts";

export interface Comparison {
  readonly operation: Operation;
  readonly locks: Locks;
  /** Operations per second, one sample for each round. */
  readonly native: readonly number[];
  readonly mount: readonly number[];
  readonly ratios: readonly number[];
  /** Of one operation at a time, the median: what it costs when no checkpoint comes with it. */
  readonly roundTrips: RoundTrips;
  /** Over the whole run, checkpoints and all. */
  readonly meanRoundTrips: number;
  /** Of the mount thread, for each request, in user code and in the kernel. */
  readonly cpuPerRequestUs: number | undefined;
  readonly userShare: number;
}

/** For longer than litefs keeps idle processors awake, from which native SQLite would gain as well. */
const SETTLE_MS = 350;

/** Number of requests by kind, in ascending order of the names. */
export type RoundTrips = readonly (readonly [kind: string, count: number])[];

export function countOf(roundTrips: RoundTrips): number {
  return sum(roundTrips.map(([, count]) => count));
}

export interface ComparisonPlan {
  readonly rounds: number;
  readonly roundMs: number;
  readonly singles: number;
}

/**
 * Measures an operation in a native directory and in the mount, in turn, so that whatever else the
 * machine does meets both. The ratio is taken within each round.
 */
export async function compare(
  operation: Operation,
  plan: ComparisonPlan,
  nativeDirectory: string,
  primary: NodeProcess,
  replica: NodeProcess,
): Promise<Comparison> {
  const native = new WorkerProcess();
  const mount = new WorkerProcess();
  const name = operation.name;
  await native.ask({ type: "prepare", operation: name, directory: nativeDirectory });
  await mount.ask({ type: "prepare", operation: name, directory: primary.mountPoint });
  const samples = { native: [] as number[], mount: [] as number[] };
  const totals = { operations: 0, roundTrips: 0, cpuUs: 0, userUs: 0 };

  const runNative = async (): Promise<void> => {
    await settle(primary, replica);
    const run = await native.ask({ type: "run", durationMs: plan.roundMs });
    samples.native.push((run.operations * 1e6) / run.elapsedUs);
  };
  const runMount = async (): Promise<void> => {
    await settle(primary, replica);
    const roundTrips = await primary.roundTrips();
    const cpu = primary.mountThreadTime();
    const run = await mount.ask({ type: "run", durationMs: plan.roundMs });
    const cpuAfter = primary.mountThreadTime();
    totals.roundTrips += countOf(difference(roundTrips, await primary.roundTrips()));
    totals.cpuUs += cpuAfter.totalUs - cpu.totalUs;
    totals.userUs += cpuAfter.userUs - cpu.userUs;
    totals.operations += run.operations;
    samples.mount.push((run.operations * 1e6) / run.elapsedUs);
  };
  for (let round = 0; round < plan.rounds; round++) {
    const inOrder = round % 2 === 0 ? [runNative, runMount] : [runMount, runNative];
    for (const run of inOrder) await run();
  }
  const roundTrips = await roundTripsOfOne(mount, primary, plan.singles);
  for (const worker of [native, mount]) {
    await worker.ask({ type: "close" });
    await worker.end();
  }
  return {
    operation,
    locks: NodeProcess.locks,
    native: samples.native,
    mount: samples.mount,
    ratios: samples.mount.map((rate, round) => rate / (samples.native[round] ?? Number.NaN)),
    roundTrips,
    meanRoundTrips: totals.roundTrips / totals.operations,
    // Where the kernel answers by itself, what the thread does has nothing to do with it.
    cpuPerRequestUs: countOf(roundTrips) === 0 ? undefined : totals.cpuUs / totals.roundTrips,
    userShare: Math.min(1, totals.userUs / totals.cpuUs),
  };
}

async function settle(primary: NodeProcess, replica: NodeProcess): Promise<void> {
  await waitUntilEqual(primary, replica);
  await sleep(SETTLE_MS);
}

/** Those of the operation in the middle, when they are ordered by their number. */
async function roundTripsOfOne(
  worker: WorkerProcess,
  node: NodeProcess,
  count: number,
): Promise<RoundTrips> {
  const samples: RoundTrips[] = [];
  for (let i = 0; i < count; i++) {
    const before = await node.roundTrips();
    await worker.ask({ type: "single" });
    samples.push(difference(before, await node.roundTrips()));
  }
  samples.sort((a, b) => countOf(a) - countOf(b));
  return samples[count >> 1] ?? [];
}

function difference(
  before: Readonly<Record<string, number>>,
  after: Readonly<Record<string, number>>,
): RoundTrips {
  return Object.entries(after)
    .map(([kind, count]) => [kind, count - (before[kind] ?? 0)] as const)
    .filter(([, count]) => count > 0)
    .sort(([a], [b]) => (a < b ? -1 : 1));
}
