import type { Clock } from "../../lib/clock.ts";
import { errorCode, errorText } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { PrimaryInfo } from "../lease.ts";
import { Backoff } from "./backoff.ts";
import type { StreamObserver } from "./stream-client.ts";
import type { StreamEnd } from "./stream-reception.ts";

export type ReplicaStatus = "connecting" | "connected" | "caught-up" | "disconnected";

const MAX_RECONNECT_DELAY_MS = 10_000;

export interface ReplicaLoopOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** `lease.reconnect-delay`. */
  readonly reconnectDelayMs: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
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

  /** Resolves when aborted, or when there is no primary to follow. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (!signal.aborted) {
      const attempt = await this.#attempt(signal);
      if (attempt === "no-primary" || signal.aborted) return;
      if (attempt === "ended") continue;
      try {
        await clock.sleep(this.#backoff.nextDelayMs(), signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    }
  }

  /** "ended": a stream that had worked was closed on purpose, so the next try need not wait. */
  async #attempt(signal: AbortSignal): Promise<"ended" | "failed" | "no-primary"> {
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
      return end.announced && wasReady ? "ended" : "failed";
    } catch (error) {
      if (signal.aborted) return "failed";
      log.warn("disconnected from primary, retrying", {
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
