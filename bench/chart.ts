import type { Comparison } from "./compare.ts";
import { median } from "./statistics.ts";

const WIDTH = 760;
const LABELS = 330;
const BAR = 16;
const ROW = 26;
const TOP = 46;
const BOTTOM = 30;
const FONT = `font-family="system-ui, sans-serif" font-size="12"`;

/** How fast each operation is in the mount, where a plain directory is 1. Undefined without any. */
export function renderChart(comparisons: readonly Comparison[], title: string): string | undefined {
  if (comparisons.length === 0) return undefined;
  const height = TOP + comparisons.length * ROW + BOTTOM;
  const scale = WIDTH - LABELS - 60;
  const grid = [0, 0.25, 0.5, 0.75, 1].map((ratio) => {
    const x = LABELS + ratio * scale;
    const end = height - BOTTOM;
    return (
      `<line x1="${x}" y1="${TOP - 8}" x2="${x}" y2="${end}" stroke="#8886"/>` +
      `<text x="${x}" y="${end + 16}" text-anchor="middle" fill="#888" ${FONT}>${ratio}</text>`
    );
  });
  const rows = comparisons.map((comparison, i) => row(comparison, TOP + i * ROW, scale));
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img">\n` +
    `<title>${escape(title)}</title>\n` +
    `<text x="8" y="22" fill="#888" ${FONT} font-weight="bold">${escape(title)}: ` +
    `speed in the mount, a plain directory is 1; | is the target</text>\n` +
    `${[...grid, ...rows].join("\n")}\n</svg>\n`
  );
}

function row(comparison: Comparison, y: number, scale: number): string {
  const { operation, ratios, locks } = comparison;
  const ratio = median(ratios);
  const width = Math.max(1, Math.min(ratio, 1.1) * scale);
  const goal = operation.targets?.[locks]?.ratio;
  const middle = y + BAR / 2 + 4;
  const mark =
    goal === undefined
      ? ""
      : `<line x1="${LABELS + goal * scale}" y1="${y - 3}" x2="${LABELS + goal * scale}" ` +
        `y2="${y + BAR + 3}" stroke="#c33" stroke-width="2"/>`;
  return (
    `<text x="${LABELS - 8}" y="${middle}" text-anchor="end" fill="#888" ${FONT}>` +
    `${escape(operation.title)}</text>` +
    `<rect x="${LABELS}" y="${y}" width="${width.toFixed(1)}" height="${BAR}" fill="#4a7dba"/>` +
    `<text x="${(LABELS + width + 6).toFixed(1)}" y="${middle}" fill="#888" ${FONT}>` +
    `${ratio.toPrecision(2)}</text>${mark}`
  );
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
