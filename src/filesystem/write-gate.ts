/** A request for SQLite's write lock, to be decided later. */
export interface HeldRequest {
  readonly uniqueLo: number;
  readonly uniqueHi: number;
  /** Decides it as if it had just come. */
  decide(): void;
}

/**
 * Holds writers back while the lease changes hands: those who have begun go on, those who want to
 * begin wait for their answer, and nobody is refused.
 */
export class WriteGate {
  #held: HeldRequest[] = [];
  #isClosed = false;
  #whenQuiet: (() => void)[] = [];

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Whether somebody waits for the writers under way to end. */
  get isWaitingForQuiet(): boolean {
    return this.#whenQuiet.length > 0;
  }

  close(whenQuiet: () => void): void {
    this.#isClosed = true;
    this.#whenQuiet.push(whenQuiet);
  }

  hold(request: HeldRequest): void {
    this.#held.push(request);
  }

  /** Nobody writes any more. */
  quiet(): void {
    for (const then of this.#whenQuiet.splice(0)) then();
  }

  open(): void {
    this.#isClosed = false;
    this.#whenQuiet = [];
    for (const request of this.#held.splice(0)) request.decide();
  }

  /** Forgets an interrupted request; false when it is not held here. */
  cancel(uniqueLo: number, uniqueHi: number): boolean {
    const index = this.#held.findIndex(
      (request) => request.uniqueLo === uniqueLo && request.uniqueHi === uniqueHi,
    );
    if (index < 0) return false;
    this.#held.splice(index, 1);
    return true;
  }
}
