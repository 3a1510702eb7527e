import type { DemoNode } from "./demo-node.ts";

const BARS = "▁▂▃▄▅▆▇█";
const SPARK_WIDTH = 24;

export interface Progress {
  readonly elapsedMs: number;
  readonly totalMs: number;
}

/** Shows how writes arrive: redrawn in place on a terminal, a line per second anywhere else. */
export class View {
  readonly #isTerminal: boolean;
  readonly #print: (text: string) => void;
  #drawnLines = 0;
  #nextLineAtMs = 0;

  constructor(isTerminal: boolean, print: (text: string) => void) {
    this.#isTerminal = isTerminal;
    this.#print = print;
  }

  message(text: string): void {
    this.#drawnLines = 0;
    this.#print(`${text}\n`);
  }

  update(nodes: readonly DemoNode[], progress: Progress): void {
    if (this.#isTerminal) this.#redraw(nodes, progress);
    else if (progress.elapsedMs >= this.#nextLineAtMs) {
      this.#nextLineAtMs = progress.elapsedMs + 1_000;
      this.#print(`${plainLine(nodes, progress)}\n`);
    }
  }

  #redraw(nodes: readonly DemoNode[], { elapsedMs, totalMs }: Progress): void {
    const lines = [
      "",
      `  \x1b[2m${seconds(elapsedMs)} of ${seconds(totalMs)}, Ctrl-C ends it now\x1b[0m`,
      "",
      `  \x1b[2m${tableLine("node", "role", "rows", "TXID", "ms", "p50", "p99")}\x1b[0m`,
      ...nodes.map((node) => `  ${nodeLine(node)}`),
      "",
    ];
    const up = this.#drawnLines > 0 ? `\x1b[${this.#drawnLines}A` : "";
    this.#print(up + lines.map((line) => `\x1b[2K${line}\n`).join(""));
    this.#drawnLines = lines.length;
  }
}

/** One row; a primary's latency is that of its INSERT, a replica's the way from there to a SELECT. */
function nodeLine(node: DemoNode): string {
  const { name, isPrimary, rows, latenciesMs } = node;
  const text = tableLine(
    name,
    isPrimary ? "primary" : "replica",
    String(rows),
    txidOf(node),
    ms(latenciesMs.at(-1)),
    ms(percentile(latenciesMs, 0.5)),
    ms(percentile(latenciesMs, 0.99)),
  );
  const color = isPrimary ? 33 : 32;
  return `${text}  \x1b[${color}m${sparkline(latenciesMs.slice(-SPARK_WIDTH))}\x1b[0m`;
}

function tableLine(...cells: readonly string[]): string {
  const widths = [8, 9, 7, 18, 8, 8, 8];
  return cells
    .map((cell, i) => (i < 2 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
    .join("");
}

function plainLine(nodes: readonly DemoNode[], { elapsedMs }: Progress): string {
  const parts = nodes.map((node) => {
    const what = node.isPrimary ? "insert" : "lag";
    const latency = ms(node.latenciesMs.at(-1));
    return `${node.name} ${node.rows} rows, TXID ${txidOf(node)}, ${what} ${latency} ms`;
  });
  return `${seconds(elapsedMs).padStart(7)} | ${parts.join(" | ")}`;
}

function txidOf(node: DemoNode): string {
  return node.position.slice(0, 16) || "-";
}

export function seconds(durationMs: number): string {
  return `${(durationMs / 1000).toFixed(1)} s`;
}

export function ms(value: number | undefined): string {
  return value === undefined ? "-" : value.toFixed(1);
}

/** The value that this share of all values does not exceed; undefined of none. */
export function percentile(values: readonly number[], share: number): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)];
}

function sparkline(values: readonly number[]): string {
  const max = Math.max(...values, 1);
  return values
    .map((value) => BARS[Math.min(BARS.length - 1, Math.floor((value / max) * BARS.length))] ?? "")
    .join("");
}
