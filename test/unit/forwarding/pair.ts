import { onTestFinished } from "vitest";
import { Forwarder } from "../../../src/cluster/forwarding/forwarder.ts";
import type { CommitEvent } from "../../../src/database/write-engine.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { Position } from "../../../src/lib/position.ts";
import { FakeWriteEngine } from "../../support/fake-write-engine.ts";
import { serveNode } from "../cluster/node-harness.ts";
import type { ServedNode } from "../cluster/node-harness.ts";
import { newEngine } from "../cluster/stand-ins.ts";

export const POSITION: Position = { txid: 7, checksum: 0x8000000000000123n };
export const NEXT: Position = { txid: 8, checksum: 0x8000000000000456n };
export const WAITS = { type: "writer-waits", database: "app.db" } as const;
export const COMMIT: CommitEvent = {
  type: "commit",
  database: "app.db",
  commit: 1,
  position: NEXT,
  ltx: Buffer.from("an LTX file"),
  path: undefined,
  isDurable: true,
};

export interface Pair {
  readonly node: ServedNode;
  /** Of the primary and of the replica. */
  readonly primary: FakeWriteEngine;
  readonly replica: FakeWriteEngine;
  readonly forwarder: Forwarder;
}

export interface PairOptions {
  readonly lingerMs?: number;
  readonly timeoutMs?: number;
  readonly isEnabled?: boolean;
}

/** A primary that lends the right to write, and a replica that knows it; both without a mount. */
export async function startPair(options: PairOptions = {}): Promise<Pair> {
  const { lingerMs = 60_000, timeoutMs = 5_000, isEnabled = true } = options;
  const primary = new FakeWriteEngine();
  primary.positions.set("app.db", POSITION);
  const node = await serveNode(newEngine(), { writes: primary });
  const replica = new FakeWriteEngine();
  const forwarder = new Forwarder({
    engine: replica,
    nodeId: "00000000000000B2",
    clock: systemClock,
    log: silentLogger,
    isEnabled,
    lingerMs,
    timeoutMs,
    isPrimary: () => false,
  });
  onTestFinished(() => forwarder.close());
  forwarder.setPrimary(node.url);
  return { node, primary, replica, forwarder };
}
