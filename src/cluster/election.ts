import type { Engine } from "../database/engine.ts";
import type { Clock } from "../lib/clock.ts";
import { errorText, LitefsError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { ClusterIdStore } from "./cluster-id.ts";
import type { Lease, LeaseProvider, Peer } from "./lease.ts";
import { missingFrom, progressOf, transactionCount } from "./progress.ts";
import type { CandidateState } from "./progress.ts";
import type { TermStore } from "./term-store.ts";

/** A peer that takes longer to say how far it is counts as unreachable. */
export const PROBE_TIMEOUT_MS = 1_000;
/** Positions do not move without a primary, but a peer may come up. */
const PROBE_VALID_MS = 500;
/** How often the same reason for not standing is told. */
const REASON_REPEAT_MS = 10_000;
/** Of databases, in what is told. */
const MAX_NAMES = 3;

export interface ElectionOptions {
  readonly engine: Pick<Engine, "databases">;
  readonly lease: LeaseProvider;
  readonly clusterId: ClusterIdStore;
  readonly terms: Pick<TermStore, "current">;
  readonly nodeId: string;
  /** `lease.candidate`. */
  readonly isCandidate: boolean;
  /**
   * Of how many candidates this one must know how far they are, itself included, so that it cannot
   * miss what replicas have acknowledged; absent or 0 to do with those that answer.
   */
  readonly electorate?: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** Asks a peer how far it is; rejects when it does not answer in time. */
  probe(peer: Peer, timeoutMs: number): Promise<CandidateState>;
  /** Brings these databases here to where they are at a peer. */
  catchUp(peer: Peer, databases: ReadonlySet<string>): Promise<void>;
}

interface Answer {
  readonly peer: Peer;
  readonly state: CandidateState;
}

export interface ElectionCounters {
  /** Attempts to take the lease. */
  attempts: number;
  won: number;
  /** Attempts that were not made because of `refusal`. */
  deferred: number;
}

/**
 * Decides whether this node stands for election when there is no primary: not while another
 * candidate has transactions that this one lacks, since they would be lost to the cluster. Of two of
 * which each has what the other lacks, as may be with several databases, both get it first.
 */
export class Election {
  readonly counters: ElectionCounters = { attempts: 0, won: 0, deferred: 0 };
  readonly #options: ElectionOptions;
  #forcedUntilMs = -Infinity;
  #isDeferred = false;
  #notBeforeMs = -Infinity;
  #probed: { readonly atMs: number; readonly reason: string | undefined } | undefined;
  #refusing: Promise<string | undefined> | undefined;
  #told: { readonly atMs: number; readonly reason: string } | undefined;

  constructor(options: ElectionOptions) {
    this.#options = options;
  }

  /** Whether the last attempt was not made because another node should have the lease. */
  get isDeferred(): boolean {
    return this.#isDeferred;
  }

  /** For so long attempts are made whatever speaks against them. */
  forceFor(durationMs: number): void {
    this.#forcedUntilMs = this.#options.clock.monotonicMs() + durationMs;
  }

  /** Whoever forced it has given up: the next election, perhaps days later, is like any other. */
  endForce(): void {
    this.#forcedUntilMs = -Infinity;
  }

  get #isForced(): boolean {
    return this.#options.clock.monotonicMs() < this.#forcedUntilMs;
  }

  /** After a demotion somebody else shall have the first go. */
  standDownFor(delayMs: number): void {
    this.#notBeforeMs = this.#options.clock.monotonicMs() + delayMs;
  }

  /** The lease, if this node should have it and got it. */
  async attempt(): Promise<Lease | undefined> {
    const { lease, isCandidate, clock } = this.#options;
    if (!isCandidate) return undefined;
    this.#isDeferred = true;
    if (clock.monotonicMs() < this.#notBeforeMs && !this.#isForced) return undefined;
    if (lease.kind !== "static") {
      await this.#refuseForeignCluster();
      const reason = this.#isForced ? undefined : await this.refusal();
      if (reason !== undefined) {
        this.#defer(reason);
        return undefined;
      }
    }
    this.#isDeferred = false;
    this.counters.attempts += 1;
    const acquired = await lease.acquire();
    if (acquired === undefined) return undefined;
    this.counters.won += 1;
    this.endForce();
    this.#told = undefined;
    return acquired;
  }

  /** Why this node should not be the primary now, in one line; undefined when it may. */
  refusal(): Promise<string | undefined> {
    // Who asks at the same time gets the same answer: catching up is not done twice.
    this.#refusing ??= this.#currentRefusal().finally(() => {
      this.#refusing = undefined;
    });
    return this.#refusing;
  }

  async #currentRefusal(): Promise<string | undefined> {
    const { clock } = this.#options;
    const probed = this.#probed;
    if (probed !== undefined && clock.monotonicMs() - probed.atMs < PROBE_VALID_MS) {
      return probed.reason;
    }
    const reason = (await this.#emptyNode()) ?? (await this.#oppositionOf(await this.#answers()));
    this.#probed = { atMs: clock.monotonicMs(), reason };
    return reason;
  }

  /** Never, not even by force: it would mix two clusters. */
  async #refuseForeignCluster(): Promise<void> {
    const { lease, clusterId } = this.#options;
    const shared = await lease.clusterId();
    if (shared === undefined || clusterId.current === undefined) return;
    if (shared === clusterId.current) return;
    throw new LitefsError(
      "CLUSTER_ID_MISMATCH",
      `the lease belongs to cluster ${shared}, this node to ${clusterId.current}: use another lease key, or start this node with an empty data.dir`,
    );
  }

  async #emptyNode(): Promise<string | undefined> {
    const { lease, clusterId } = this.#options;
    if (clusterId.current !== undefined || (await lease.clusterId()) === undefined)
      return undefined;
    return "this node has never had the data of the cluster, which as primary it would replace by nothing";
  }

  /** What the candidates of this cluster that can be reached say of themselves. */
  async #answers(): Promise<Answer[]> {
    const { lease, nodeId, clusterId, log } = this.#options;
    const peers = (await lease.peers()).filter((peer) => peer.nodeId !== nodeId);
    const answers = await Promise.all(
      peers.map(async (peer) => {
        try {
          return { peer, state: await this.#options.probe(peer, PROBE_TIMEOUT_MS) };
        } catch (error) {
          log.debug("candidate does not answer", { peer: peer.hostname, error: errorText(error) });
          return undefined;
        }
      }),
    );
    return answers.filter((answer): answer is Answer => {
      // Behind the same address there may be another node by now.
      if (answer?.state.isCandidate !== true || answer.state.nodeId !== answer.peer.nodeId) {
        return false;
      }
      const isForeign =
        clusterId.current !== undefined && answer.state.clusterId !== clusterId.current;
      return !isForeign || answer.state.clusterId === undefined;
    });
  }

  async #oppositionOf(answers: readonly Answer[]): Promise<string | undefined> {
    const { lease, engine, clusterId, terms, electorate = 0 } = this.#options;
    const term = terms.current;
    for (const { peer, state } of answers) {
      if ((state.term ?? term) < term) continue;
      if ((state.term ?? term) > term) {
        return `${peer.hostname} has the history of term ${state.term}, this node that of term ${term}`;
      }
      const own = progressOf(engine.databases.values());
      const missing = missingFrom(own, state.progress);
      if (missing.size === 0) continue;
      if (missingFrom(state.progress, own).size === 0) return aheadBy(peer, missing);
      const failure = await this.#catchUp({ peer, state }, missing);
      if (failure !== undefined) return failure;
    }
    // One without the cluster's data knows nothing of it.
    const known = 1 + answers.filter(({ state }) => state.clusterId !== undefined).length;
    if (known >= electorate) return undefined;
    // A cluster without data has acknowledged nothing. A backend may have lost what it knew of one.
    const isNew = clusterId.current === undefined && (await lease.clusterId()) === undefined;
    if (isNew) return undefined;
    return `only ${known} of the ${electorate} candidates answer of which one must have all that replicas have acknowledged`;
  }

  /** Undefined when this node has now all that the peer had. */
  async #catchUp(
    { peer, state }: Answer,
    missing: ReadonlyMap<string, number>,
  ): Promise<string | undefined> {
    const { engine, log } = this.#options;
    log.info("getting what another candidate is ahead by before standing for election", {
      peer: peer.hostname,
      databases: [...missing.keys()].slice(0, MAX_NAMES).join(","),
    });
    try {
      await this.#options.catchUp(peer, new Set(missing.keys()));
    } catch (error) {
      return `${aheadBy(peer, missing)}, and they cannot be had: ${errorText(error)}`;
    }
    const left = missingFrom(progressOf(engine.databases.values()), state.progress);
    return left.size === 0 ? undefined : aheadBy(peer, left);
  }

  #defer(reason: string): void {
    const { clock, log } = this.#options;
    this.counters.deferred += 1;
    const nowMs = clock.monotonicMs();
    const isNew = this.#told?.reason !== reason || nowMs - this.#told.atMs >= REASON_REPEAT_MS;
    if (!isNew) return;
    this.#told = { atMs: nowMs, reason };
    log.warn("not standing for election; litefs promote -force overrides", { reason });
  }
}

function aheadBy(peer: Peer, missing: ReadonlyMap<string, number>): string {
  const names = [...missing.keys()].sort();
  const more = names.length > MAX_NAMES ? ` and ${names.length - MAX_NAMES} more` : "";
  const where = `${names.slice(0, MAX_NAMES).join(", ")}${more}`;
  return `${peer.hostname} is ahead by ${transactionCount(missing)} transactions (${where})`;
}
