import Database from "better-sqlite3";
import { errorText } from "../lib/errors.ts";

/** More problems than this say nothing new. */
const MAX_PROBLEMS = 5;

/** Runs SQLite's own check on a database that nobody else uses: a file, or its bytes. */
export function checkIntegrity(database: string | Buffer): string[] {
  try {
    const db = new Database(database);
    try {
      return db
        .prepare<[], string>(`PRAGMA integrity_check(${MAX_PROBLEMS})`)
        .pluck()
        .all()
        .filter((text) => text !== "ok")
        .map((text) => `integrity_check: ${text.replaceAll("\n", " ")}`);
    } finally {
      db.close();
    }
  } catch (error) {
    return [`integrity_check: ${errorText(error)}`];
  }
}
