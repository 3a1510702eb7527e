import { onTestFinished } from "vitest";
import { ClusterIdStore } from "../../../src/cluster/cluster-id.ts";
import { TermStore } from "../../../src/cluster/term-store.ts";
import { EventHub } from "../../../src/cluster/events.ts";
import { openHttp2Stream } from "../../../src/cluster/replication/http2-transport.ts";
import { LoanDesk } from "../../../src/cluster/forwarding/loan-desk.ts";
import { LagTracker } from "../../../src/cluster/replication/lag.ts";
import { StreamClient } from "../../../src/cluster/replication/stream-client.ts";
import type { StreamClientOptions } from "../../../src/cluster/replication/stream-client.ts";
import type { StreamServer } from "../../../src/cluster/replication/stream-server.ts";
import type { SyncDesk } from "../../../src/cluster/sync/sync-desk.ts";
import type { NodeRole } from "../../../src/database/engine.ts";
import type { MetricsSource, NodeApi, RoleControl } from "../../../src/http/node-api.ts";
import { DatabaseImporter } from "../../../src/http/database-import.ts";
import { HttpServer } from "../../../src/http/server.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { FakeEngine } from "../../support/fake-engine.ts";
import { FakeWriteEngine } from "../../support/fake-write-engine.ts";
import { newEngine, newStreamServer, temporaryDirectory } from "./stand-ins.ts";

export const PRIMARY_ID = "00000000000000A1";
export const REPLICA_ID = "00000000000000B2";
export const CLUSTER_ID = "LFSC0123456789ABCDEF";

export interface ServedNode {
  readonly url: string;
  readonly port: number;
  readonly streams: StreamServer;
  readonly events: EventHub;
  readonly server: HttpServer;
  readonly api: NodeApi;
  role: NodeRole;
}

export interface ServedNodeOptions {
  readonly role?: NodeRole;
  readonly metrics?: MetricsSource;
  readonly prefaceTimeoutMs?: number;
  readonly writes?: FakeWriteEngine;
  readonly control?: RoleControl;
  /** Asked at each request, so that a test may change it. */
  isReady?: boolean;
  readonly importer?: DatabaseImporter;
  readonly sync?: SyncDesk;
  readonly term?: number;
}

/** A node's HTTP API on a loopback port, over a fake engine. */
export async function serveNode(
  engine: FakeEngine,
  changes: ServedNodeOptions = {},
): Promise<ServedNode> {
  const streams = newStreamServer(engine);
  const role = changes.role ?? {
    isPrimary: true,
    primaryHostname: "primary.local",
    phase: "primary",
  };
  const events = new EventHub(engine, () => node.role, silentLogger);
  const loans: LoanDesk = new LoanDesk({
    engine: changes.writes ?? new FakeWriteEngine(),
    clock: systemClock,
    log: silentLogger,
    loanMs: 30_000,
    timeoutMs: 1_000,
    isPrimary: () => node.role.isPrimary,
  });
  const api: NodeApi = {
    nodeId: PRIMARY_ID,
    hostname: "primary.local",
    leaseKind: "static",
    isCandidate: true,
    control: changes.control ?? {
      promote: () => Promise.resolve(),
      handOff: () => Promise.resolve(),
      demote: () => Promise.resolve(),
    },
    primary: () => undefined,
    leaseState: () => undefined,
    dataDirectory: "/var/lib/litefs",
    engine,
    streams,
    events,
    loans,
    sync: changes.sync,
    heldForMs: () => undefined,
    metrics: changes.metrics ?? { contentType: "text/plain", text: () => Promise.resolve("m 1\n") },
    log: silentLogger,
    importer:
      changes.importer ??
      new DatabaseImporter({ dataDirectory: "/nowhere", mountPoint: "/nowhere" }),
    clusterId: () => CLUSTER_ID,
    term: () => changes.term ?? 0,
    role: () => node.role,
    isReady: () => changes.isReady ?? true,
    lagMs: () => 0,
    fuseRequestCounts: () => ({ LOOKUP: 3, WRITE: 2 }),
  };
  const server = await HttpServer.start({
    address: { host: "127.0.0.1", port: 0 },
    node: api,
    prefaceTimeoutMs: changes.prefaceTimeoutMs ?? 10_000,
  });
  onTestFinished(() => server.close(100));
  const { port } = server.address;
  const node: ServedNode = {
    url: `http://127.0.0.1:${port}`,
    port,
    streams,
    events,
    server,
    api,
    role,
  };
  return node;
}

/** A replica's client over a fake engine, and what it has told its observer. */
export class ReplicaHarness {
  readonly engine: FakeEngine;
  readonly lag: LagTracker;
  readonly clusterId: ClusterIdStore;
  readonly terms: TermStore;
  readonly client: StreamClient;
  readonly seen: string[] = [];
  readonly stop: AbortController = new AbortController();
  readonly leave: AbortController = new AbortController();

  constructor(changes: Partial<StreamClientOptions> & { engine?: FakeEngine } = {}) {
    this.engine = changes.engine ?? newEngine();
    const clock = changes.clock ?? systemClock;
    this.lag = new LagTracker({ clock, heartbeatIntervalMs: 1000 });
    this.clusterId = ClusterIdStore.open(temporaryDirectory());
    this.terms = TermStore.open(temporaryDirectory());
    this.client = new StreamClient({
      nodeId: REPLICA_ID,
      self: { hostname: "replica.local", advertiseUrl: "http://replica:20202", isCandidate: true },
      clusterId: this.clusterId,
      terms: this.terms,
      clock,
      log: silentLogger,
      openStream: openHttp2Stream,
      filter: undefined,
      readTimeoutMs: 5000,
      maxBufferedBytes: 8 * 1024 * 1024,
      ...changes,
      engine: this.engine,
      lag: this.lag,
    });
    onTestFinished(() => this.stop.abort());
  }

  follow(url: string): ReturnType<StreamClient["follow"]> {
    const following = this.client.follow(
      url,
      {
        onConnected: () => this.seen.push("connected"),
        onReady: () => this.seen.push("ready"),
        onApplied: (database) => this.seen.push(`applied ${database}`),
      },
      this.stop.signal,
      this.leave.signal,
    );
    // Every test awaits the outcome itself; until then it must not count as unhandled.
    following.catch(() => undefined);
    return following;
  }
}
