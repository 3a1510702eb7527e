import type { Clock } from "../lib/clock.ts";
import { errorText, LitefsError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Lease } from "./lease.ts";
import { LeaseLostError } from "./lease.ts";

/** Renewals within one TTL: two may fail before the lease is in danger. */
const RENEWALS_PER_TTL = 3;
const MAX_RETRY_DELAY_MS = 1_000;

/** Why a node is the primary no more. */
export type TermEnd =
  /** The backend says that the lease is gone. */
  | "lost"
  /** It could not be renewed in time; whether it is gone, nobody knows. */
  | "expired"
  /** Another node has it now, by our doing. */
  | "handed-over"
  /** It was given up on purpose. */
  | "released"
  | "stopped";

export interface PrimaryTermOptions {
  readonly lease: Lease;
  readonly clock: Clock;
  readonly log: Logger;
  /** Commits are refused from then on; called after every renewal. */
  setCommitDeadline(deadlineMonotonicMs: number): void;
}

/** The time in which this node has the lease: renews it, until it ends in one way or another. */
export class PrimaryTerm {
  readonly lease: Lease;
  readonly startedAtMs: number;
  readonly #options: PrimaryTermOptions;
  readonly #ended = Promise.withResolvers<TermEnd>();
  readonly #stop = new AbortController();
  #renewing: Promise<void> | undefined;

  constructor(options: PrimaryTermOptions) {
    this.lease = options.lease;
    this.startedAtMs = options.clock.monotonicMs();
    this.#options = options;
    options.setCommitDeadline(options.lease.expiresAtMonotonicMs());
  }

  /** Resolves when the term is over. */
  async run(): Promise<TermEnd> {
    const renewing = this.lease.ttlMs === Infinity ? undefined : this.#renewForever();
    const end = await this.#ended.promise;
    await renewing;
    return end;
  }

  get isOver(): boolean {
    return this.#stop.signal.aborted;
  }

  end(how: TermEnd): void {
    this.#stop.abort();
    this.#ended.resolve(how);
  }

  /** A full TTL from now. Rejects when that cannot be had. */
  async renew(): Promise<void> {
    // Two at once could finish in the wrong order.
    this.#renewing ??= this.#renewOnce().finally(() => {
      this.#renewing = undefined;
    });
    await this.#renewing;
  }

  async #renewOnce(): Promise<void> {
    await this.lease.renew();
    // Whoever has the lease after us needs no commits of ours.
    if (this.isOver) throw new LitefsError("LEASE_LOST", "the lease was given up meanwhile");
    this.#options.setCommitDeadline(this.lease.expiresAtMonotonicMs());
  }

  async #renewForever(): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#stop;
    const intervalMs = this.lease.ttlMs / RENEWALS_PER_TTL;
    const retryMs = Math.min(MAX_RETRY_DELAY_MS, this.lease.ttlMs / 10);
    let isFailing = false;
    let waitMs = intervalMs;
    while (!signal.aborted) {
      // Rejects only when aborted, which the loop condition sees.
      await clock.sleep(waitMs, signal).catch(() => undefined);
      if (this.isOver) return;
      try {
        await this.renew();
        if (isFailing) log.info("lease renewed again");
        isFailing = false;
        waitMs = intervalMs;
        continue;
      } catch (error) {
        if (this.isOver) return;
        if (error instanceof LeaseLostError) {
          log.error("primary lease lost", { error: errorText(error) });
          return this.end("lost");
        }
        const leftMs = this.lease.expiresAtMonotonicMs() - clock.monotonicMs();
        if (leftMs <= 0) {
          log.error("primary lease expired, cannot renew it", { error: errorText(error) });
          return this.end("expired");
        }
        if (!isFailing) log.warn("cannot renew lease, retrying", { error: errorText(error) });
        isFailing = true;
        waitMs = Math.min(retryMs, leftMs);
      }
    }
  }
}
