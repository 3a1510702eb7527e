import type { Clock } from "../../lib/clock.ts";

/** The lag of a replica that was never in sync, as LiteFS shows it in `.lag`: 2^31 - 1 ms. */
export const NEVER_SYNCED_LAG_MS = 2_147_483_647;

export interface LagOptions {
  readonly clock: Clock;
  /** How often an idle primary proves that it is alive. */
  readonly heartbeatIntervalMs: number;
}

type Link = "down" | "catching-up" | "synced";

/**
 * How far this node is behind its primary, by the local monotonic clock alone, so that clocks that
 * disagree between nodes do not matter.
 *
 * The node is in sync while its stream has delivered the initial set, everything received is
 * applied, and the last frame is no older than two heartbeats. Otherwise the lag is the time since
 * the last moment at which it was known to be in sync.
 */
export class LagTracker {
  readonly #clock: Clock;
  readonly #staleAfterMs: number;
  #isPrimary = false;
  #link: Link = "down";
  /** The last moment at which everything the primary had was here; undefined: never. */
  #syncedAtMs: number | undefined;
  #lastFrameAtMs = 0;
  #primaryTimestampMs: number | undefined;
  #oldestPendingAtMs: () => number | undefined = () => undefined;

  constructor(options: LagOptions) {
    this.#clock = options.clock;
    this.#staleAfterMs = options.heartbeatIntervalMs * 2;
  }

  setPrimary(isPrimary: boolean): void {
    if (this.#isPrimary && !isPrimary) {
      // Until now this node was the truth itself.
      this.#syncedAtMs = this.#clock.monotonicMs();
      this.#link = "down";
    }
    this.#isPrimary = isPrimary;
  }

  /** `oldestPendingAtMs`: when the oldest transaction not yet applied was received. */
  connected(oldestPendingAtMs: () => number | undefined): void {
    this.#link = "catching-up";
    this.#oldestPendingAtMs = oldestPendingAtMs;
    this.#lastFrameAtMs = this.#clock.monotonicMs();
  }

  /** Call before pending transactions are dropped. */
  disconnected(): void {
    if (this.#link === "synced") this.#syncedAtMs = this.#knownInSyncUntilMs();
    this.#link = "down";
    this.#oldestPendingAtMs = () => undefined;
  }

  frameReceived(): void {
    this.#lastFrameAtMs = this.#clock.monotonicMs();
  }

  /** The initial set is applied. */
  caughtUp(): void {
    this.#link = "synced";
    this.frameReceived();
  }

  /** The primary's wall clock, from a heartbeat or an applied transaction. */
  primaryTimestamp(timestampMs: number): void {
    this.#primaryTimestampMs = timestampMs;
  }

  get primaryTimestampMs(): number | undefined {
    return this.#primaryTimestampMs;
  }

  get isCaughtUp(): boolean {
    return this.lagMs() === 0;
  }

  lagMs(): number {
    if (this.#isPrimary) return 0;
    const now = this.#clock.monotonicMs();
    if (this.#link === "synced") {
      const isFresh = now - this.#lastFrameAtMs <= this.#staleAfterMs;
      if (isFresh && this.#oldestPendingAtMs() === undefined) return 0;
      return bounded(now - this.#knownInSyncUntilMs());
    }
    if (this.#syncedAtMs === undefined) return NEVER_SYNCED_LAG_MS;
    return bounded(now - this.#syncedAtMs);
  }

  /** With something unapplied: just before it arrived. Otherwise: at the last frame. */
  #knownInSyncUntilMs(): number {
    return Math.min(this.#oldestPendingAtMs() ?? Infinity, this.#lastFrameAtMs);
  }
}

function bounded(lagMs: number): number {
  return Math.min(Math.max(0, lagMs), NEVER_SYNCED_LAG_MS);
}
