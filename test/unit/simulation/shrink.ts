import { simulate, STEPS } from "./simulate.ts";
import type { Fault, Outcome } from "./simulate.ts";

/** The steps that a failing run does not need: each is left out in turn, in ever smaller groups. */
export function shrink(
  seed: number,
  fault: Fault = "none",
): { skips: ReadonlySet<number>; outcome: Outcome } {
  let skips: ReadonlySet<number> = new Set();
  let outcome = simulate(seed, { fault });
  if (outcome.failure === undefined) return { skips, outcome };
  for (let size = STEPS / 2; size >= 1; size = Math.floor(size / 2)) {
    for (let start = 0; start < STEPS; start += size) {
      const group = Array.from({ length: size }, (_, i) => start + i);
      const next = new Set([...skips, ...group]);
      if (next.size === skips.size) continue;
      const tried = simulate(seed, { skips: next, fault });
      if (kindOf(tried) !== kindOf(outcome)) continue;
      skips = next;
      outcome = tried;
    }
  }
  return { skips, outcome };
}

/** Two failures that differ in numbers only are the same. */
export function kindOf({ failure }: Outcome): string {
  if (failure === undefined) return "";
  const text = failure instanceof Error ? failure.message : JSON.stringify(failure);
  return text.replace(/[0-9a-f]{16}/g, "…").replace(/\d+/g, "…");
}
