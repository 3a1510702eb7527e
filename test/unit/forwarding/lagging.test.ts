import { expect, onTestFinished, test } from "vitest";
import { Forwarder } from "../../../src/cluster/forwarding/forwarder.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { Position } from "../../../src/lib/position.ts";
import { FakeWriteEngine } from "../../support/fake-write-engine.ts";
import { serveNode } from "../cluster/node-harness.ts";
import { newEngine } from "../cluster/stand-ins.ts";

const POSITION: Position = { txid: 7, checksum: 0x8000000000000123n };
const WAITS = { type: "writer-waits", database: "app.db" } as const;

test.concurrent.each([500, 740, 1_100])(
  "for %s ms: on a replica that does not catch up an application waits no longer than forward.timeout",
  async (timeoutMs) => {
    const primary = new FakeWriteEngine();
    primary.positions.set("app.db", POSITION);
    const node = await serveNode(newEngine(), { writes: primary });
    const replica = new FakeWriteEngine();
    const forwarder = new Forwarder({
      engine: replica,
      nodeId: "00000000000000B2",
      clock: systemClock,
      log: silentLogger,
      isEnabled: true,
      lingerMs: 1_000,
      timeoutMs,
      isPrimary: () => false,
    });
    onTestFinished(() => forwarder.close());
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
    forwarder.setPrimary(node.url);
    replica.tell(WAITS);
    const tookMs = (await denied.promise) - startMs;
    expect(tookMs).toBeLessThan(timeoutMs + 500);
  },
);
