export interface BackoffOptions {
  /** `lease.reconnect-delay`: the wait after the first failure. */
  readonly initialDelayMs: number;
  readonly maxDelayMs: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

/**
 * Doubling waits between attempts, each shortened by up to a quarter at random so that replicas
 * do not all come back to a restarted primary at the same moment.
 */
export class Backoff {
  readonly #options: BackoffOptions;
  #failures = 0;

  constructor(options: BackoffOptions) {
    this.#options = options;
  }

  reset(): void {
    this.#failures = 0;
  }

  nextDelayMs(): number {
    const { initialDelayMs, maxDelayMs, random } = this.#options;
    // Beyond 2^30 the cap has long decided.
    const doubled = initialDelayMs * 2 ** Math.min(this.#failures, 30);
    this.#failures += 1;
    const ceiling = Math.max(initialDelayMs, maxDelayMs);
    return Math.min(doubled, ceiling) * (1 - random() / 4);
  }
}
