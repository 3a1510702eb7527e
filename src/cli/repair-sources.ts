import * as fs from "node:fs";
import * as path from "node:path";
import { pipeline } from "node:stream/promises";
import Database from "better-sqlite3";
import { errorText, LitefsError } from "../lib/errors.ts";
import { parsePosition } from "../lib/position.ts";
import type { Position } from "../lib/position.ts";
import { checkIntegrity } from "./check-integrity.ts";
import { checkComplete } from "./export.ts";
import { NodeClient } from "./node-client.ts";

/** The names that SQLite gives the files which the data directory calls by their kind. */
const SUFFIXES: readonly (readonly [kind: string, suffix: string])[] = [
  ["database", ""],
  ["journal", "-journal"],
  ["wal", "-wal"],
];

/**
 * Copies a database with its journal and WAL into the working directory and lets SQLite recover it
 * there, as if litefs had never been. Returns what its integrity check finds.
 */
export function copyAsSqliteSeesIt(directory: string, work: string): string[] {
  const target = path.join(work, "database");
  for (const [kind, suffix] of SUFFIXES) {
    const source = path.join(directory, kind);
    if (fs.statSync(source, { throwIfNoEntry: false })?.isFile() !== true) continue;
    fs.copyFileSync(source, target + suffix, fs.constants.COPYFILE_FICLONE);
  }
  if (!fs.existsSync(target)) {
    throw new LitefsError("repair", `there is no database file in ${directory}; use -from`);
  }
  try {
    const db = new Database(target);
    try {
      // Rolls a hot journal back, and moves what the WAL has into the file.
      db.pragma("wal_checkpoint(TRUNCATE)");
      db.prepare("SELECT count(*) FROM sqlite_master").get();
    } finally {
      db.close();
    }
  } catch (cause) {
    throw new LitefsError("repair", "SQLite cannot open the database file; use -from", { cause });
  }
  return checkIntegrity(target);
}

export interface Downloaded {
  /** What SQLite's integrity check finds in it. */
  readonly problems: readonly string[];
  /** Where it stands on the other node; undefined when that does not tell. */
  readonly position: Position | undefined;
}

/** Fetches the database of another node. */
export async function download(url: string, name: string, file: string): Promise<Downloaded> {
  const client = new NodeClient(url);
  const body = await client.request({ method: "GET", path: "/export", query: { name } });
  try {
    await pipeline(body, fs.createWriteStream(file, { flush: true }));
  } catch (cause) {
    throw new LitefsError("repair", `cannot fetch ${name} from ${url}: ${errorText(cause)}`);
  }
  checkComplete(file);
  const header = body.headers["litefs-position"];
  const position = typeof header === "string" ? parsePosition(header) : undefined;
  return { problems: checkIntegrity(file), position };
}
