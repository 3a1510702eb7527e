import type { DatabaseState } from "../database/engine.ts";

/** A metric with one value for each database, read from its state when somebody asks. */
export interface DatabaseMetric {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge";
  /** Labels besides `db`, and a value for each; undefined for no series of that database. */
  readonly series: (state: DatabaseState) => readonly Series[] | number | undefined;
}

export interface Series {
  readonly label: string;
  readonly value: number;
}

/** More databases than this are not listed one by one: 16 series each are enough for any server. */
export const MAX_LISTED_DATABASES = 5000;
/** Written between two looks at the event loop, so that streams and heartbeats go on meanwhile. */
const SLICE_DATABASES = 500;

/**
 * The Prometheus text of all of them. Not by prom-client, which keeps an object for every series
 * it has ever shown: with 50,000 databases that were 400 MB.
 */
export async function databaseSeriesText(
  metrics: readonly DatabaseMetric[],
  databases: ReadonlyMap<string, DatabaseState>,
): Promise<string> {
  const listed = latest(databases);
  let text = "";
  for (const { name, help, type, series } of metrics) {
    text += `\n# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
    for (const [i, state] of listed.entries()) {
      if (i > 0 && i % SLICE_DATABASES === 0) await new Promise((done) => setImmediate(done));
      const values = series(state);
      if (values === undefined) continue;
      const labels = `db="${escapeLabel(state.name)}"`;
      if (typeof values === "number") text += `${name}{${labels}} ${values}\n`;
      else for (const { label, value } of values) text += `${name}{${labels},${label}} ${value}\n`;
    }
  }
  return text;
}

/** All of them, or those that changed last. */
function latest(databases: ReadonlyMap<string, DatabaseState>): readonly DatabaseState[] {
  const all = [...databases.values()];
  if (all.length <= MAX_LISTED_DATABASES) return all;
  all.sort((a, b) => b.timestampMs - a.timestampMs || (a.name < b.name ? -1 : 1));
  return all.slice(0, MAX_LISTED_DATABASES);
}

function escapeLabel(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"');
}
