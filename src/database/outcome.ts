import { errorCode } from "../lib/errors.ts";

/**
 * What the engine answers to a file operation of an application. Anything but "ok" and "later"
 * reaches the application as an error and has changed nothing.
 *
 * - `read-only`: this node may not write the database now, or its disk may not be written.
 * - `busy`: it could, but somebody is in the way; trying again may help.
 * - `unsupported`: the engine does not offer this on a database file.
 * - `full`: there is no space left; SQLite calls it SQLITE_FULL.
 * - `later`: another node decides; `Database.whenDecided` tells the outcome.
 * - `io`: the engine could not make it durable, or it would break the database.
 */
export type Outcome = FinalOutcome | "later";
export type FinalOutcome = "ok" | "read-only" | "busy" | "unsupported" | "full" | "io";

/** What an application is told of an operation that the disk has failed. */
export function outcomeOf(error: unknown): FinalOutcome {
  switch (errorCode(error)) {
    case "ENOSPC":
    case "EDQUOT":
      return "full";
    case "EROFS":
    case "EACCES":
    case "EPERM":
      return "read-only";
    default:
      return "io";
  }
}

/** The disk or the system has failed us, not the content of a file. */
export function isSystemError(error: unknown): boolean {
  return error instanceof Error && "errno" in error && typeof error.errno === "number";
}
