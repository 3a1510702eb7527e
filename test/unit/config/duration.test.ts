import { expect, test } from "vitest";
import * as fc from "fast-check";
import { parseDuration } from "../../../src/config/duration.ts";

test.each([
  ["10s", 10_000],
  ["1m30s", 90_000],
  ["500ms", 500],
  ["1.5h", 5_400_000],
  ["100us", 0.1],
  ["100µs", 0.1],
  ["1ns", 1e-6],
  [".5s", 500],
  ["1.s", 1000],
  ["+2s", 2000],
  ["0", 0],
  ["0s", 0],
  ["2h45m30.5s", 9_930_500],
])("%s is %d ms", (text, durationMs) => {
  expect(parseDuration(text)).toBeCloseTo(durationMs, 9);
});

test.each(["", "10", "s", "1 s", "-1s", "1d", "1s2", "1..5s", ".s", "1e3s", "NaN", "9999999h"])(
  "%j is no duration",
  (text) => {
    expect(parseDuration(text)).toBeUndefined();
  },
);

test("whatever the text is, the answer is a duration or undefined", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom("0", "19", ".", "+", "-", "h", "m", "s", "u", "µ", "n") }),
      (text) => {
        const durationMs = parseDuration(text);
        expect(durationMs === undefined || durationMs >= 0).toBe(true);
      },
    ),
  );
});
