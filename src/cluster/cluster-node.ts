import type { Engine, NodeRole } from "../database/engine.ts";
import { assert } from "../lib/assert.ts";
import type { Clock } from "../lib/clock.ts";
import { errorText } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { ClusterIdStore } from "./cluster-id.ts";
import type { Lease, LeaseProvider, PrimaryInfo } from "./lease.ts";
import { nextPhase } from "./node-state.ts";
import type { NodeEvent, NodePhase } from "./node-state.ts";
import type { LagTracker } from "./replication/lag.ts";
import { ReplicaLoop } from "./replication/replica-loop.ts";
import type { ReplicaStatus } from "./replication/replica-loop.ts";
import type { StreamClient } from "./replication/stream-client.ts";
import type { StreamServer } from "./replication/stream-server.ts";

export interface ClusterNodeOptions {
  readonly engine: Engine;
  readonly lease: LeaseProvider;
  readonly clusterId: ClusterIdStore;
  readonly streams: StreamServer;
  readonly client: Pick<StreamClient, "follow">;
  readonly lag: LagTracker;
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
  /** `lease.reconnect-delay`. */
  readonly reconnectDelayMs: number;
  onRoleChange(role: NodeRole): void;
}

/** One node's part in its cluster: takes the lease or follows who has it, until it is stopped. */
export class ClusterNode {
  readonly #options: ClusterNodeOptions;
  readonly #stop = new AbortController();
  readonly #replica: ReplicaLoop;
  readonly #ready = Promise.withResolvers<void>();
  /** By database: between a transaction at its origin and its visibility here. */
  readonly #applyLatencyMs = new Map<string, number>();
  #phase: NodePhase = "starting";
  #role: NodeRole = { isPrimary: false, primaryHostname: undefined };
  #replicaStatus: ReplicaStatus = "disconnected";
  #isReady = false;
  #lease: Lease | undefined;
  #running: Promise<void> | undefined;

  constructor(options: ClusterNodeOptions) {
    this.#options = options;
    const { clock, log, random, reconnectDelayMs, client } = options;
    this.#replica = new ReplicaLoop({
      clock,
      log,
      random,
      reconnectDelayMs,
      findPrimary: () => this.#findPrimary(),
      follow: (url, observer, signal) => client.follow(url, observer, signal),
      onStatus: (status) => this.#replicaStatusChanged(status),
      onApplied: (database, latencyMs) => this.#applyLatencyMs.set(database, latencyMs),
    });
  }

  get phase(): NodePhase {
    return this.#phase;
  }

  get role(): NodeRole {
    return this.#role;
  }

  get replicaStatus(): ReplicaStatus {
    return this.#replicaStatus;
  }

  /** Resolves once the databases here are complete: at once on the primary. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  get applyLatencyMs(): ReadonlyMap<string, number> {
    return this.#applyLatencyMs;
  }

  /** Resolves after `stop`; rejects when the node cannot go on, and `ready` with it. */
  start(): Promise<void> {
    assert(this.#running === undefined, "a node is started once");
    const running = this.#run();
    // Whoever holds the result hears of the error; here it is only kept from counting twice.
    this.#running = running.catch((error: unknown) => {
      this.#ready.reject(error);
      this.#ready.promise.catch(() => undefined);
    });
    return running;
  }

  /**
   * The lease first, so that another node can take over while this one is still tidying up; but
   * before that the engine must have stopped committing, or two nodes might.
   */
  async stop(): Promise<void> {
    const { engine, streams, lease, log } = this.#options;
    const wasPrimary = this.#phase === "primary";
    this.#transition("stop");
    if (wasPrimary) {
      this.#role = { isPrimary: false, primaryHostname: undefined };
      try {
        await engine.setRole(this.#role);
      } catch (error) {
        // An engine that no longer answers commits nothing either; the lease must not outlive it.
        log.error("cannot tell the engine to stop committing", { error: errorText(error) });
      }
    }
    await this.#lease?.close();
    this.#lease = undefined;
    streams.endAll();
    this.#stop.abort();
    await this.#running;
    await lease.close();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    await this.#options.engine.setRole(this.#role);
    while (!signal.aborted) {
      await this.#replica.run(signal);
      if (signal.aborted) return;
      const lease = await this.#acquire();
      // Stopped in the meantime: nobody else would give this lease back.
      if (signal.aborted) return lease?.close();
      if (lease !== undefined) await this.#servePrimary(lease);
      else await this.#pause();
    }
  }

  async #acquire(): Promise<Lease | undefined> {
    try {
      return await this.#options.lease.acquire();
    } catch (error) {
      this.#options.log.error("cannot acquire lease, retrying", { error: errorText(error) });
      return undefined;
    }
  }

  async #servePrimary(lease: Lease): Promise<void> {
    const { clusterId, lag, log, lease: provider } = this.#options;
    // A lease that ends by itself needs renewals, which belong to its backend's issue.
    assert(lease.expiresAtMonotonicMs() === Infinity, "only a lease without end is served");
    clusterId.ensure();
    this.#lease = lease;
    lag.setPrimary(true);
    this.#transition("lease-acquired");
    await this.#setRole({ isPrimary: true, primaryHostname: provider.hostname });
    log.info("primary lease acquired, this node is the primary", {
      url: provider.advertiseUrl,
    });
    this.#becomeReady();
    await aborted(this.#stop.signal);
  }

  async #findPrimary(): Promise<PrimaryInfo | undefined> {
    const primary = await this.#options.lease.primaryInfo();
    // It stays known while it cannot be reached: an application that took its absence for
    // "this node is the primary" would write to the wrong node.
    await this.#setRole({ isPrimary: false, primaryHostname: primary?.hostname });
    return primary;
  }

  async #setRole(role: NodeRole): Promise<void> {
    const { isPrimary, primaryHostname } = this.#role;
    if (isPrimary === role.isPrimary && primaryHostname === role.primaryHostname) return;
    if (this.#stop.signal.aborted || this.#phase === "stopping") return;
    this.#role = role;
    await this.#options.engine.setRole(role);
    this.#options.onRoleChange(role);
  }

  #replicaStatusChanged(status: ReplicaStatus): void {
    this.#replicaStatus = status;
    if (status === "connected") this.#transition("stream-opened");
    if (status === "caught-up") this.#becomeReady();
    if (status === "disconnected") this.#transition("stream-lost");
  }

  #becomeReady(): void {
    this.#isReady = true;
    this.#ready.resolve();
  }

  #transition(event: NodeEvent): void {
    const phase = nextPhase(this.#phase, event);
    assert(phase !== undefined, `node event ${event} while ${this.#phase}`);
    if (phase !== this.#phase) this.#options.log.debug("node phase changed", { phase, event });
    this.#phase = phase;
  }

  async #pause(): Promise<void> {
    const { clock, reconnectDelayMs } = this.#options;
    try {
      await clock.sleep(reconnectDelayMs, this.#stop.signal);
    } catch (error) {
      if (!this.#stop.signal.aborted) throw error;
    }
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
