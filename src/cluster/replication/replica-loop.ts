import { errorCode, errorText } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { PrimaryInfo } from "../lease.ts";
import { Backoff } from "./backoff.ts";
import type { StreamObserver } from "./stream-client.ts";
import type { StreamEnd } from "./stream-reception.ts";

export type ReplicaStatus = "connecting" | "connected" | "caught-up" | "disconnected";

const MAX_RECONNECT_DELAY_MS = 10_000;

/** A lease that the primary has handed over. */
export interface Inheritance {
  readonly leaseId: string;
}

export interface ReplicaLoopOptions {
  readonly log: Logger;
  /** `lease.reconnect-delay`. */
  readonly reconnectDelayMs: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Sleeps, or less if there is reason to look for the primary again. */
  pause(delayMs: number, signal: AbortSignal): Promise<void>;
  /** Asked before every attempt; undefined ends the loop. */
  findPrimary(): Promise<PrimaryInfo | undefined>;
  /** One connection: StreamClient.follow. */
  follow(url: string, observer: StreamObserver, signal: AbortSignal): Promise<StreamEnd>;
  onStatus(status: ReplicaStatus): void;
  onApplied(database: string, latencyMs: number): void;
}

/** Follows the primary for as long as there is one, through every kind of broken connection. */
export class ReplicaLoop {
  readonly #options: ReplicaLoopOptions;
  readonly #backoff: Backoff;

  constructor(options: ReplicaLoopOptions) {
    this.#options = options;
    this.#backoff = new Backoff({
      initialDelayMs: options.reconnectDelayMs,
      maxDelayMs: MAX_RECONNECT_DELAY_MS,
      random: options.random,
    });
  }

  /**
   * Resolves when aborted, when there is no primary to follow, or with the lease that the primary
   * has handed to this node.
   */
  async run(signal: AbortSignal): Promise<Inheritance | undefined> {
    while (!signal.aborted) {
      const attempt = await this.#attempt(signal);
      if (typeof attempt !== "string") return attempt;
      if (attempt === "no-primary" || signal.aborted) return undefined;
      if (attempt === "ended") continue;
      await this.#options.pause(this.#backoff.nextDelayMs(), signal);
    }
    return undefined;
  }

  /** "ended": a stream that had worked was closed on purpose, so the next try need not wait. */
  async #attempt(signal: AbortSignal): Promise<"ended" | "failed" | "no-primary" | Inheritance> {
    const { log } = this.#options;
    let primary: PrimaryInfo | undefined;
    let wasReady = false;
    try {
      primary = await this.#options.findPrimary();
      if (primary === undefined) return "no-primary";
      this.#options.onStatus("connecting");
      const end = await this.#follow(primary, signal, () => {
        wasReady = true;
      });
      log.info("stream from primary ended", { primary: primary.hostname });
      if (end.handoffLeaseId !== undefined) return { leaseId: end.handoffLeaseId };
      return end.isSucceeded === true || (end.announced && wasReady) ? "ended" : "failed";
    } catch (error) {
      if (signal.aborted) return "failed";
      const isLost = primary !== undefined;
      log.warn(isLost ? "disconnected from primary, retrying" : "cannot find primary, retrying", {
        primary: primary?.hostname,
        code: errorCode(error),
        error: errorText(error),
      });
      return "failed";
    } finally {
      if (primary !== undefined) this.#options.onStatus("disconnected");
    }
  }

  #follow(primary: PrimaryInfo, signal: AbortSignal, onFirstReady: () => void): Promise<StreamEnd> {
    const options = this.#options;
    const observer: StreamObserver = {
      onConnected: () => {
        options.log.info("connected to primary", {
          primary: primary.hostname,
          url: primary.advertiseUrl,
        });
        options.onStatus("connected");
      },
      onReady: () => {
        this.#backoff.reset();
        onFirstReady();
        options.onStatus("caught-up");
      },
      onApplied: (database, latencyMs) => options.onApplied(database, latencyMs),
    };
    return options.follow(primary.advertiseUrl, observer, signal);
  }
}
