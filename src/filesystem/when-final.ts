import type { FinalOutcome, Outcome } from "../database/outcome.ts";
import { assert } from "../lib/assert.ts";

/** For what is never a commit that other nodes decide about. */
export function atOnce(outcome: Outcome): FinalOutcome {
  assert(outcome !== "later", "this operation is no commit");
  return outcome;
}
