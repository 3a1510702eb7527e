import * as fs from "node:fs";
import * as path from "node:path";

/** One look at one node. */
export interface Sample {
  readonly atMs: number;
  readonly residentBytes: number;
  readonly descriptors: number;
  readonly heapBytes: number;
  readonly logBytes: number;
}

export function sampleProcess(pid: number): Pick<Sample, "residentBytes" | "descriptors"> {
  const status = fs.readFileSync(`/proc/${pid}/status`, "utf8");
  const residentBytes = Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
  return { residentBytes, descriptors: fs.readdirSync(`/proc/${pid}/fd`).length };
}

/** The JavaScript heap of the main thread, from the text of /metrics. */
export function heapBytesOf(metrics: string): number {
  return Number(/^nodejs_heap_size_used_bytes (\S+)/m.exec(metrics)?.[1] ?? 0);
}

/** All segments of all databases. Files may go while they are counted. */
export function logBytesOf(dataDirectory: string): number {
  let bytes = 0;
  for (const file of fs.globSync("dbs/*/log/*.seg", { cwd: dataDirectory })) {
    bytes += fs.statSync(path.join(dataDirectory, file), { throwIfNoEntry: false })?.size ?? 0;
  }
  return bytes;
}

/** How much a value grows over the samples, by the line that fits them best (least squares). */
export function growthOf(samples: readonly Sample[], value: (sample: Sample) => number): number {
  if (samples.length < 2) return 0;
  const times = samples.map(({ atMs }) => atMs);
  const values = samples.map(value);
  const meanTime = meanOf(times);
  const meanValue = meanOf(values);
  let covariance = 0;
  let variance = 0;
  for (const [i, time] of times.entries()) {
    covariance += (time - meanTime) * ((values[i] ?? 0) - meanValue);
    variance += (time - meanTime) ** 2;
  }
  if (variance === 0) return 0;
  return (covariance / variance) * ((times.at(-1) ?? 0) - (times[0] ?? 0));
}

export function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}
