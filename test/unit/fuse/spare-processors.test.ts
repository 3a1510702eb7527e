import { expect, test } from "vitest";
import { allowsSpinning, SpareProcessors } from "../../../src/fuse/spare-processors.ts";

class Machine {
  idleMs = 1_000_000;
  reads = 0;
  readonly processors: SpareProcessors = new SpareProcessors(() => {
    this.reads++;
    return this.idleMs;
  });
}

test("while some processor has time, there is time to spare", () => {
  const m = new Machine();
  for (let nowMs = 10_000; nowMs < 20_000; nowMs += 50) {
    m.idleMs += 10;
    expect(m.processors.isSpare(nowMs)).toBe(true);
  }
});

test("once all are busy it stops, and tries again after a pause", () => {
  const m = new Machine();
  expect(m.processors.isSpare(10_000)).toBe(true);
  expect(m.processors.isSpare(10_249)).toBe(true);
  expect(m.processors.isSpare(10_250)).toBe(false);
  m.idleMs += 900;
  expect(m.processors.isSpare(11_249)).toBe(false);
  expect(m.processors.isSpare(11_250)).toBe(true);
  expect(m.processors.isSpare(11_500)).toBe(false);
});

test("does not read the kernel's figures for every request", () => {
  const m = new Machine();
  for (let nowMs = 10_000; nowMs < 11_000; nowMs += 0.1) {
    m.idleMs += 0.1;
    m.processors.isSpare(nowMs);
  }
  expect(m.reads).toBeLessThanOrEqual(5);
});

test("reads the idle time of this machine", () => {
  const processors = new SpareProcessors();
  // Since the machine started some processor has been idle for a tenth of the time, surely.
  expect(processors.isSpare(performance.now())).toBe(true);
});

test.each([
  [1, 1, false, false],
  [1, 8, false, false],
  [2, 2, false, true],
  [2, 2, true, false],
  [2, 8, false, false],
  [64, 64, false, true],
])("with %d of %d processors usable, a quota %s: %s", (usable, present, isLimited, expected) => {
  expect(allowsSpinning(usable, present, isLimited)).toBe(expected);
});
