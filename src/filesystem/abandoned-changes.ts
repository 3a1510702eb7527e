import { lockOutReaders, unlockReaders } from "../database/apply.ts";
import { errorText } from "../lib/errors.ts";
import type { DatabaseEntry } from "./entry.ts";

/**
 * Takes back what a writer has left in a database file, and lets nobody read it before it is gone
 * from the kernel's cache as well.
 */
export function undoAlone(
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
