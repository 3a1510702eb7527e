import type { Database } from "../database/database.ts";
import type { FinalOutcome, Outcome } from "../database/outcome.ts";
import { assert } from "../lib/assert.ts";

/** Calls back with the outcome of an operation: at once, or when the primary has decided. */
export function whenFinal(
  db: Database,
  outcome: Outcome,
  then: (final: FinalOutcome) => void,
): void {
  if (outcome === "later") db.whenDecided(then);
  else then(outcome);
}

/** For what is never a commit that the primary decides about. */
export function atOnce(outcome: Outcome): FinalOutcome {
  assert(outcome !== "later", "this operation is no commit");
  return outcome;
}
