/** Below this a spin finds nothing that a sleep would not find as well. */
const MIN_MS = 0.005;

/**
 * How long to look for the next request before going to sleep. As long as requests follow each
 * other closely, as an application's do while it works on a statement, that is the maximum; each
 * time nothing has come it is halved, so that requests which come alone cost next to nothing.
 */
export class SpinWindow {
  readonly #maxMs: number;
  #ms = 0;

  constructor(maxMs: number) {
    this.#maxMs = maxMs;
  }

  /** 0: do not spin. */
  get ms(): number {
    return this.#ms;
  }

  /** A request has come that the window did not reach. */
  missed(waitedMs: number): void {
    if (waitedMs <= this.#maxMs) this.#ms = this.#maxMs;
    else this.#ms = this.#ms / 2 < MIN_MS ? 0 : this.#ms / 2;
  }
}
