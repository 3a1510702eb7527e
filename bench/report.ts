import type { ManyDatabases } from "./many-databases.ts";
import * as os from "node:os";
import type { AtRest } from "./at-rest.ts";
import { countOf } from "./compare.ts";
import type { Comparison } from "./compare.ts";
import type { Burst, Forwarding, Lag } from "./replication.ts";
import type { ColdScan } from "./cold-scan.ts";
import type { Speedtest } from "./speedtest.ts";
import { median, quantile } from "./statistics.ts";

export interface LargeOpen {
  readonly sizeGiB: number;
  readonly readyMs: number;
  /** The same with an empty data directory. */
  readonly emptyReadyMs: number;
  readonly firstQueryMs: number;
}

export interface Results {
  readonly mode: "quick" | "full";
  readonly comparisons: readonly Comparison[];
  readonly lag?: Lag;
  readonly bursts: readonly Burst[];
  readonly forwarding?: Forwarding;
  readonly large?: LargeOpen;
  readonly many?: ManyDatabases;
  readonly scan?: ColdScan | undefined;
  readonly speedtest?: readonly Speedtest[] | undefined;
  readonly fresh?: readonly AtRest[];
  readonly afterLoad?: readonly AtRest[];
}

export function renderReport(results: Results): string {
  const cpu = os.cpus();
  const lines = [
    `Measured ${new Date().toISOString().slice(0, 10)} (${results.mode}) on ${cpu.length} × ` +
      `${cpu[0]?.model ?? "unknown"}, Linux ${os.release()}, Node ${process.versions.node}. ` +
      "Medians, with the smallest and largest round in parentheses.",
    "",
  ];
  if (results.comparisons.length > 0) lines.push(...operationsTable(results.comparisons), "");
  lines.push(...othersTable(results));
  return lines.join("\n");
}

function operationsTable(comparisons: readonly Comparison[]): string[] {
  return [
    "| operation | native, /s | mount, /s | ratio | round trips: one, mean | mount thread, µs CPU per request (user) | of one |",
    "|---|---|---|---|---|---|---|",
    ...comparisons.map(operationRow),
  ];
}

function operationRow(c: Comparison): string {
  const { title, targets } = c.operation;
  const goal = targets?.[c.locks];
  const ratio = `${spread(c.ratios, ratioText)}${target("≥", goal?.ratio)}`;
  const kinds = c.roundTrips.map(([kind, count]) => `${count} ${kind}`).join(", ");
  const trips =
    `${countOf(c.roundTrips)}, ${c.meanRoundTrips.toFixed(2)}` + target("≤", goal?.roundTrips);
  const cpu =
    c.cpuPerRequestUs === undefined
      ? "–"
      : `${c.cpuPerRequestUs.toFixed(1)} (${(c.cpuPerRequestUs * c.userShare).toFixed(1)})`;
  const cells = [
    title,
    spread(c.native, rateText),
    spread(c.mount, rateText),
    ratio,
    trips,
    cpu,
    kinds,
  ];
  return `| ${cells.join(" | ")} |`;
}

function othersTable(results: Results): string[] {
  const rows: [string, string, string][] = [];
  const { lag, bursts, large, many, fresh, afterLoad } = results;
  if (lag !== undefined) {
    const values = [lag.p50Ms, lag.p99Ms, lag.maxMs].map((ms) => ms.toFixed(2)).join(" / ");
    rows.push(["replica's visible lag, p50 / p99 / max", `${values} ms`, "≤ 1.5 / 6 ms"]);
  }
  if (bursts.length > 0) {
    const of = (pick: (burst: Burst) => number): string => spread(bursts.map(pick), rateText);
    const count = rateText(bursts[0]?.transactions ?? 0);
    rows.push(
      [`burst of ${count}: on the replica`, `${of((b) => b.visiblePerSecond)} tx/s`, "≥ 4,000"],
      ["… committed on the primary", `${of((b) => b.committedPerSecond)} tx/s`, ""],
      ["… applied by the replica", `${of((b) => b.appliedPerSecond)} tx/s`, ""],
      ["… replica complete after the last commit", `${of((b) => b.behindMs)} ms`, ""],
    );
  }
  const { forwarding } = results;
  if (forwarding !== undefined) {
    for (const [what, ms, goal] of [
      ["insert on a replica, the right lingers", forwarding.lingeringMs, "≤ 1 ms"],
      ["insert on a replica, cold", forwarding.coldMs, "≤ 3 ms"],
    ] as const) {
      const values = [0.5, 0.99, 1].map((q) => quantile(ms, q).toFixed(2)).join(" / ");
      rows.push([`${what}: p50 / p99 / max`, `${values} ms`, goal]);
    }
  }
  const { scan } = results;
  if (scan !== undefined) {
    const [there, here] = [median(scan.nativeSeconds), median(scan.mountSeconds)];
    const value = `${(there / here).toFixed(2)} of native (${there.toFixed(2)} s, ${here.toFixed(2)} s)`;
    rows.push([`scan of ${scan.sizeMiB} MiB that are not in memory`, value, "≥ 0.8"]);
  }
  for (const { title, nativeSeconds, mountSeconds } of results.speedtest ?? []) {
    const times = `${nativeSeconds.toFixed(2)} s, ${mountSeconds.toFixed(2)} s`;
    const value = `${(mountSeconds / nativeSeconds).toFixed(2)} × native (${times})`;
    rows.push([title, value, title.endsWith("1, WAL") ? "≤ 2.5 ×, kernel locks" : ""]);
  }
  if (large !== undefined) {
    rows.push(
      [
        `start with a database of ${large.sizeGiB} GiB (with none)`,
        `${large.readyMs.toFixed(0)} ms (${large.emptyReadyMs.toFixed(0)} ms)`,
        "< 1 s",
      ],
      ["… first query after that", `${large.firstQueryMs.toFixed(1)} ms`, ""],
    );
  }
  if (many !== undefined) {
    rows.push(
      [`start with ${rateText(many.count)} databases`, `${rateText(many.readyMs)} ms`, "< 5 s"],
      ["… after a kill", `${rateText(many.killedReadyMs)} ms`, ""],
      ["… of which nothing is known", `${rateText(many.firstReadyMs)} ms`, ""],
      ["… resident memory after the former", `${many.residentMiB.toFixed(0)} MiB`, "< 300 MB"],
      ["… listing of the mount", `${many.listMs.toFixed(0)} ms`, ""],
    );
  }
  for (const [when, nodes] of [
    ["fresh", fresh],
    ["after the load", afterLoad],
  ] as const) {
    for (const [i, node] of (nodes ?? []).entries()) {
      const value = `${node.residentMiB.toFixed(0)} MiB, ${node.cpuPercent.toFixed(2)} % CPU`;
      const role = i === 0 ? "primary" : "replica";
      rows.push([`${role} at rest, ${when}`, value, "≤ 90 MB, ~0 %"]);
    }
  }
  return [
    "| measure | value | target |",
    "|---|---|---|",
    ...rows.map((r) => `| ${r.join(" | ")} |`),
  ];
}

function target(sign: string, value: number | undefined): string {
  return value === undefined ? "" : ` [${sign} ${value}]`;
}

function spread(samples: readonly number[], format: (value: number) => string): string {
  const value = format(median(samples));
  if (samples.length < 2) return value;
  return `${value} (${format(Math.min(...samples))}–${format(Math.max(...samples))})`;
}

function rateText(value: number): string {
  return Math.round(value).toLocaleString("en");
}

function ratioText(value: number): string {
  return value.toPrecision(2);
}
