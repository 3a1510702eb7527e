import { describe, expect, it } from "vitest";
import { kindOf, shrink } from "./shrink.ts";
import { FAULTS, simulate } from "./simulate.ts";
import type { Fault } from "./simulate.ts";

/** `npm run test:simulation -- --seeds N --from S` runs more of them. */
const SEEDS = 400;
const SEEDS_PER_TEST = 50;
/** How many it may take until a disk that lies is noticed. */
const SEEDS_PER_FAULT = 60;

describe("a cluster whose nodes lose their power and are killed at any moment", () => {
  for (let from = 1; from <= SEEDS; from += SEEDS_PER_TEST) {
    it(`seeds ${from} to ${from + SEEDS_PER_TEST - 1}`, () => {
      let total = 0;
      for (let seed = from; seed < from + SEEDS_PER_TEST; seed++) {
        const { failure, takenFromShelf } = simulate(seed);
        total += takenFromShelf;
        if (failure === undefined) continue;
        const { outcome } = shrink(seed);
        const command = `npm run test:simulation -- --seeds 1 --from ${seed} --trace`;
        const text = [...outcome.trace, `again: ${command}`].join("\n");
        throw new Error(`seed ${seed}: ${kindOf(outcome)}\n${text}`, { cause: outcome.failure });
      }
      expect(total, "databases taken from the shelf").toBeGreaterThan(0);
    });
  }

  for (const fault of Object.keys(FAULTS) as Fault[]) {
    if (fault === "none") continue;
    it(`notices when ${fault}`, () => {
      let seed = 1;
      while (seed <= SEEDS_PER_FAULT && simulate(seed, { fault }).failure === undefined) seed++;
      expect(seed).toBeLessThanOrEqual(SEEDS_PER_FAULT);
    });
  }
});
