import { setTimeout as sleep } from "node:timers/promises";
import type { NodeProcess } from "./node-process.ts";

export interface AtRest {
  readonly residentMiB: number;
  /** Of one processor. */
  readonly cpuPercent: number;
}

export async function measureAtRest(
  nodes: readonly NodeProcess[],
  durationMs: number,
): Promise<AtRest[]> {
  const before = nodes.map((node) => node.processTimeUs());
  const startMs = performance.now();
  await sleep(durationMs);
  const elapsedUs = (performance.now() - startMs) * 1_000;
  return nodes.map((node, i) => ({
    residentMiB: node.residentBytes() / 2 ** 20,
    cpuPercent: ((node.processTimeUs() - (before[i] ?? 0)) / elapsedUs) * 100,
  }));
}
