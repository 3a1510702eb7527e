import type { Engine, NodePhase, NodeRole } from "../database/engine.ts";
import { assert } from "../lib/assert.ts";
import type { Clock } from "../lib/clock.ts";
import { errorText, LitefsError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { accede } from "./accession.ts";
import { announceForever } from "./announcement.ts";
import type { ClusterIdStore } from "./cluster-id.ts";
import { Election } from "./election.ts";
import type { ElectionCounters } from "./election.ts";
import { bestHeir, requireFitHeir } from "./heir.ts";
import type { Lease, LeaseProvider, Peer, PrimaryInfo } from "./lease.ts";
import { nextPhase } from "./node-state.ts";
import type { NodeEvent } from "./node-state.ts";
import { Passage } from "./passage.ts";
import { PrimaryTerm } from "./primary-term.ts";
import type { TermEnd } from "./primary-term.ts";
import type { CandidateState } from "./progress.ts";
import type { LagTracker } from "./replication/lag.ts";
import { ReplicaLoop } from "./replication/replica-loop.ts";
import type { Inheritance, ReplicaStatus } from "./replication/replica-loop.ts";
import type { StreamClient, StreamObserver } from "./replication/stream-client.ts";
import type { StreamEnd } from "./replication/stream-reception.ts";
import type { StreamSession } from "./replication/stream-session.ts";
import type { StreamServer } from "./replication/stream-server.ts";
import { followUntilSucceeded, whileNobodyIsPrimary } from "./succession.ts";
import type { TermStore } from "./term-store.ts";
import { WritePause } from "./write-pause.ts";

/** A lease that is free may be held back by the backend's lock-delay, which nobody can watch. */
const ELECTION_RETRY_MS = 100;
/** While another candidate should have it. */
const DEFERRED_RETRY_MS = 500;
/** The end of a watch is a hint that may come without reason. */
const MIN_PAUSE_MS = 20;
/** What a handoff may take before writers are let go again. */
const HANDOFF_TIMEOUT_MS = 5_000;
/** At the end of the process: the heir gets less time, and then the lease is just given up. */
const LAST_HANDOFF_TIMEOUT_MS = 2_000;
const PROMOTION_TIMEOUT_MS = 10_000;

export interface ClusterNodeOptions {
  readonly engine: Engine;
  readonly lease: LeaseProvider;
  readonly clusterId: ClusterIdStore;
  readonly terms: TermStore;
  /** 16 upper-case hex digits. */
  readonly nodeId: string;
  /** `lease.candidate`. */
  readonly isCandidate: boolean;
  readonly electorate?: number;
  readonly streams: StreamServer;
  readonly client: Pick<StreamClient, "follow" | "catchUp">;
  readonly lag: LagTracker;
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
  /** `lease.reconnect-delay`. */
  readonly reconnectDelayMs: number;
  /** `lease.demote-delay`. */
  readonly demoteDelayMs: number;
  /** Other nodes, as the HTTP API shows them. */
  readonly peers: PeerClient;
  /** Asks other nodes to give back what right to write they have, before a handoff. */
  recallLoans(): void;
  onRoleChange(role: NodeRole): void;
}

/** What a node asks of others. Everything rejects when there is no answer in time. */
export interface PeerClient {
  state(peer: Peer, timeoutMs: number): Promise<CandidateState>;
  /** Asks the primary to hand its lease to a node. */
  requestHandoff(primary: PrimaryInfo, nodeId: string, timeoutMs: number): Promise<void>;
}

export interface RoleCounters extends ElectionCounters {
  /** Terms that ended by themselves: a lost or expired lease. */
  lost: number;
  /** Leases handed to another node. */
  handedOver: number;
  /** Leases that another node handed to this one. */
  inherited: number;
}

/** One node's part in its cluster: takes the lease or follows who has it, until it is stopped. */
export class ClusterNode {
  readonly #options: ClusterNodeOptions;
  readonly #stop = new AbortController();
  readonly #replica: ReplicaLoop;
  readonly #election: Election;
  readonly #pause: WritePause;
  readonly #ready = Promise.withResolvers<void>();
  /** By database: between a transaction at its origin and its visibility here. */
  readonly #applyLatencyMs = new Map<string, number>();
  readonly #counters = { lost: 0, handedOver: 0, inherited: 0 };
  #phase: NodePhase = "starting";
  #role: NodeRole = { isPrimary: false, primaryHostname: undefined, phase: "starting" };
  #primary: PrimaryInfo | undefined;
  #replicaStatus: ReplicaStatus = "disconnected";
  #isReady = false;
  #term: PrimaryTerm | undefined;
  /** Of the term that was the last one here. */
  #lastLease: Lease | undefined;
  /** Could not be renewed in time, but may still be ours. */
  #uncertainLease: Lease | undefined;
  /** Under way; settles, whatever becomes of it. */
  #handoff: Promise<void> | undefined;
  #isStopping = false;
  #running: Promise<void> | undefined;
  /** Ends the present pause of the main loop. */
  #nudge = new AbortController();

  constructor(options: ClusterNodeOptions) {
    this.#options = options;
    const { client, clock, log, random, reconnectDelayMs, engine, peers } = options;
    this.#replica = new ReplicaLoop({
      log,
      random,
      reconnectDelayMs,
      pause: (delayMs, signal) => this.#pauseUntilChange(delayMs, signal),
      findPrimary: () => this.#findPrimary(),
      follow: (url, observer, signal) => this.#follow(url, observer, signal),
      onStatus: (status) => this.#replicaStatusChanged(status),
      onApplied: (database, latencyMs) => this.#applyLatencyMs.set(database, latencyMs),
    });
    this.#election = new Election({
      ...options,
      probe: peers.state.bind(peers),
      catchUp: ({ advertiseUrl }, databases) =>
        whileNobodyIsPrimary(options, this.#stop.signal, (signal) =>
          client.catchUp(advertiseUrl, databases, signal),
        ),
    });
    this.#pause = new WritePause({ engine, clock, log });
  }

  get phase(): NodePhase {
    return this.#phase;
  }

  get role(): NodeRole {
    return this.#role;
  }

  /** Whom this node follows, or would if it could; undefined when it is the primary itself. */
  get primary(): PrimaryInfo | undefined {
    return this.#role.isPrimary ? undefined : this.#primary;
  }

  get replicaStatus(): ReplicaStatus {
    return this.#replicaStatus;
  }

  get counters(): RoleCounters {
    return { ...this.#election.counters, ...this.#counters };
  }

  /** On the primary: since when it has the lease, and for how long from now it is covered. */
  get leaseState(): { readonly ageMs: number; readonly remainingMs: number } | undefined {
    const term = this.#term;
    if (term === undefined) return undefined;
    const nowMs = this.#options.clock.monotonicMs();
    const remainingMs = term.lease.expiresAtMonotonicMs() - nowMs;
    return { ageMs: nowMs - term.startedAtMs, remainingMs };
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
   * The lease first, so that another node can take over while this one is still tidying up: to the
   * best of the candidates if there is one. Before it goes the engine has stopped committing, or
   * two nodes might.
   */
  async stop(): Promise<void> {
    const { streams, lease, log } = this.#options;
    this.#isStopping = true;
    // The lease of a handoff under way is the heir's, and must not be given up under him.
    await this.#handoff;
    const term = this.#term;
    if (term !== undefined && !term.isOver) {
      const heir = this.#bestHeir();
      if (heir !== undefined) {
        await this.#handOff(heir, LAST_HANDOFF_TIMEOUT_MS).catch((error: unknown) => {
          log.warn("cannot hand the lease over before stopping", { error: errorText(error) });
        });
      }
    }
    await this.#pause.end().catch(() => undefined);
    this.#transition("stop");
    try {
      await this.#becomeNobody("stopping");
    } catch (error) {
      // An engine that no longer answers commits nothing either; the lease must not outlive it.
      log.error("cannot tell the engine to stop committing", { error: errorText(error) });
    }
    if (term !== undefined && !term.isOver) await this.#release(term.lease);
    term?.end("stopped");
    streams.endAll();
    this.#stop.abort();
    await this.#running;
    await lease.close();
  }

  /** Hands the lease to a replica with an open stream; resolves once it is on its way. */
  async handOff(nodeId: string): Promise<void> {
    if (this.#isStopping) throw new LitefsError("HANDOFF_REFUSED", "this node is stopping");
    await this.#handOff(nodeId, HANDOFF_TIMEOUT_MS);
  }

  /**
   * Makes this node the primary, by asking the one that is. Without one it stands for election,
   * and with `force` against all that speaks against it. Resolves when it is the primary.
   */
  async promote(options: { readonly force?: boolean } = {}): Promise<void> {
    const { isCandidate, lease, peers, nodeId } = this.#options;
    if (this.#role.isPrimary) return;
    if (!isCandidate) {
      throw new LitefsError(
        "NOT_CANDIDATE",
        "node is not a candidate: set lease.candidate to true",
      );
    }
    const primary = lease.kind === "static" ? undefined : await lease.primaryInfo();
    if (primary !== undefined && primary.advertiseUrl !== lease.advertiseUrl) {
      // It gives the lease to nodes that follow it; this one may have just changed over.
      await this.#until(() => this.#replicaStatus === "caught-up", HANDOFF_TIMEOUT_MS);
      await peers.requestHandoff(primary, nodeId, HANDOFF_TIMEOUT_MS + 1_000);
    } else {
      const reason = options.force === true ? undefined : await this.#election.refusal();
      if (reason !== undefined) {
        const cost =
          "with -force what only others have is lost to the cluster and kept aside there";
        throw new LitefsError("PROMOTION_REFUSED", `${reason}; ${cost}`);
      }
      if (options.force === true) this.#election.forceFor(PROMOTION_TIMEOUT_MS);
      this.#nudge.abort();
    }
    const isDone = await this.#until(() => this.#role.isPrimary, PROMOTION_TIMEOUT_MS);
    this.#election.endForce();
    if (isDone) return;
    throw new LitefsError("PROMOTION_FAILED", "did not become the primary within 10 s");
  }

  /** Gives the lease to another candidate, or up, and does not stand for a while. */
  async demote(): Promise<void> {
    const term = this.#requireMovableTerm();
    this.#election.standDownFor(this.#options.demoteDelayMs);
    const heir = this.#bestHeir();
    if (heir !== undefined) {
      await this.#handOff(heir, HANDOFF_TIMEOUT_MS);
      return;
    }
    await this.#becomeNobody("disconnected");
    await this.#release(term.lease);
    term.end("released");
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    await this.#options.engine.setRole(this.#role);
    const announcing = announceForever(this.#options, signal);
    while (!signal.aborted) {
      const inheritance = await this.#replica.run(signal);
      if (signal.aborted) break;
      const lease = await this.#nextLease(inheritance);
      // Stopped in the meantime: nobody else would give this lease back.
      if (signal.aborted && lease !== undefined) await this.#release(lease);
      else if (lease !== undefined) await this.#serve(lease);
      else await this.#pauseUntilChange(this.#retryDelayMs(), signal);
    }
    await announcing;
  }

  /** The lease that makes this node the primary; undefined when it has none and gets none now. */
  async #nextLease(inheritance: Inheritance | undefined): Promise<Lease | undefined> {
    const { log, lease } = this.#options;
    try {
      if (inheritance !== undefined) {
        const adopted = await lease.adopt(inheritance.leaseId);
        this.#counters.inherited += 1;
        log.info("lease taken over from the primary before");
        return adopted;
      }
      return (await this.#renewUncertain()) ?? (await this.#election.attempt());
    } catch (error) {
      log.error("cannot acquire lease, retrying", { error: errorText(error) });
      return undefined;
    }
  }

  /** The backend was away for longer than the TTL, and may have kept the lease all the same. */
  async #renewUncertain(): Promise<Lease | undefined> {
    const lease = this.#uncertainLease;
    if (lease === undefined) return undefined;
    this.#uncertainLease = undefined;
    try {
      await lease.renew();
      // Nobody has had it since, so this goes on with the term of before.
      return lease;
    } catch (error) {
      this.#options.log.info("the lease of before is gone", { error: errorText(error) });
      return undefined;
    }
  }

  async #serve(lease: Lease): Promise<void> {
    const { engine, clock, lag, log, streams, lease: provider } = this.#options;
    if (!(await this.#accede(lease))) {
      // Another candidate shall have the first go.
      await this.#pauseUntilChange(this.#options.reconnectDelayMs, this.#stop.signal);
      return;
    }
    if (this.#isStopping) {
      // `stop` has not seen this term, and nobody would end it.
      await this.#release(lease);
      return;
    }
    const term = new PrimaryTerm({
      lease,
      clock,
      log,
      setCommitDeadline: (deadlineMs) => engine.setCommitDeadline(deadlineMs),
    });
    this.#term = term;
    lag.setPrimary(true);
    this.#transition("lease-acquired");
    await this.#setRole({ isPrimary: true, primaryHostname: provider.hostname });
    log.info("primary lease acquired, advertising as", { url: provider.advertiseUrl });
    await this.#pause.end();
    this.#becomeReady();
    const end = await term.run();
    this.#term = undefined;
    if (end !== "stopped") {
      // Handed over or released, all of this has happened before the lease went.
      await this.#becomeNobody("disconnected");
      streams.endAll();
    }
    this.#countEnd(end);
    if (end === "expired") this.#uncertainLease = lease;
    lag.setPrimary(false);
    log.info("no longer the primary", { reason: end });
  }

  async #accede(lease: Lease): Promise<boolean> {
    const { log, lease: provider } = this.#options;
    try {
      await accede(this.#options, lease, lease === this.#lastLease);
      this.#lastLease = lease;
      return true;
    } catch (error) {
      // Nobody else could have a static lease, so this is the end of the node.
      if (provider.kind === "static") throw error;
      log.error("cannot serve as primary, giving the lease up", { error: errorText(error) });
      await this.#release(lease);
      return false;
    }
  }

  #countEnd(end: TermEnd): void {
    if (end === "lost" || end === "expired") this.#counters.lost += 1;
    if (end === "handed-over") this.#counters.handedOver += 1;
  }

  async #handOff(nodeId: string, timeoutMs: number): Promise<void> {
    const { clock, engine, log, peers, streams } = this.#options;
    const term = this.#requireMovableTerm();
    if (this.#handoff !== undefined) {
      throw new LitefsError("HANDOFF_REFUSED", "the lease is being handed over already");
    }
    const heir = streams.requireHeir(nodeId);
    const settled = Promise.withResolvers<void>();
    this.#handoff = settled.promise;
    const startedAtMs = clock.monotonicMs();
    try {
      const { replicas } = streams;
      const ask = peers.state.bind(peers);
      await requireFitHeir(nodeId, { replicas, databases: engine.databases, log, ask });
      await this.#passOn(term, heir, timeoutMs);
      const tookMs = Math.round(clock.monotonicMs() - startedAtMs);
      log.info("primary lease handed over", { node: nodeId, tookMs });
    } finally {
      this.#handoff = undefined;
      settled.resolve();
    }
  }

  async #passOn(term: PrimaryTerm, heir: StreamSession, timeoutMs: number): Promise<void> {
    const { engine, lease: provider } = this.#options;
    // The heir shall have a whole TTL for its first renewal.
    await term.renew();
    const paused = this.#pause.begin(timeoutMs);
    // After the pause has begun, so that nobody gets it again.
    this.#options.recallLoans();
    await paused;
    try {
      const passage = new Passage(this.#options.clock, timeoutMs);
      const sent = heir.handOff(term.lease.id, async () => {
        passage.enter();
        await this.#yieldRole(term);
      });
      await passage.through(sent);
    } catch (error) {
      // Nothing was sent, so the lease is still ours alone.
      if (!term.isOver && !this.#role.isPrimary && this.#phase === "primary") {
        await this.#setRole({ isPrimary: true, primaryHostname: provider.hostname });
      }
      await this.#pause.end();
      throw error;
    }
    term.end("handed-over");
    engine.setCommitDeadline(-Infinity);
    // Who writes here waits for the next primary to be known, but not for ever.
    this.#pause.endLater(HANDOFF_TIMEOUT_MS);
  }

  /** From here on this node commits nothing, and the lease may go. */
  async #yieldRole(term: PrimaryTerm): Promise<void> {
    if (term.isOver) throw new LitefsError("HANDOFF_FAILED", "the lease is not held any more");
    await this.#setRole({ isPrimary: false, primaryHostname: undefined });
    // It may have run out meanwhile, and then it is nobody's to give.
    if (term.isOver) throw new LitefsError("HANDOFF_FAILED", "the lease has run out");
  }

  #bestHeir(): string | undefined {
    const { engine, lease, streams } = this.#options;
    return lease.kind === "static"
      ? undefined
      : bestHeir(streams.replicas, engine.databases.keys());
  }

  #requireTerm(): PrimaryTerm {
    if (this.#term !== undefined && !this.#term.isOver) return this.#term;
    throw new LitefsError("NOT_PRIMARY", "this node is not the primary");
  }

  /** Nobody else could have a static lease: given up, it would only keep everybody from writing. */
  #requireMovableTerm(): PrimaryTerm {
    const term = this.#requireTerm();
    if (this.#options.lease.kind !== "static") return term;
    throw new LitefsError("HANDOFF_REFUSED", "a static lease cannot be handed over");
  }

  async #release(lease: Lease): Promise<void> {
    try {
      await lease.close();
    } catch (error) {
      const text = "cannot give the lease up, it will expire";
      this.#options.log.warn(text, { error: errorText(error) });
    }
  }

  /** False when it does not come true in time, or before the end. */
  async #until(isTrue: () => boolean, timeoutMs: number): Promise<boolean> {
    const { clock } = this.#options;
    const deadlineMs = clock.monotonicMs() + timeoutMs;
    while (!isTrue()) {
      if (clock.monotonicMs() > deadlineMs || this.#stop.signal.aborted) return false;
      await clock.sleep(5, this.#stop.signal).catch(() => undefined);
    }
    return true;
  }

  async #findPrimary(): Promise<PrimaryInfo | undefined> {
    const { lease, log } = this.#options;
    const found = await lease.primaryInfo();
    const isOwn = lease.kind !== "static" && found?.advertiseUrl === lease.advertiseUrl;
    if (
      isOwn &&
      this.#primary?.advertiseUrl !== found.advertiseUrl &&
      this.#handoff === undefined
    ) {
      // Common after a crash, and when two nodes advertise the same URL.
      log.info("the lease is held under the advertise-url of this node, waiting for it to end", {
        url: found.advertiseUrl,
      });
    }
    const primary = isOwn ? undefined : found;
    this.#primary = found;
    // It stays known while it cannot be reached: an application that took its absence for
    // "this node is the primary" would write to the wrong node.
    await this.#setRole({ isPrimary: false, primaryHostname: primary?.hostname });
    if (primary !== undefined) await this.#pause.end();
    return primary;
  }

  async #follow(url: string, observer: StreamObserver, stop: AbortSignal): Promise<StreamEnd> {
    const { client, terms } = this.#options;
    // A primary that tells no term, as LiteFS's, has at least the one of its lease.
    const { token = 0 } = this.#primary ?? {};
    const joining: StreamObserver = {
      ...observer,
      onReady: () => {
        terms.advanceTo(token);
        observer.onReady();
      },
    };
    return await followUntilSucceeded(this.#options, url, stop, (leave) =>
      client.follow(url, joining, stop, leave),
    );
  }

  async #becomeNobody(phase: "disconnected" | "stopping"): Promise<void> {
    if (phase === "disconnected" && this.#phase === "primary") this.#transition("lease-lost");
    if (!this.#role.isPrimary) return;
    if (phase === "disconnected") {
      await this.#setRole({ isPrimary: false, primaryHostname: undefined });
      return;
    }
    this.#role = { isPrimary: false, primaryHostname: undefined, phase };
    await this.#options.engine.setRole(this.#role);
  }

  async #setRole(change: Omit<NodeRole, "phase">): Promise<void> {
    const role: NodeRole = { ...change, phase: this.#phase };
    const before = this.#role;
    const isSame =
      before.isPrimary === role.isPrimary && before.primaryHostname === role.primaryHostname;
    if (isSame && before.phase === role.phase) return;
    if (this.#stop.signal.aborted || this.#phase === "stopping") return;
    this.#role = role;
    await this.#options.engine.setRole(role);
    if (!isSame) this.#options.onRoleChange(role);
  }

  #replicaStatusChanged(status: ReplicaStatus): void {
    this.#replicaStatus = status;
    if (status === "connected") this.#transition("stream-opened");
    if (status === "caught-up") this.#becomeReady();
    if (status === "disconnected") this.#transition("stream-lost");
    // Only what applications see in `.role` changes here, which nothing waits for.
    const { isPrimary, primaryHostname } = this.#role;
    this.#setRole({ isPrimary, primaryHostname }).catch((error: unknown) => {
      this.#options.log.debug("cannot show the role", { error: errorText(error) });
    });
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

  /** A free lease is wanted soon; otherwise the next change of the lease ends the wait. */
  #retryDelayMs(): number {
    const { isCandidate, lease, reconnectDelayMs } = this.#options;
    const isFree = isCandidate && lease.kind !== "static" && this.#primary === undefined;
    if (!isFree) return reconnectDelayMs;
    return this.#election.isDeferred ? DEFERRED_RETRY_MS : ELECTION_RETRY_MS;
  }

  /** Sleeps, but not past a change of the lease. */
  async #pauseUntilChange(delayMs: number, stop: AbortSignal): Promise<void> {
    const { clock, lease } = this.#options;
    this.#nudge = new AbortController();
    const over = new AbortController();
    const signal = AbortSignal.any([stop, this.#nudge.signal, over.signal]);
    const slept = clock.sleep(delayMs, signal).catch(() => undefined);
    // A backend that cannot be watched leaves the sleep alone to end.
    const changed = lease.changed(signal).then(
      () => clock.sleep(MIN_PAUSE_MS, signal).catch(() => undefined),
      () => slept,
    );
    await Promise.race([slept, changed]);
    over.abort();
    await changed;
  }
}
