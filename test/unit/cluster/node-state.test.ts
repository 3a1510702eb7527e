import { expect, test } from "vitest";
import { nextPhase } from "../../../src/cluster/node-state.ts";
import type { NodeEvent, NodePhase } from "../../../src/cluster/node-state.ts";

const EVENTS = ["lease-acquired", "lease-lost", "stream-opened", "stream-lost", "stop"] as const;

/** In the order of EVENTS; "-" cannot happen. */
const TABLE: Readonly<Record<NodePhase, readonly (NodePhase | "-")[]>> = {
  starting: ["primary", "-", "replica", "disconnected", "stopping"],
  replica: ["primary", "-", "-", "disconnected", "stopping"],
  primary: ["-", "disconnected", "-", "-", "stopping"],
  disconnected: ["primary", "-", "replica", "disconnected", "stopping"],
  stopping: ["stopping", "stopping", "stopping", "stopping", "stopping"],
};

const cases: [NodePhase, NodeEvent, NodePhase | "-"][] = [];
for (const phase of ["starting", "replica", "primary", "disconnected", "stopping"] as const) {
  for (const [i, event] of EVENTS.entries()) cases.push([phase, event, TABLE[phase][i] ?? "-"]);
}

test.each(cases)("%s + %s = %s", (phase, event, expected) => {
  expect(nextPhase(phase, event) ?? "-").toBe(expected);
});
