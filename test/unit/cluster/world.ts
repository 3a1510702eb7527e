import { onTestFinished } from "vitest";
import { ClusterIdStore } from "../../../src/cluster/cluster-id.ts";
import { ClusterNode } from "../../../src/cluster/cluster-node.ts";
import { TermStore } from "../../../src/cluster/term-store.ts";
import { progressOf } from "../../../src/cluster/progress.ts";
import { LagTracker } from "../../../src/cluster/replication/lag.ts";
import type { StreamObserver } from "../../../src/cluster/replication/stream-client.ts";
import type { StreamEnd } from "../../../src/cluster/replication/stream-reception.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { StreamParser } from "../../../src/wire/stream-parser.ts";
import { MemoryLeaseProvider, MemoryLeaseStore } from "../../support/memory-lease.ts";
import type { FakeEngine } from "../../support/fake-engine.ts";
import {
  FakeClock,
  MemorySink,
  newEngine,
  newStreamServer,
  settle,
  temporaryDirectory,
} from "./stand-ins.ts";

export const TTL_MS = 10_000;
export const CLUSTER_ID = "LFSC0123456789ABCDEF";

/** Candidates that compete for one lease, on a clock that the test moves. */
export class World {
  readonly clock: FakeClock = new FakeClock();
  readonly store: MemoryLeaseStore = new MemoryLeaseStore(this.clock);
  readonly nodes: Map<string, Candidate> = new Map<string, Candidate>();

  candidate(name: string, options: CandidateOptions = {}): Candidate {
    const candidate = new Candidate(this, name, options);
    this.nodes.set(name, candidate);
    onTestFinished(async () => {
      candidate.lease.isUnreachable = false;
      await this.untilDone(candidate.node.stop());
    });
    return candidate;
  }

  /** Time passes in small steps, and everybody gets to act in between. */
  async pass(ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += 50) {
      await settle(8);
      this.clock.advance(50);
    }
    await settle(8);
  }

  /** Time passes until the promise is settled. */
  async untilDone(work: Promise<unknown>): Promise<void> {
    const end = new AbortController();
    const done = work.then(
      () => end.abort(),
      () => end.abort(),
    );
    for (let step = 0; step < 2_000 && !end.signal.aborted; step++) {
      await settle(8);
      this.clock.advance(50);
    }
    await done;
    await work;
  }
}

export interface CandidateOptions {
  readonly isCandidate?: boolean;
  /** How many transactions it has. */
  readonly transactions?: number;
  readonly clusterId?: string;
  readonly term?: number;
  readonly demoteDelayMs?: number;
  readonly electorate?: number;
}

export class Candidate {
  readonly name: string;
  readonly node: ClusterNode;
  readonly lease: MemoryLeaseProvider;
  readonly engine: FakeEngine;
  readonly streams: ReturnType<typeof newStreamServer>;
  readonly clusterId: ClusterIdStore;
  readonly terms: TermStore;
  readonly nodeId: string;
  readonly roles: string[] = [];
  readonly handoffsAsked: string[] = [];
  /** Others cannot ask it how far it is. */
  isUnreachable = false;
  following: string | undefined;
  observer: StreamObserver | undefined;
  endStream: (end: StreamEnd) => void = () => undefined;

