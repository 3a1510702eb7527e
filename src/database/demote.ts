import { lockOutReaders, tryLockOutReaders, unlockReaders } from "./apply.ts";
import type { Database } from "./database.ts";
import type { DaemonLocks, Job } from "./host.ts";
import { changesNothing, namesSuperJournal } from "./journal-rollback.ts";

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

/**
 * A writer has died in the middle of a transaction, and nobody has the database open any more. The
 * next one to open it would roll back; but a replica may be waiting for a snapshot, which cannot be
 * made of what is half written.
 */
export function* rollBackAbandoned(db: Database, locks: DaemonLocks): Job<void> {
  if (!db.hasHotJournal || locks.openCount("any") > 0) return;
  // Whether a transaction over several databases was committed, only SQLite can see: the name of the
  // super-journal may lead into our own mount, or into another's.
  if (namesSuperJournal(db)) return;
  // A journal that was copied into place may say something else than what the log has.
  if (!db.isJournalOurs && !changesNothing(db)) return;
  // Whoever is in the way has just opened it, and sees to it himself.
  if (!tryLockOutReaders(locks)) return;
  try {
    db.takeBackOpenChanges();
    yield (resume) => db.kernel.settled(resume);
  } finally {
    unlockReaders(locks);
  }
}
