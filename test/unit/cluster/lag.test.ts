import * as fc from "fast-check";
import { expect, test } from "vitest";
import { LagTracker, NEVER_SYNCED_LAG_MS } from "../../../src/cluster/replication/lag.ts";
import { FakeClock } from "./stand-ins.ts";

type Step =
  | { readonly do: "connect" | "caught-up" | "frame" | "disconnect" | "receive" | "apply" }
  | { readonly do: "primary"; readonly is: boolean }
  | { readonly do: "wait"; readonly ms: number };

/** A tracker driven by steps, with a queue of its own. */
class Driver {
  readonly clock = new FakeClock();
  readonly lag = new LagTracker({ clock: this.clock, heartbeatIntervalMs: 1000 });
  #pending: number[] = [];

  step(step: Step): void {
    switch (step.do) {
      case "connect":
        this.lag.connected(() => this.#pending[0]);
        return;
      case "caught-up":
        this.#pending = [];
        return this.lag.caughtUp();
      case "frame":
        return this.lag.frameReceived();
      case "disconnect":
        this.lag.disconnected();
        this.#pending = [];
        return;
      case "receive":
        this.lag.frameReceived();
        this.#pending.push(this.clock.monotonicMs());
        return;
      case "apply":
        this.#pending.shift();
        return;
      case "primary":
        return this.lag.setPrimary(step.is);
      case "wait":
        return this.clock.advance(step.ms);
    }
  }
}

const NEVER = NEVER_SYNCED_LAG_MS;
const up: readonly Step[] = [{ do: "connect" }, { do: "caught-up" }];

function wait(ms: number): Step {
  return { do: "wait", ms };
}

test.each<[string, readonly Step[], number]>([
  ["never connected", [wait(5000)], NEVER],
  ["connected, initial set not applied", [{ do: "connect" }, wait(5000)], NEVER],
  ["connection lost before the initial set", [{ do: "connect" }, { do: "disconnect" }], NEVER],
  ["in sync", up, 0],
  ["in sync, one heartbeat late", [...up, wait(2000)], 0],
  ["primary silent for longer than two heartbeats", [...up, wait(2001)], 2001],
  ["heard again", [...up, wait(2001), { do: "frame" }], 0],
  ["received and not applied", [...up, { do: "receive" }, wait(700)], 700],
  ["received and applied", [...up, { do: "receive" }, wait(700), { do: "apply" }], 0],
  [
    "the oldest that is not applied counts",
    [...up, { do: "receive" }, wait(300), { do: "receive" }, wait(300), { do: "apply" }],
    300,
  ],
  ["cut off", [...up, wait(500), { do: "disconnect" }, wait(9500)], 10_000],
  ["cut off with unapplied", [...up, { do: "receive" }, wait(500), { do: "disconnect" }], 500],
  [
    "reconnected, still catching up",
    [...up, { do: "disconnect" }, wait(800), { do: "connect" }],
    800,
  ],
  ["caught up again", [...up, { do: "disconnect" }, wait(800), ...up], 0],
  ["primary", [wait(5000), { do: "primary", is: true }], 0],
  [
    "was primary",
    [{ do: "primary", is: true }, wait(10), { do: "primary", is: false }, wait(400)],
    400,
  ],
])("%s", (_what, steps, expected) => {
  const driver = new Driver();
  for (const step of steps) driver.step(step);
  expect(driver.lag.lagMs()).toBe(expected);
});

const anyStep = fc.oneof(
  fc.constantFrom<Step>(
    { do: "connect" },
    { do: "caught-up" },
    { do: "frame" },
    { do: "disconnect" },
    { do: "receive" },
    { do: "apply" },
    { do: "primary", is: true },
    { do: "primary", is: false },
  ),
  fc.nat(5000).map(wait),
);

test("is never negative, and without news it never shrinks", () => {
  fc.assert(
    fc.property(fc.array(anyStep), fc.array(fc.nat(3000)), (steps, waits) => {
      const driver = new Driver();
      for (const step of steps) driver.step(step);
      let before = driver.lag.lagMs();
      expect(before).toBeGreaterThanOrEqual(0);
      for (const ms of waits) {
        driver.step(wait(ms));
        const now = driver.lag.lagMs();
        expect(now).toBeGreaterThanOrEqual(before);
        expect(now).toBeLessThanOrEqual(NEVER);
        before = now;
      }
    }),
  );
});

test("while cut off it grows exactly as time passes", () => {
  fc.assert(
    fc.property(fc.array(anyStep), fc.nat(100_000), (steps, ms) => {
      const driver = new Driver();
      for (const step of steps) driver.step(step);
      driver.step({ do: "primary", is: false });
      driver.step({ do: "disconnect" });
      const before = driver.lag.lagMs();
      driver.step(wait(ms));
      expect(driver.lag.lagMs()).toBe(before === NEVER ? NEVER : before + ms);
    }),
  );
});
