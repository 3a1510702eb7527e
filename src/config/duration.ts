const NANOSECONDS_PER_UNIT: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/**
 * Go's duration syntax: numbers with units, one after the other, such as `1m30s` or `1.5h`. Only
 * `0` may do without a unit. Returns milliseconds, or undefined when the text is no duration.
 * Negative ones are refused too, since no setting means anything with them.
 */
export function parseDuration(text: string): number | undefined {
  // No number matches in two ways: with `\d+\.?\d*` a long text that is none takes for ever.
  if (/^\+?0$/.test(text)) return 0;
  if (!/^\+?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+$/.test(text)) return undefined;
  let nanoseconds = 0;
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g)) {
    nanoseconds += Number(number) * (NANOSECONDS_PER_UNIT[unit ?? ""] ?? NaN);
  }
  // Go keeps durations in 64-bit nanoseconds: nothing above 292 years.
  return nanoseconds < 2 ** 63 ? nanoseconds / 1e6 : undefined;
}
