import { expect, test } from "vitest";
import { describeFault, planFaults } from "../../integration/chaos/plan.ts";
import type { PlanOptions } from "../../integration/chaos/plan.ts";

const OPTIONS: PlanOptions = { seed: 1, nodes: 5, lengthMs: 60_000, ttlMs: 2_000 };

test("a seed decides the whole plan, and another one makes another", () => {
  expect(planFaults(OPTIONS)).toEqual(planFaults(OPTIONS));
  expect(planFaults({ ...OPTIONS, seed: 2 })).not.toEqual(planFaults(OPTIONS));
});

test("faults are in order and over at the end, and some cost a lease", () => {
  const plan = planFaults(OPTIONS);
  expect(plan.length).toBeGreaterThan(10);
  expect(plan.map(({ atMs }) => atMs)).toEqual(plan.map(({ atMs }) => atMs).sort((a, b) => a - b));
  for (const { atMs, durationMs } of plan) {
    expect(durationMs).toBeGreaterThanOrEqual(0);
    expect(atMs + durationMs).toBeLessThanOrEqual(OPTIONS.lengthMs);
  }
  expect(plan.some(({ durationMs }) => durationMs > OPTIONS.ttlMs)).toBe(true);
});

test("every kind comes, in an hour, with nodes that there are", () => {
  const plan = planFaults({ ...OPTIONS, lengthMs: 3_600_000 });
  const kinds = [...new Set(plan.map(({ fault }) => fault.kind))].sort();
  expect(kinds).toEqual([
    "clock",
    "cut",
    "isolate",
    "kill",
    "kill clients",
    "lease cut",
    "lease pause",
    "loss",
    "one-way cut",
    "pause",
    "promote",
    "refuse",
    "restart",
    "slow",
  ]);
  for (const { fault } of plan) {
    for (const name of ["node", "from", "to"]) {
      const node: unknown = Reflect.get(fault, name);
      if (node === undefined || node === "primary") continue;
      expect(node, describeFault(fault)).toBeOneOf([0, 1, 2, 3, 4]);
    }
    if ("to" in fault) expect(fault.from, describeFault(fault)).not.toBe(fault.to);
  }
});

test("a plan of some kinds has no other, and a kind that is none is an error", () => {
  const plan = planFaults({ ...OPTIONS, kinds: ["kill", "pause"] });
  expect([...new Set(plan.map(({ fault }) => fault.kind))].sort()).toEqual(["kill", "pause"]);
  expect(() => planFaults({ ...OPTIONS, kinds: ["flood"] })).toThrow(/a kind of fault is one of/);
});
