/** What this thread's own clock must be put ahead by. */
const ORIGIN_MS = Number(process.hrtime.bigint()) / 1e6 - performance.now();

/**
 * The machine's monotonic clock (CLOCK_MONOTONIC), the same in every thread, which
 * `performance.now()` alone is not: that counts from the start of its thread. Allocates nothing.
 */
export function monotonicMs(): number {
  return ORIGIN_MS + performance.now();
}
