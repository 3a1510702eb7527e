import { expect, onTestFinished, test, vi } from "vitest";
import { longestWaitMs, SiblingThreads } from "../../../src/filesystem/sibling-threads.ts";
import type { TurnRequest } from "../../../src/filesystem/write-turn-kinds.ts";

test("a process has siblings when two of its threads have asked not long ago", () => {
  vi.useFakeTimers();
  onTestFinished(() => {
    vi.useRealTimers();
  });
  const threads = new SiblingThreads();
  for (const thread of [1, 1, 1]) threads.note(10, thread);
  threads.note(11, 2);
  expect(threads.has(10)).toBe(false);
  threads.note(10, 3);
  expect(threads.has(10)).toBe(true);
  expect(threads.has(11)).toBe(false);
  vi.advanceTimersByTime(10_001);
  threads.note(10, 3);
  expect(threads.has(10)).toBe(false);
  // However many processes come and go.
  for (let owner = 0; owner < 10_000; owner++) threads.note(owner, owner);
  expect(threads.has(10)).toBe(false);
});

test("who keeps nobody from reading waits as long as it takes, others until they are sent away", () => {
  const request = (hasSiblings: boolean) => ({ hasSiblings, sinceMs: 1_000 }) as TurnRequest;
  expect(longestWaitMs(request(false), 0)).toBe(Infinity);
  expect(longestWaitMs(request(true))).toBe(500);
  expect(longestWaitMs(request(true), 1_000)).toBe(500);
  // He was sent away before, and has come back.
  expect(longestWaitMs(request(true), 900)).toBe(40);
});
