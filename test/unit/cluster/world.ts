import { Readable } from "node:stream";
import { onTestFinished } from "vitest";
import { ClusterIdStore } from "../../../src/cluster/cluster-id.ts";
import { ClusterNode } from "../../../src/cluster/cluster-node.ts";
import { TermStore } from "../../../src/cluster/term-store.ts";
import { progressOf, quarantinedOf } from "../../../src/cluster/progress.ts";
import { decodePositionMap } from "../../../src/wire/position-map.ts";
import { LagTracker } from "../../../src/cluster/replication/lag.ts";
import { StreamClient } from "../../../src/cluster/replication/stream-client.ts";
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

  /** Time passes until something is so; what reads and writes files takes real time. */
  async until(isTrue: () => boolean): Promise<void> {
    for (let step = 0; step < 2_000 && !isTrue(); step++) {
      await settle(8);
      await new Promise((resolve) => setTimeout(resolve, 1));
      this.clock.advance(50);
    }
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
  /** How many transactions it has, of app.db. */
  readonly transactions?: number;
  /** And of each other database; the same number is the same history. */
  readonly databases?: Readonly<Record<string, number>>;
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
  refusesStreams = false;
  /** Whom it asked for which databases before it stood for election. */
  readonly catchUps: string[] = [];
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
    this.commit("app.db", options.transactions ?? 0);
    for (const [file, count] of Object.entries(options.databases ?? {})) this.commit(file, count);
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
        catchUp: (url, databases, signal) => {
          this.catchUps.push(`${new URL(url).hostname} ${[...databases].join(",")}`);
          return this.#streamClient(world).catchUp(url, databases, signal);
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
            progress: progressOf(peer.engine.databases.values()),
            quarantined: quarantinedOf(peer.engine.databases.values()),
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

  /** One-page transactions, each of which changes another byte. */
  commit(database: string, count: number): void {
    const { position } = this.engine.database(database);
    const page = { pgno: 1, data: new Uint8Array(512) };
    for (let i = 0; i < position.txid + count; i++) {
      page.data[i] = i + 1;
      if (i < position.txid) continue;
      this.engine.commit(database, [{ ...page, data: page.data.slice() }], 1);
    }
  }

  /** What it asks of others it gets at once, whatever time it is. */
  #streamClient(world: World): StreamClient {
    const { hostname, advertiseUrl } = this.lease;
    return new StreamClient({
      engine: this.engine,
      nodeId: this.nodeId,
      self: { hostname, advertiseUrl, isCandidate: true },
      clusterId: this.clusterId,
      terms: this.terms,
      clock: world.clock,
      log: silentLogger,
      lag: new LagTracker({ clock: world.clock, heartbeatIntervalMs: 1000 }),
      filter: undefined,
      readTimeoutMs: 5_000,
      maxBufferedBytes: 1024 * 1024,
      openStream: async ({ primaryUrl, nodeId, body, filter, isCatchUp }) => {
        const peer = world.nodes.get(new URL(primaryUrl).hostname);
        if (peer === undefined || peer.refusesStreams) throw new Error("refused");
        const sink = new MemorySink();
        const positions = new Map(decodePositionMap(body).map((e) => [e.name, e.position]));
        const request = { clientNodeId: nodeId, replica: undefined, positions, filter, isCatchUp };
        await peer.streams.serve(request, sink, new AbortController().signal);
        return {
          status: 200,
          clusterId: peer.clusterId.current,
          term: peer.terms.current,
          body: Readable.from([sink.bytes]),
          destroy: () => undefined,
        };
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
