import { lockOutReaders, unlockReaders } from "../database/apply.ts";
import type { Outcome } from "../database/outcome.ts";
import { errorText } from "../lib/errors.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";

/** A writer has died. On a replica nobody else may play the journal back. */
export function takeBackAtOnce(entry: DatabaseEntry): void {
  // Before anything that waits for the lock continues what it wrote.
  entry.db.takeBackOpenChanges();
  undoAlone(
    entry,
    () => undefined,
    "cannot take back what a writer left",
    () => undefined,
  );
}

/**
 * A writer died on the primary in the middle of a transaction, and nobody has opened the database
 * since. Tells at the end whether others may have their turn.
 */
export function settleAbandoned(entry: DatabaseEntry, done: (mayServe: boolean) => void): void {
  const { db } = entry;
  const takeBack = (): void => {
    if (db.hasHotJournal) db.takeBackOpenChanges();
  };
  undoAlone(entry, takeBack, "cannot roll back what a writer left", (isWell) => {
    // Who writes without a journal, `cp` for example, is done when he closes the file.
    done(!isWell || !db.hasOpenChanges);
  });
}

/**
 * A database file is about to be overwritten. What an application has left in the WAL when it died goes
 * into it first, as its next connection would have it. Nothing happens while a WAL or its index is open.
 */
export function foldAbandonedWal({ kind, entry }: FileNode): Outcome {
  const { db } = entry;
  const isInUse = entry.openCount("wal") + entry.openCount("shm") > 0;
  if (kind !== "database" || isInUse || !db.isCheckpointing) return "ok";
  if (!db.isWritable) return "read-only";
  for (const left of ["wal", "shm"] as const) {
    const outcome = db.unlink(left);
    if (outcome !== "ok") return outcome;
    entry.unlinked(left);
    db.kernel.invalidateName(left);
  }
  return "ok";
}

/**
 * Takes back what a writer has left in a database file, and lets nobody read it before it is gone
 * from the kernel's cache as well.
 */
function undoAlone(
  entry: DatabaseEntry,
  takeBack: () => void,
  problem: string,
  done: (isWell: boolean) => void,
): void {
  const { db } = entry;
  entry.enqueue(
    function* () {
      try {
        yield* lockOutReaders(entry);
        takeBack();
        yield (resume) => db.kernel.settled(resume);
      } finally {
        unlockReaders(entry);
      }
    },
    () => done(true),
    (error) => {
      db.quarantine(`${problem}: ${errorText(error)}`);
      done(false);
    },
  );
}
