import type { Engine } from "../../database/engine.ts";
import type { SyncDuty } from "../../database/replica-waits.ts";
import type { SyncEngine } from "../../database/sync-engine.ts";
import { isSynchronous, replicasNeeded } from "../../database/sync-policy.ts";
import type { SyncPolicy } from "../../database/sync-policy.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorText } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { formatPosition, positionsEqual } from "../../lib/position.ts";
import type { Position } from "../../lib/position.ts";
import type { PositionMapEntry } from "../../wire/position-map.ts";
import { announce } from "./announced-databases.ts";

/** How the wait of a commit has ended. */
export type WaitOutcome = "acknowledged" | "timed-out" | "degraded";

export interface SyncDeskOptions {
  readonly engine: SyncEngine & Pick<Engine, "databases">;
  readonly policy: SyncPolicy;
  /** `sync.timeout`. */
  readonly timeoutMs: number;
  /** Whether others cannot be the next primary, so that what they have would not survive this one. */
  readonly countsOnlyCandidates: boolean;
  readonly clock: Clock;
  readonly log: Logger;
  isPrimary(): boolean;
  onWaited(tookMs: number, outcome: WaitOutcome): void;
}

/** A replica as its stream describes it. */
export interface SyncReplica {
  readonly isCandidate: boolean;
  /** Undefined when it follows all databases. */
  readonly filter: ReadonlySet<string> | undefined;
}

/** One replica's open channel. */
export interface AckSession {
  acknowledged(entries: readonly PositionMapEntry[]): void;
  end(): void;
}

export interface SyncStatus {
  /** Node IDs of the replicas that acknowledge. */
  readonly replicas: readonly string[];
  /** Databases that nobody may write. */
  readonly fenced: readonly string[];
  /** Databases whose commits go on without the replicas they should wait for. */
  readonly degraded: readonly string[];
}

interface Wait {
  readonly position: Position;
  readonly sinceMs: number;
}

interface DatabaseWaits {
  readonly needed: number;
  /** In the order of the history, which is how acknowledgements are told to belong to it. */
  waits: Wait[];
  isWatched: boolean;
  /** Since a timeout: up to where the replicas must be before anybody writes. */
  fence: Position | undefined;
  /** Since a timeout: they must come up to here as fast as commits would wait for them. */
  catchUp: { readonly txid: number; readonly sinceMs: number } | undefined;
}

/**
 * On the primary: which replicas have what on their disks, and which commits may be answered for it.
 *
 * A position counts only when it is known to be of this history: TXID and checksum of a commit that
 * waits, or of where the database stands. A replica that has left the history may be at any TXID.
 */
export class SyncDesk {
  readonly #options: SyncDeskOptions;
  readonly #replicas = new Map<string, Map<string, Position>>();
  readonly #databases = new Map<string, DatabaseWaits>();
  readonly #closing = new AbortController();

