const WIDTH = 640;
const HEIGHT = 160;
const COLORS = ["#1f77b4", "#d62728", "#2ca02c"];

export interface Line {
  readonly name: string;
  readonly values: readonly number[];
}

/** Lines over the same time, from zero, with their names and last values. */
export function svgChart(title: string, lines: readonly Line[]): string {
  const highest = Math.max(1, ...lines.flatMap(({ values }) => values)) * 1.1;
  const paths = lines.map(({ name, values }, i) => {
    const points = values.map((value, at) => {
      const x = (at / Math.max(1, values.length - 1)) * WIDTH;
      return `${x.toFixed(1)},${(HEIGHT - (value / highest) * HEIGHT).toFixed(1)}`;
    });
    const color = COLORS[i % COLORS.length];
    const label = `${name} ${values.at(-1)?.toFixed(0) ?? ""}`;
    return (
      `<polyline fill="none" stroke="${color}" points="${points.join(" ")}"/>` +
      `<text x="8" y="${32 + i * 14}" fill="${color}">${label}</text>`
    );
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<text x="8" y="16">${title}</text>`,
    ...paths,
    "</svg>\n",
  ].join("\n");
}

const BARS = "▁▂▃▄▅▆▇█";

/** The same in one line of text. */
export function textChart(values: readonly number[]): string {
  const highest = Math.max(1, ...values);
  return values
    .map((value) => BARS[Math.min(BARS.length - 1, Math.floor((value / highest) * BARS.length))])
    .join("");
}
