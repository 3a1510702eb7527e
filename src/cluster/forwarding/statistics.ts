/** Upper bounds, in milliseconds, of the classes of a histogram. */
export const HISTOGRAM_BOUNDS_MS: readonly number[] = [
  0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000,
];

/** How often a time was in each class; the last class has no bound. */
export class TimeHistogram {
  readonly counts: number[] = [...HISTOGRAM_BOUNDS_MS, Infinity].map(() => 0);
  sumMs = 0;

  add(tookMs: number): void {
    const found = HISTOGRAM_BOUNDS_MS.findIndex((boundMs) => tookMs <= boundMs);
    const index = found < 0 ? HISTOGRAM_BOUNDS_MS.length : found;
    this.counts[index] = (this.counts[index] ?? 0) + 1;
    this.sumMs += tookMs;
  }
}

export type ForwardOutcome = "committed" | "refused" | "unknown";

/** What has become of the writes of this node's applications, while it was a replica. */
export class ForwardingStatistics {
  /** From the commit of an application to the primary's word on it. */
  readonly commitMs: TimeHistogram = new TimeHistogram();
  /** From the wish to write to the right to do so. */
  readonly waitMs: TimeHistogram = new TimeHistogram();
  readonly outcomes: Record<ForwardOutcome, number> = { committed: 0, refused: 0, unknown: 0 };
  /** Times the right was asked for in vain. */
  denied = 0;

  forwarded(tookMs: number, outcome: ForwardOutcome): void {
    this.commitMs.add(tookMs);
    this.outcomes[outcome]++;
  }
}
