import * as fs from "node:fs";
import * as os from "node:os";
import { hasCpuQuota } from "./cpu-quota.ts";

/** How often to look, and how long to leave the processors alone when none was idle. */
const INTERVAL_MS = 250;
const PAUSE_MS = 1_000;
/** Of one processor. The kernel tells idle time in steps of 10 ms. */
const MIN_IDLE_SHARE = 0.1;

/**
 * Whether this machine has processor time that nobody else wants. A thread that spins takes it from
 * whoever could run instead, so it may only where processors are idle besides.
 */
export class SpareProcessors {
  readonly #idleMs: () => number;
  #isSpare = true;
  #lookAtMs = -Infinity;
  #lookedAtMs = 0;
  #idleThenMs = 0;

  constructor(idleMs: () => number = idleTimeMs) {
    this.#idleMs = idleMs;
  }

  /** Cheap enough for every request. */
  isSpare(nowMs: number): boolean {
    if (nowMs >= this.#lookAtMs) this.#look(nowMs);
    return this.#isSpare;
  }

  #look(nowMs: number): void {
    const idleMs = this.#idleMs();
    const elapsedMs = nowMs - this.#lookedAtMs;
    // After a pause it is tried again: how much is idle without spinning says nothing.
    this.#isSpare = !this.#isSpare || idleMs - this.#idleThenMs >= elapsedMs * MIN_IDLE_SHARE;
    this.#idleThenMs = idleMs;
    this.#lookedAtMs = nowMs;
    this.#lookAtMs = nowMs + (this.#isSpare ? INTERVAL_MS : PAUSE_MS);
  }
}

/** Of all processors together, since the machine has started. */
function idleTimeMs(): number {
  const [, seconds = ""] = fs.readFileSync("/proc/uptime", "latin1").split(" ");
  return Number(seconds) * 1_000;
}

/**
 * Spinning needs a second processor for the application, and the whole machine: whoever may only
 * use some of its processors, or a share of their time, cannot see what is left of it, and would
 * spend what it has for spinning.
 */
export function allowsSpinning(
  usable: number = os.availableParallelism(),
  present: number = os.cpus().length,
  isLimited: boolean = hasCpuQuota(),
): boolean {
  return usable >= 2 && usable >= present && !isLimited;
}
