import { expect, test } from "vitest";
import { ClusterIdStore } from "../../../src/cluster/cluster-id.ts";
import { ClusterNode } from "../../../src/cluster/cluster-node.ts";
import { TermStore } from "../../../src/cluster/term-store.ts";
import type { Lease, LeaseProvider, PrimaryInfo } from "../../../src/cluster/lease.ts";
import { StaticLeaseProvider } from "../../../src/lease/static.ts";
import { LagTracker } from "../../../src/cluster/replication/lag.ts";
import type { StreamObserver } from "../../../src/cluster/replication/stream-client.ts";
import type { StreamEnd } from "../../../src/cluster/replication/stream-reception.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { FakeClock, newEngine, newStreamServer, settle, temporaryDirectory } from "./stand-ins.ts";

const PRIMARY = { hostname: "primary.local", advertiseUrl: "http://primary:20202" };

/** A node with a lease, a network and an engine that write down what is asked of them, in order. */
function nodeWith(lease: Partial<LeaseProvider> & { readonly isCandidate: boolean }) {
  const calls: string[] = [];
  const clock = new FakeClock();
  const engine = newEngine();
  engine.setRole = ({ isPrimary, primaryHostname, phase }) => {
    calls.push(`role ${isPrimary ? "primary" : "replica"} ${primaryHostname ?? "-"} ${phase}`);
    return Promise.resolve();
  };
  const held: Lease = {
    id: "static",
    token: 0,
    ttlMs: Infinity,
    expiresAtMonotonicMs: () => Infinity,
    renew: () => Promise.resolve(),
    close: () => {
      calls.push("lease closed");
      return Promise.resolve();
    },
  };
  const fixed = new StaticLeaseProvider({ candidate: lease.isCandidate, ...PRIMARY });
  const provider: LeaseProvider = {
    kind: "static",
    ...PRIMARY,
    adopt: () => fixed.adopt(),
    changed: (signal) => fixed.changed(signal),
    clusterId: () => fixed.clusterId(),
    claimClusterId: (id) => fixed.claimClusterId(id),
    announce: () => fixed.announce(),
    peers: () => fixed.peers(),
    acquire: () => Promise.resolve(lease.isCandidate ? held : undefined),
    primaryInfo: (): Promise<PrimaryInfo | undefined> =>
      Promise.resolve(lease.isCandidate ? undefined : PRIMARY),
    close: () => {
      calls.push("provider closed");
      return Promise.resolve();
    },
    ...lease,
  };
  const streams = newStreamServer(engine, { clock });
  const endAll = streams.endAll.bind(streams);
  streams.endAll = () => {
    calls.push("streams ended");
    endAll();
  };
  let observer: StreamObserver | undefined;
  let connection: PromiseWithResolvers<StreamEnd> | undefined;
  const clusterId = ClusterIdStore.open(temporaryDirectory());
  const node = new ClusterNode({
    engine,
    lease: provider,
    clusterId,
    terms: TermStore.open(temporaryDirectory()),
    streams,
    client: {
      follow: (_url, given, signal) => {
        observer = given;
        const opened = Promise.withResolvers<StreamEnd>();
        connection = opened;
        signal.addEventListener("abort", () => {
          calls.push("stream closed");
          opened.reject(new Error("aborted"));
        });
        return opened.promise;
      },
      catchUp: () => Promise.reject(new Error("no peers here")),
    },
    lag: new LagTracker({ clock, heartbeatIntervalMs: 1000 }),
    clock,
    log: silentLogger,
    random: () => 0,
    nodeId: "00000000000000A1",
    isCandidate: lease.isCandidate,
    reconnectDelayMs: 1000,
    demoteDelayMs: 10_000,
    peers: {
      state: () => Promise.reject(new Error("no peers here")),
      requestHandoff: () => Promise.reject(new Error("no peers here")),
    },
    recallLoans: () => undefined,
    onRoleChange: ({ isPrimary }) => calls.push(`told ${isPrimary ? "primary" : "replica"}`),
  });
  return {
    node,
    calls,
    clock,
    clusterId,
    engine,
    observer: () => observer,
    breakConnection: () => connection?.reject(new Error("broken")),
  };
}

