import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Backoff } from "../../../src/cluster/replication/backoff.ts";
import { ReplicaLoop } from "../../../src/cluster/replication/replica-loop.ts";
import type { StreamObserver } from "../../../src/cluster/replication/stream-client.ts";
import type { StreamEnd } from "../../../src/cluster/replication/stream-reception.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { FakeClock, settle } from "./stand-ins.ts";

type Connection = (observer: StreamObserver, signal: AbortSignal) => Promise<StreamEnd>;

const PRIMARY = { hostname: "primary.local", advertiseUrl: "http://primary:20202" };

function loopOver(connections: readonly Connection[]) {
  const clock = new FakeClock();
  const statuses: string[] = [];
  const attemptsAtMs: number[] = [];
  const startMs = clock.monotonicMs();
  const loop = new ReplicaLoop({
    pause: (delayMs, signal) => clock.sleep(delayMs, signal).catch(() => undefined),
    log: silentLogger,
    reconnectDelayMs: 1000,
    random: () => 0,
    findPrimary: () =>
      Promise.resolve(attemptsAtMs.length < connections.length ? PRIMARY : undefined),
    follow: (_url, observer, signal) => {
      const connection = connections[attemptsAtMs.length];
      attemptsAtMs.push(clock.monotonicMs() - startMs);
      if (connection === undefined) throw new Error("no such attempt");
      return connection(observer, signal);
    },
    onStatus: (status) => statuses.push(status),
    onApplied: () => undefined,
  });
  return { loop, clock, statuses, attemptsAtMs };
}

const fails: Connection = () => Promise.reject(new Error("refused"));
const worksThen =
  (end: StreamEnd): Connection =>
  (observer) => {
    observer.onConnected();
    observer.onReady();
    return Promise.resolve(end);
  };

async function runFor(clock: FakeClock, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 100) {
    await settle(5);
    clock.advance(100);
  }
  await settle(5);
}

describe("reconnecting", () => {
  test("waits twice as long after each failure, at most ten seconds", async () => {
    const { loop, clock, attemptsAtMs } = loopOver(Array.from({ length: 7 }, () => fails));
    const running = loop.run(new AbortController().signal);
    await runFor(clock, 60_000);
    await running;
    expect(attemptsAtMs).toEqual([0, 1000, 3000, 7000, 15_000, 25_000, 35_000]);
  });

  test("does not wait after a stream that worked was ended on purpose", async () => {
    const { loop, clock, attemptsAtMs } = loopOver([worksThen({ announced: true }), fails]);
    const running = loop.run(new AbortController().signal);
    await runFor(clock, 2000);
    await running;
    expect(attemptsAtMs).toEqual([0, 0]);
  });

  test("waits after a stream that ended before it worked, announced or not", async () => {
    const endsAtOnce: Connection = () => Promise.resolve({ announced: true });
    const { loop, clock, attemptsAtMs } = loopOver([endsAtOnce, fails]);
    const running = loop.run(new AbortController().signal);
    await runFor(clock, 4000);
    await running;
    expect(attemptsAtMs).toEqual([0, 1000]);
  });

  test("a stream that worked starts the waits anew", async () => {
    const { loop, clock, attemptsAtMs } = loopOver([
      fails,
      fails,
      worksThen({ announced: false }),
      fails,
    ]);
    const running = loop.run(new AbortController().signal);
    await runFor(clock, 10_000);
    await running;
    expect(attemptsAtMs).toEqual([0, 1000, 3000, 4000]);
  });

  test("reports what it is doing", async () => {
    const { loop, clock, statuses } = loopOver([worksThen({ announced: false })]);
    const running = loop.run(new AbortController().signal);
    await runFor(clock, 2000);
    await running;
    expect(statuses).toEqual(["connecting", "connected", "caught-up", "disconnected"]);
  });

  test("can be aborted while it waits and while it is connected", async () => {
    const waiting = loopOver([fails, fails]);
    const first = new AbortController();
    const running = waiting.loop.run(first.signal);
    await settle();
    first.abort();
    await running;
    expect(waiting.attemptsAtMs).toEqual([0]);
    const holds: Connection = (_observer, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => reject(new Error("aborted")));
      });
    const connected = loopOver([holds, holds]);
    const second = new AbortController();
    const following = connected.loop.run(second.signal);
    await settle();
    second.abort();
    await following;
    expect(connected.attemptsAtMs).toEqual([0]);
  });
});

test("backoff stays between three quarters and the whole of its ceiling", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 30_000 }),
      fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), { maxLength: 2000 }),
      (initialDelayMs, randoms) => {
        let at = 0;
        const backoff = new Backoff({
          initialDelayMs,
          maxDelayMs: 10_000,
          random: () => randoms[at++] ?? 0,
        });
        const ceiling = Math.max(initialDelayMs, 10_000);
        for (let i = 0; i < randoms.length; i++) {
          const delay = backoff.nextDelayMs();
          expect(delay).toBeLessThanOrEqual(ceiling);
          expect(delay).toBeGreaterThan(0.74 * Math.min(initialDelayMs, ceiling));
        }
      },
    ),
    { numRuns: 50 },
  );
});
