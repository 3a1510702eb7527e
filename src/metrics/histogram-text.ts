import { HISTOGRAM_BOUNDS_MS } from "../cluster/forwarding/statistics.ts";
import type { TimeHistogram } from "../cluster/forwarding/statistics.ts";

/** A histogram in the text format of Prometheus, which wants seconds and running totals. */
export function histogramText(
  name: string,
  help: string,
  { counts, sumMs }: TimeHistogram,
): string {
  const lines = [`# HELP ${name} ${help}`, `# TYPE ${name} histogram`];
  let total = 0;
  for (const [i, count] of counts.entries()) {
    total += count;
    const boundMs = HISTOGRAM_BOUNDS_MS[i];
    const bound = boundMs === undefined ? "+Inf" : String(boundMs / 1000);
    lines.push(`${name}_bucket{le="${bound}"} ${total}`);
  }
  lines.push(`${name}_sum ${sumMs / 1000}`, `${name}_count ${total}`, "");
  return lines.join("\n");
}
