import type { Engine } from "../database/engine.ts";
import type { Clock } from "../lib/clock.ts";
import { errorText, LitefsError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";

export interface WritePauseOptions {
  readonly engine: Pick<Engine, "pauseWrites" | "resumeWrites">;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Holds writers back around a change of the primary, and lets them go again in every case. */
export class WritePause {
  readonly #options: WritePauseOptions;
  #isPaused = false;
  #later: AbortController | undefined;

  constructor(options: WritePauseOptions) {
    this.#options = options;
  }

  /** Resolves when nobody writes any more; rejects, with nobody held back, when that takes long. */
  async begin(timeoutMs: number): Promise<void> {
    const { engine, clock } = this.#options;
    this.#later?.abort();
    this.#isPaused = true;
    const timer = new AbortController();
    const late = clock.sleep(timeoutMs, timer.signal).then(
      () => "late" as const,
      () => undefined,
    );
    try {
      const paused = engine.pauseWrites().then(() => "paused" as const);
      // Released below, it never resolves, and rejects only with the engine.
      paused.catch(() => undefined);
      if ((await Promise.race([paused, late])) === "paused") return;
    } catch (error) {
      await this.end();
      throw error;
    } finally {
      timer.abort();
    }
    await this.end();
    throw new LitefsError(
      "HANDOFF_BUSY",
      `a write transaction has been open for more than ${timeoutMs} ms: end it, then try again`,
    );
  }

  /** Lets everybody go on; does nothing when nobody is held. */
  async end(): Promise<void> {
    this.#later?.abort();
    if (!this.#isPaused) return;
    this.#isPaused = false;
    await this.#options.engine.resumeWrites();
  }

  /** Ends it after a while, unless something else does before. */
  endLater(delayMs: number): void {
    const { clock, log } = this.#options;
    const timer = new AbortController();
    this.#later = timer;
    clock.sleep(delayMs, timer.signal).then(
      () =>
        this.end().catch((error: unknown) => {
          log.warn("cannot let writers go on", { error: errorText(error) });
        }),
      () => undefined,
    );
  }
}
