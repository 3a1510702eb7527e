import { expect, test } from "vitest";
import type { ScrubStep } from "../../../src/database/engine.ts";
import { Scrubber } from "../../../src/filesystem/scrubber.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { FakeDatabase } from "../../support/fake-database.ts";

const STEP_BYTES = 256 * 1024;

/** A clock that passes only by sleeping, and by the work of the engine. */
function scrubbing(stepMs: number, steps: Readonly<Record<string, readonly ScrubStep[]>>) {
  let nowMs = 0;
  const clock: Clock = {
    nowMs: () => nowMs,
    monotonicMs: () => nowMs,
    sleep: (delayMs, signal) => {
      if (signal?.aborted) return Promise.reject(new Error("aborted"));
      nowMs += delayMs;
      return Promise.resolve();
    },
  };
  const calls: string[] = [];
  const left = new Map(Object.entries(steps).map(([name, list]) => [name, [...list]]));
  const databases = new Map(Object.keys(steps).map((n) => [n, new FakeDatabase(n).state()]));
  const engine = {
    databases,
    scrub: (name: string, isFirst: boolean, maxBytes: number): Promise<ScrubStep> => {
      calls.push(`${name}${isFirst ? " from the beginning" : ""}`);
      expect(maxBytes).toBe(STEP_BYTES);
      nowMs += stepMs;
      const step = left.get(name)?.shift();
      return step === undefined ? Promise.reject(new Error("EIO")) : Promise.resolve(step);
    },
  };
  const scrubber = new Scrubber({ engine, clock, log: silentLogger, bytesPerSecond: 1024 * 1024 });
  return { scrubber, calls, elapsedMs: () => nowMs };
}

const more: ScrubStep = { kind: "more", bytes: STEP_BYTES };
const done: ScrubStep = { kind: "done", bytes: STEP_BYTES };

test("reads one database after the other, no faster than it may", async () => {
  const { scrubber, calls, elapsedMs } = scrubbing(1, { b: [more, done], a: [more, more, done] });
  await scrubber.run(new AbortController().signal);
  expect(calls).toEqual(["a from the beginning", "a", "a", "b from the beginning", "b"]);
  // Five quarters of a mebibyte at one mebibyte per second.
  expect(elapsedMs()).toBeCloseTo(1250);
});

test("gives way to load: nine tenths of the time belong to others", async () => {
  const { scrubber, elapsedMs } = scrubbing(100, { a: [more, done] });
  await scrubber.run(new AbortController().signal);
  expect(elapsedMs()).toBe(2000);
});

test("goes on with the next after damage, and after an error", async () => {
  const damaged: ScrubStep = { kind: "damaged", reason: "a bit" };
  const { scrubber, calls } = scrubbing(1, { a: [damaged], b: [], c: [done] });
  await scrubber.run(new AbortController().signal);
  expect(calls).toEqual(["a", "b", "c"].map((name) => `${name} from the beginning`));
});

test("ends when it is told to", async () => {
  const stop = new AbortController();
  const { scrubber, calls } = scrubbing(1, { a: [more, done], b: [done] });
  stop.abort();
  await scrubber.run(stop.signal);
  expect(calls).toEqual([]);
});
