import type { Database } from "../database/database.ts";
import type { ApplyResult } from "../database/engine.ts";
import type { Job } from "../database/host.ts";

/**
 * Applies what a primary has sent that waits for this node, if `isDurable`: then the log is on the
 * disk before it is told. One sync for all transactions that came together.
 */
export function* durably(
  db: Database,
  isDurable: boolean,
  job: Job<ApplyResult>,
): Job<ApplyResult> {
  db.isAcknowledging = isDurable;
  const result = yield* job;
  if (isDurable && result.kind === "applied") db.log.sync();
  return result;
}