test("a candidate with the static lease is the primary, ready at once, with a cluster id", async () => {
  const { node, calls, clusterId } = nodeWith({ isCandidate: true });
  expect(node.phase).toBe("starting");
  void node.start();
  await node.ready;
  expect(node.phase).toBe("primary");
  expect(node.role).toEqual({
    isPrimary: true,
    primaryHostname: "primary.local",
    phase: "primary",
  });
  expect(clusterId.current).toMatch(/^LFSC/);
  expect(calls).toEqual([
    "role replica - starting",
    "role primary primary.local primary",
    "told primary",
  ]);
  await node.stop();
});

test("stopping a primary: no more commits, the lease, then everything else", async () => {
  const { node, calls } = nodeWith({ isCandidate: true });
  void node.start();
  await node.ready;
  calls.length = 0;
  await node.stop();
  expect(calls).toEqual([
    "role replica - stopping",
    "lease closed",
    "streams ended",
    "provider closed",
  ]);
  expect(node.phase).toBe("stopping");
});

test("a dead engine does not keep the lease from being given up", async () => {
  const { node, calls, engine } = nodeWith({ isCandidate: true });
  void node.start();
  await node.ready;
  calls.length = 0;
  engine.setRole = () => Promise.reject(new Error("the mount thread has ended"));
  await node.stop();
  expect(calls).toEqual(["lease closed", "streams ended", "provider closed"]);
});

test("a replica is ready when its stream is, and stays ready when it breaks", async () => {
  const { node, calls, clock, observer, breakConnection } = nodeWith({ isCandidate: false });
  void node.start();
  await settle();
  expect([node.phase, node.isReady, node.replicaStatus]).toEqual(["starting", false, "connecting"]);
  observer()?.onConnected();
  expect([node.phase, node.isReady]).toEqual(["replica", false]);
  observer()?.onReady();
  await node.ready;
  observer()?.onApplied("app.db", 12);
  expect(node.applyLatencyMs.get("app.db")).toBe(12);
  breakConnection();
  await settle();
  expect([node.phase, node.isReady]).toEqual(["disconnected", true]);
  // The application must not take a primary that is out of reach for "none, so it is me".
  expect(node.role).toEqual({
    isPrimary: false,
    primaryHostname: "primary.local",
    phase: "disconnected",
  });
  clock.advance(1000);
  await settle();
  observer()?.onConnected();
  expect(node.phase).toBe("replica");
  expect(calls).toEqual([
    "role replica - starting",
    "role replica primary.local starting",
    "told replica",
    "role replica primary.local replica",
    "role replica primary.local disconnected",
    "role replica primary.local replica",
  ]);
  await node.stop();
});

test("stopping a replica closes its stream", async () => {
  const { node, calls } = nodeWith({ isCandidate: false });
  void node.start();
  await settle();
  calls.length = 0;
  await node.stop();
  expect(calls).toEqual(["streams ended", "stream closed", "provider closed"]);
});

test("a node that cannot go on says so, and can still be stopped", async () => {
  const { node, clusterId } = nodeWith({ isCandidate: true });
  clusterId.ensure = () => {
    throw new Error("disk full");
  };
  await expect(node.start()).rejects.toThrow("disk full");
  await expect(node.ready).rejects.toThrow("disk full");
  await node.stop();
});

test("a lease that cannot be had now is asked for again", async () => {
  let asked = 0;
  const { node, clock } = nodeWith({
    isCandidate: true,
    acquire: () => {
      asked += 1;
      return asked === 1 ? Promise.reject(new Error("no backend")) : Promise.resolve(undefined);
    },
  });
  void node.start();
  await settle();
  expect(asked).toBe(1);
  clock.advance(1000);
  await settle();
  expect(asked).toBe(2);
  expect(node.isReady).toBe(false);
  await node.stop();
});