  constructor(world: World, name: string, options: CandidateOptions) {
    const { clock, store } = world;
    const self = { hostname: name, advertiseUrl: `http://${name}:20202` };
    this.name = name;
    this.nodeId = Buffer.from(name.padStart(8, "_")).toString("hex").toUpperCase();
    this.lease = new MemoryLeaseProvider(store, self, TTL_MS);
    this.engine = newEngine();
    const page = { pgno: 1, data: new Uint8Array(512) };
    for (let i = 0; i < (options.transactions ?? 0); i++) {
      page.data[i] = i + 1;
      this.engine.commit("app.db", [{ ...page, data: page.data.slice() }], 1);
    }
    this.streams = newStreamServer(this.engine, { clock });
    this.clusterId = ClusterIdStore.open(temporaryDirectory());
    this.terms = TermStore.open(temporaryDirectory());
    this.terms.advanceTo(options.term ?? 0);
    if (options.clusterId !== undefined) this.clusterId.adopt(options.clusterId);
    this.node = new ClusterNode({
      engine: this.engine,
      lease: this.lease,
      clusterId: this.clusterId,
      terms: this.terms,
      nodeId: this.nodeId,
      isCandidate: options.isCandidate ?? true,
      electorate: options.electorate ?? 0,
      streams: this.streams,
      client: {
        follow: (url, observer, signal, leave) => {
          this.following = url;
          this.observer = observer;
          const ended = Promise.withResolvers<StreamEnd>();
          this.endStream = ended.resolve;
          signal.addEventListener("abort", () => ended.reject(new Error("aborted")));
          leave.addEventListener("abort", () => ended.resolve({ announced: true }));
          const primary = world.nodes.get(new URL(url).hostname);
          if (primary?.lease.isUnreachable === true) ended.reject(new Error("nobody listens"));
          return ended.promise.finally(() => {
            this.following = undefined;
          });
        },
      },
      lag: new LagTracker({ clock, heartbeatIntervalMs: 1000 }),
      clock,
      log: silentLogger,
      random: () => 0,
      reconnectDelayMs: 1000,
      demoteDelayMs: options.demoteDelayMs ?? 10_000,
      peers: {
        state: ({ hostname }) => {
          const peer = world.nodes.get(hostname);
          const isThere = peer?.isUnreachable === false && peer.node.phase !== "stopping";
          if (!isThere) throw new Error("no answer");
          return Promise.resolve({
            nodeId: peer.nodeId,
            isCandidate: options.isCandidate ?? true,
            clusterId: peer.clusterId.current,
            term: peer.terms.current,
            progress: progressOf(peer.engine.databases),
          });
        },
        requestHandoff: ({ hostname }, nodeId) => {
          this.handoffsAsked.push(`${hostname} ${nodeId}`);
          return world.nodes.get(hostname)?.node.handOff(nodeId) ?? Promise.resolve();
        },
      },
      recallLoans: () => undefined,
      onRoleChange: ({ isPrimary, primaryHostname }) => {
        this.roles.push(isPrimary ? "primary" : `replica of ${primaryHostname ?? "nobody"}`);
      },
    });
  }

  get isPrimary(): boolean {
    return this.node.role.isPrimary;
  }

  /** As a candidate that is up, but slow to stand for election. */
  async announce(): Promise<void> {
    const { hostname, advertiseUrl } = this.lease;
    await this.lease.announce({ nodeId: this.nodeId, hostname, advertiseUrl });
  }

  start(): this {
    this.node.start().catch(() => undefined);
    return this;
  }

  /** Opens a stream from this primary to another node, over memory. */
  connect(replica: Candidate, isCandidate = true): MemorySink {
    const sink = new MemorySink();
    const { hostname, advertiseUrl } = replica.lease;
    const request = {
      clientNodeId: replica.nodeId,
      replica: { hostname, advertiseUrl, isCandidate },
      positions: new Map(),
      filter: undefined,
    };
    const gone = new AbortController();
    onTestFinished(() => gone.abort());
    this.streams.serve(request, sink, gone.signal).catch(() => undefined);
    return sink;
  }
}

export function framesOf(sink: MemorySink): string[] {
  const parser = new StreamParser();
  const frames: string[] = [];
  for (const frame of parser.push(sink.bytes)) {
    if (frame.type === "handoff") frames.push(`handoff ${frame.leaseId}`);
    else if (frame.type === "ready" || frame.type === "end" || frame.type === "ltx-end") {
      frames.push(frame.type);
    }
  }
  return frames;
}
