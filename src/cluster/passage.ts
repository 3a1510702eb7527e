import type { Clock } from "../lib/clock.ts";
import { LitefsError } from "../lib/errors.ts";

/**
 * A step that may be given up because it takes too long, but only as long as it has not begun to
 * do what cannot be taken back: then its outcome must be waited for.
 */
export class Passage {
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  #hasEntered = false;
  #isClosed = false;

  constructor(clock: Clock, timeoutMs: number) {
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
  }

  /** Throws when it was given up already; afterwards it is not given up any more. */
  enter(): void {
    if (this.#isClosed) throw this.#late();
    this.#hasEntered = true;
  }

  /** The outcome of the work, or a rejection if it has not entered in time. */
  async through(work: Promise<void>): Promise<void> {
    const timer = new AbortController();
    const late = this.#clock.sleep(this.#timeoutMs, timer.signal).then(
      () => {
        if (this.#hasEntered) return work;
        this.#isClosed = true;
        throw this.#late();
      },
      () => undefined,
    );
    try {
      await Promise.race([work, late]);
    } finally {
      timer.abort();
      // Given up, its own failure is no news.
      work.catch(() => undefined);
      late.catch(() => undefined);
    }
  }

  #late(): LitefsError {
    const problem = `the replica did not take all transactions within ${this.#timeoutMs} ms`;
    return new LitefsError("HANDOFF_FAILED", problem);
  }
}
