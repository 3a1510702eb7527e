import { expect, test } from "vitest";
import { startPair, WAITS } from "./pair.ts";

test.concurrent.each([500, 740, 1_100])(
  "for %s ms: on a replica that does not catch up an application waits no longer than forward.timeout",
  async (timeoutMs) => {
    const { replica } = await startPair({ lingerMs: 1_000, timeoutMs });
    // As WriteTurns does it while the database is behind the position of the loan: nobody is granted
    // anything; the right goes back when it is recalled, and is asked for again for the one who waits.
    const denied = Promise.withResolvers<number>();
    let isDenied = false;
    const startMs = performance.now();
    replica.recallRight = () => {
      if (!isDenied) replica.tell(WAITS);
      return Promise.resolve(true);
    };
    replica.onDeny = (waitedMs) => {
      const nowMs = performance.now();
      if (nowMs - waitedMs < startMs) return;
      isDenied = true;
      denied.resolve(nowMs);
    };
    replica.tell(WAITS);
    const tookMs = (await denied.promise) - startMs;
    expect(tookMs).toBeLessThan(timeoutMs + 500);
  },
);