  constructor(options: SyncDeskOptions) {
    this.#options = options;
    options.engine.onCommitWaits((database, position) => this.#commitWaits(database, position));
  }

  /** What a replica is told when it opens its stream; undefined when nobody waits for it. */
  announcementTo(replica: SyncReplica): string | undefined {
    const { policy } = this.#options;
    return this.#counts(replica) && isSynchronous(policy) ? announce(policy) : undefined;
  }

  #counts({ isCandidate, filter }: SyncReplica): boolean {
    return filter === undefined && (isCandidate || !this.#options.countsOnlyCandidates);
  }

  /** A replica begins to tell what it has. Undefined when nobody waits for it. */
  connect(nodeId: string, replica: SyncReplica): AckSession | undefined {
    if (this.announcementTo(replica) === undefined) return undefined;
    const acknowledged = new Map<string, Position>();
    // An older channel of the same node may be dead, and nobody has noticed.
    this.#replicas.set(nodeId, acknowledged);
    this.#replicasChanged();
    return {
      acknowledged: (entries) => {
        if (this.#replicas.get(nodeId) !== acknowledged) return;
        for (const { name, position } of entries) {
          acknowledged.set(name, position);
          this.#evaluate(name);
        }
      },
      end: () => {
        if (this.#replicas.get(nodeId) !== acknowledged) return;
        this.#replicas.delete(nodeId);
        this.#replicasChanged();
      },
    };
  }

  #replicasChanged(): void {
    const { engine, policy } = this.#options;
    engine.setReplicaCount(this.#replicas.size);
    if (policy.isStrict) return;
    for (const [name, state] of this.#databases) {
      if (this.#replicas.size < state.needed) this.#goOn(name, state);
    }
  }

  /** This node is not the primary any more, and the engine has ended every wait already. */
  endAll(): void {
    this.#databases.clear();
    // With another primary they may leave the history in which they were there.
    for (const positions of this.#replicas.values()) positions.clear();
  }

  close(): void {
    this.#closing.abort();
  }

  get status(): SyncStatus {
    const { engine, policy } = this.#options;
    const replicas = [...this.#replicas.keys()];
    const troubled: string[] = [];
    for (const name of this.#options.isPrimary() ? engine.databases.keys() : []) {
      const needed = replicasNeeded(policy, name);
      const state = this.#databases.get(name);
      const isBehind = state?.fence !== undefined || state?.catchUp !== undefined;
      if (needed > 0 && (isBehind || replicas.length < needed)) troubled.push(name);
    }
    troubled.sort();
    return policy.isStrict
      ? { replicas, fenced: troubled, degraded: [] }
      : { replicas, fenced: [], degraded: troubled };
  }

  #commitWaits(name: string, position: Position): void {
    const { clock, policy } = this.#options;
    const state = this.#stateOf(name);
    state.waits.push({ position, sinceMs: clock.monotonicMs() });
    if (!policy.isStrict && this.#replicas.size < state.needed) {
      this.#goOn(name, state);
      return;
    }
    this.#evaluate(name);
    if (state.waits.length > 0 && !state.isWatched) void this.#watch(name, state);
  }

  #stateOf(name: string): DatabaseWaits {
    let state = this.#databases.get(name);
    if (state === undefined) {
      const needed = replicasNeeded(this.#options.policy, name);
      state = { needed, waits: [], isWatched: false, fence: undefined, catchUp: undefined };
      this.#databases.set(name, state);
    }
    return state;
  }

  /** Some replica has come further. */
  #evaluate(name: string): void {
    const state = this.#databases.get(name);
    if (state === undefined) return;
    const { waits, needed } = state;
    const done = this.#nthBest(name, needed, (acknowledged) =>
      // The same position may be waited for twice, when its sender asks for the outcome.
      waits.findLastIndex(({ position }) => positionsEqual(position, acknowledged)),
    );
    if (done >= 0) {
      const last = waits[done]!.position;
      state.fence = undefined;
      this.#end(state, done + 1, "acknowledged");
      this.#settle(name, last.txid, true, state.catchUp === undefined ? "wait" : "none");
    }
    if (state.fence !== undefined) this.#liftFence(name, state, state.fence);
    if (state.catchUp !== undefined) this.#resume(name, state, state.catchUp);
  }

  /** What at least so many replicas come to; -1 when there are not as many. */
  #nthBest(name: string, n: number, rank: (acknowledged: Position) => number): number {
    const ranks: number[] = [];
    for (const acknowledged of this.#replicas.values()) {
      const position = acknowledged.get(name);
      if (position !== undefined) ranks.push(rank(position));
    }
    return ranks.sort((a, b) => b - a)[n - 1] ?? -1;
  }

  #liftFence(name: string, state: DatabaseWaits, fence: Position): void {
    const { engine, log } = this.#options;
    const current = engine.databases.get(name)?.position ?? fence;
    const isThere = (position: Position): number =>
      positionsEqual(position, fence) || positionsEqual(position, current) ? 0 : -1;
    if (this.#nthBest(name, state.needed, isThere) < 0) return;
    state.fence = undefined;
    log.info("the replicas have what a commit had waited for in vain, writes go on", {
      db: name,
      position: formatPosition(fence),
    });
    this.#settle(name, fence.txid, true, "wait");
  }

  /** Replicas that only fall further behind would make every commit wait in vain. */
  #resume(
    name: string,
    state: DatabaseWaits,
    { txid, sinceMs }: { readonly txid: number; readonly sinceMs: number },
  ): void {
    const { clock, engine, log, timeoutMs } = this.#options;
    if (this.#nthBest(name, state.needed, (position) => position.txid - txid) < 0) return;
    const current = engine.databases.get(name)?.position.txid ?? txid;
    const isAtEnd = this.#nthBest(name, state.needed, (at) => at.txid - current) >= 0;
    const nowMs = clock.monotonicMs();
    if (!isAtEnd && nowMs - sinceMs > timeoutMs) {
      state.catchUp = { txid: current, sinceMs: nowMs };
      return;
    }
    state.catchUp = undefined;
    log.info("the replicas keep up again, commits wait for them", { db: name });
    this.#settle(name, txid, true, "wait");
  }

  /** One timer for a database, whatever its rate of commits. */
  async #watch(name: string, state: DatabaseWaits): Promise<void> {
    const { clock, timeoutMs } = this.#options;
    state.isWatched = true;
    for (let oldest = state.waits[0]; oldest !== undefined; oldest = state.waits[0]) {
      const leftMs = oldest.sinceMs + timeoutMs - clock.monotonicMs();
      if (leftMs > 0) {
        await clock.sleep(leftMs, this.#closing.signal).catch(() => undefined);
        if (this.#closing.signal.aborted) break;
        // This node has another role by now.
        if (this.#databases.get(name) !== state) break;
      } else this.#timeOut(name, state);
    }
    state.isWatched = false;
  }

  #timeOut(name: string, state: DatabaseWaits): void {
    const { clock, engine, log, policy, timeoutMs } = this.#options;
    const last = state.waits.at(-1)?.position;
    if (last === undefined) return;
    const fields = { db: name, position: formatPosition(last), needed: state.needed, timeoutMs };
    if (policy.isStrict) {
      log.error("too few replicas have a commit in time: its outcome is unknown", fields);
      state.fence = last;
      this.#end(state, state.waits.length, "timed-out");
      this.#settle(name, last.txid, false, "refuse");
      // They may have come further already, and nobody writes who could make them say so again.
      this.#liftFence(name, state, last);
      return;
    }
    log.warn("too few replicas have a commit in time: commits do not wait for them", fields);
    const txid = engine.databases.get(name)?.position.txid ?? last.txid;
    state.catchUp = { txid, sinceMs: clock.monotonicMs() };
    this.#end(state, state.waits.length, "degraded");
    this.#settle(name, last.txid, true, "none");
  }

  /** There are not as many replicas: commits need not wait to find that out. */
  #goOn(name: string, state: DatabaseWaits): void {
    const last = state.waits.at(-1)?.position;
    if (last === undefined) return;
    this.#options.log.warn("too few replicas are connected: commits do not wait for them", {
      db: name,
      needed: state.needed,
    });
    this.#end(state, state.waits.length, "degraded");
    this.#settle(name, last.txid, true, state.catchUp === undefined ? "wait" : "none");
  }

  #end(state: DatabaseWaits, count: number, outcome: WaitOutcome): void {
    const nowMs = this.#options.clock.monotonicMs();
    for (const { sinceMs } of state.waits.splice(0, count)) {
      this.#options.onWaited(nowMs - sinceMs, outcome);
    }
  }

  #settle(database: string, throughTxid: number, isAcknowledged: boolean, next: SyncDuty): void {
    const { engine, log } = this.#options;
    engine.settleWaits(database, { throughTxid, isAcknowledged, next }).catch((error: unknown) => {
      log.debug("the engine has stopped", { db: database, error: errorText(error) });
    });
  }
}
