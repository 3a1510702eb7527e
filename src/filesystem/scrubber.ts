import type { DatabaseState, ScrubStep } from "../database/engine.ts";
import type { Clock } from "../lib/clock.ts";
import { errorText } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";

/** Half a millisecond of the mount thread, which answers nobody meanwhile. */
const STEP_BYTES = 256 * 1024;
/** A step waits at least so many times as long as it took, so load slows it down by itself. */
const REST_FACTOR = 9;

export interface ScrubberOptions {
  readonly engine: {
    readonly databases: ReadonlyMap<string, DatabaseState>;
    scrub(database: string, isFirst: boolean, maxBytes: number): Promise<ScrubStep>;
  };
  readonly clock: Clock;
  readonly log: Logger;
  readonly bytesPerSecond: number;
}

/**
 * Reads databases in the background, all that is there when it begins, one after the other, and has
 * the engine quarantine what is damaged. Never faster than it may, and slower while the mount is busy.
 */
export class Scrubber {
  readonly #options: ScrubberOptions;

  constructor(options: ScrubberOptions) {
    this.#options = options;
  }

  /** Resolves when everything was read, or the signal ends it. */
  async run(signal: AbortSignal): Promise<void> {
    const { engine, clock, log } = this.#options;
    const beganMs = clock.monotonicMs();
    let bytes = 0;
    let damaged = 0;
    for (const name of [...engine.databases.keys()].sort()) {
      if (signal.aborted) return;
      try {
        const result = await this.#read(name, signal);
        bytes += result.bytes;
        if (result.isDamaged) damaged++;
      } catch (error) {
        if (signal.aborted) return;
        log.error("cannot verify a database", { db: name, error: errorText(error) });
      }
    }
    const seconds = Math.round((clock.monotonicMs() - beganMs) / 1000);
    log.info("verified all databases", { bytes, seconds, damaged });
  }

  async #read(name: string, signal: AbortSignal): Promise<{ bytes: number; isDamaged: boolean }> {
    const { engine, clock, bytesPerSecond } = this.#options;
    let bytes = 0;
    for (let isFirst = true; ; isFirst = false) {
      const beganMs = clock.monotonicMs();
      const step = await engine.scrub(name, isFirst, STEP_BYTES);
      if (step.kind === "damaged") return { bytes, isDamaged: true };
      bytes += step.bytes;
      const tookMs = clock.monotonicMs() - beganMs;
      if (step.kind === "done" && step.bytes === 0) return { bytes, isDamaged: false };
      const restMs = Math.max((step.bytes / bytesPerSecond) * 1000 - tookMs, tookMs * REST_FACTOR);
      await clock.sleep(Math.max(1, restMs), signal);
      if (step.kind === "done") return { bytes, isDamaged: false };
    }
  }
}
