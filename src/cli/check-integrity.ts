import Database from "better-sqlite3";
import { errorText } from "../lib/errors.ts";

/** Problems of one kind beyond this many say nothing new. */
const MAX_PROBLEMS = 5;

/** Runs SQLite's own check on a database file that nobody else uses. */
export function checkIntegrity(database: string | Buffer): string[] {
  try {
    const db = new Database(database);
    try {
      const rows = db.pragma(`integrity_check(${MAX_PROBLEMS})`) as { integrity_check: string }[];
      return rows
        .map((row) => row.integrity_check)
        .filter((text) => text !== "ok")
        .map((text) => `integrity_check: ${text.replaceAll("\n", " ")}`);
    } finally {
      db.close();
    }
  } catch (error) {
    return [`integrity_check: ${errorText(error)}`];
  }
}
