import { lockOutReaders, unlockReaders } from "./apply.ts";
import type { Database } from "./database.ts";
import type { DaemonLocks, Job } from "./host.ts";

/**
 * Takes back what an application had written, but not committed, when this node stopped being the
 * primary. It must be gone before the first transaction of the new primary is applied: nobody else
 * would ever do it, because a replica's applications may not even roll back a journal.
 */
export function* settleAfterDemotion(db: Database, locks: DaemonLocks): Job<void> {
  try {
    yield* lockOutReaders(locks);
    if (db.hasOpenChanges && !db.host.isPrimary()) db.takeBackOpenChanges();
    yield (resume) => db.kernel.settled(resume);
  } finally {
    unlockReaders(locks);
  }
}
