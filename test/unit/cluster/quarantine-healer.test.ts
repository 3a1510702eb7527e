import { describe, expect, onTestFinished, test } from "vitest";
import {
  HealingDelays,
  QuarantineHealer,
} from "../../../src/cluster/replication/quarantine-healer.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { FakeDatabase } from "../../support/fake-database.ts";
import { FakeClock, newEngine, settle } from "./stand-ins.ts";

function watching(options: { quarantinedBefore?: boolean; filter?: ReadonlySet<string> } = {}) {
  const engine = newEngine();
  const database = engine.database("app.db");
  if (options.quarantinedBefore === true) database.status = "quarantined";
  engine.touch("app.db");
  const clock = new FakeClock();
  const reconnected: string[] = [];
  const discarded = new Set<string>();
  const healer = new QuarantineHealer({
    engine,
    clock,
    log: silentLogger,
    filter: options.filter,
    delays: new HealingDelays(),
    isDiscarding: (name) => discarded.has(name),
    reconnect: (name) => reconnected.push(name),
  });
  onTestFinished(() => healer.close());
  const set = async (status: "ok" | "quarantined"): Promise<void> => {
    database.status = status;
    engine.touch("app.db");
    await settle(5);
  };
  const pass = async (ms: number): Promise<void> => {
    clock.advance(ms);
    await settle(5);
  };
  return { database, healer, discarded, reconnected, set, pass };
}

describe("a replica with a quarantined database", () => {
  test("asks for a new copy a moment later, once", async () => {
    const { reconnected, set, pass } = watching();
    await set("quarantined");
    await set("quarantined");
    await pass(999);
    expect(reconnected).toEqual([]);
    await pass(1);
    await pass(60_000);
    expect(reconnected).toEqual(["app.db"]);
  });

  test("gives the disk time to work again, and then needs no copy", async () => {
    const { database, reconnected, set, pass } = watching();
    database.isDiskFailure = true;
    await set("quarantined");
    await pass(14_000);
    await set("ok");
    await pass(60_000);
    expect(reconnected).toEqual([]);
  });

  test("connects anew for what was dropped meanwhile", async () => {
    const { healer, discarded, reconnected, set, pass } = watching();
    await set("quarantined");
    discarded.add("app.db");
    healer.quarantined("app.db");
    await set("ok");
    await pass(1_000);
    expect(reconnected).toEqual(["app.db"]);
  });

  test("waits for the copy that it has asked for, however often the disk fails meanwhile", async () => {
    const { healer, reconnected, set, pass } = watching({ quarantinedBefore: true });
    await set("quarantined");
    await pass(600_000);
    expect(reconnected).toEqual([]);
    // It has come, and could not be applied.
    healer.quarantined("app.db");
    await pass(1_000);
    expect(reconnected).toEqual(["app.db"]);
  });

  test("leaves those alone that are not replicated", async () => {
    const { reconnected, set, pass } = watching({ filter: new Set(["other.db"]) });
    await set("quarantined");
    await pass(600_000);
    expect(reconnected).toEqual([]);
  });
});

test("in vain, it waits twice as long each time, and begins anew after a quiet time", () => {
  const delays = new HealingDelays();
  const state = new FakeDatabase("app.db").state();
  let nowMs = 0;
  const waits = Array.from({ length: 11 }, () => {
    const wait = delays.next(state, nowMs);
    nowMs += wait;
    return wait / 1000;
  });
  expect(waits).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
  expect(delays.next(new FakeDatabase("other.db").state(), nowMs)).toBe(1000);
  expect(delays.next(state, nowMs + 15 * 60_000)).toBe(1000);
});
