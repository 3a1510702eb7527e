import * as fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { backup, DatabaseSync } from "node:sqlite";
import { errorText } from "../lib/errors.ts";
import {
  committedPageCount,
  DATABASE_HEADER_SIZE,
  parseDatabaseHeader,
} from "../sqlite/database-header.ts";
import type { ImportOutcome } from "./database-import.ts";

/** How long writers and, in the rollback modes, readers of the database are waited for. */
const BUSY_TIMEOUT_MS = 30_000;
const BUSY_RETRY_MS = 20;
const PAGES_PER_STEP = 1_000;

const SQLITE_OK = 0;
const SQLITE_BUSY = 5;
const SQLITE_LOCKED = 6;
const SQLITE_READONLY = 8;

/**
 * A program: copies the SQLite file `argv[2]` into the database `argv[3]`, as one transaction, and
 * prints the outcome.
 */
async function importDatabase(source: string, destination: string): Promise<ImportOutcome> {
  const refusal = checkFile(source);
  if (refusal !== undefined) return { kind: "refused", reason: refusal };
  const from = new DatabaseSync(source);
  try {
    const damage = checkContent(from);
    if (damage !== undefined) return { kind: "refused", reason: `it is damaged: ${damage}` };
    return await copy(from, destination);
  } finally {
    from.close();
  }
}

/** Why the file cannot be a complete database. */
function checkFile(source: string): string | undefined {
  const fd = fs.openSync(source, "r");
  try {
    const sizeBytes = fs.fstatSync(fd).size;
    if (sizeBytes === 0) return "it is empty";
    const bytes = new Uint8Array(DATABASE_HEADER_SIZE);
    const count = fs.readSync(fd, bytes, 0, bytes.length, 0);
    const header = parseDatabaseHeader(bytes.subarray(0, count));
    if (header instanceof Error) return header.message;
    const expected = committedPageCount(header, sizeBytes) * header.pageSize;
    if (sizeBytes >= expected) return undefined;
    return `it was cut off: ${sizeBytes} of ${expected} bytes`;
  } finally {
    fs.closeSync(fd);
  }
}

/** What SQLite finds wrong in the file, which would take the place of good data. */
function checkContent(from: DatabaseSync): string | undefined {
  try {
    const row = from.prepare("PRAGMA quick_check(1)").get();
    const result = row?.["quick_check"];
    return result === "ok" ? undefined : String(result);
  } catch (error) {
    return errorText(error);
  }
}

async function copy(from: DatabaseSync, destination: string): Promise<ImportOutcome> {
  const deadline = performance.now() + BUSY_TIMEOUT_MS;
  for (;;) {
    try {
      const pageCount = await backup(from, destination, { rate: PAGES_PER_STEP });
      return { kind: "imported", pageCount };
    } catch (error) {
      const code = sqliteCode(error);
      if (code === SQLITE_READONLY) {
        // SQLite does not change the page size of a database while it is in WAL mode.
        if (leaveWalMode(destination)) continue;
      } else if (code !== SQLITE_OK && code !== SQLITE_BUSY && code !== SQLITE_LOCKED) {
        return { kind: "refused", reason: `SQLite says: ${errorText(error)}` };
      }
      if (performance.now() > deadline) {
        return { kind: "busy", reason: busyReason(code === SQLITE_READONLY) };
      }
    }
    await sleep(BUSY_RETRY_MS);
  }
}

function leaveWalMode(destination: string): boolean {
  const to = new DatabaseSync(destination);
  try {
    return to.prepare("PRAGMA journal_mode = DELETE").get()?.["journal_mode"] === "delete";
  } catch (error) {
    const code = sqliteCode(error);
    if (code === SQLITE_BUSY || code === SQLITE_LOCKED) return false;
    throw error;
  } finally {
    to.close();
  }
}

function busyReason(isPageSize: boolean): string {
  return isPageSize
    ? "the file has another page size, and the database is open elsewhere; close its users"
    : "other users hold locks on the database; end their transactions";
}

/**
 * The primary result code of SQLite. A copy that could not get a lock ends with 0, because the
 * connection that it copies from has no error.
 */
function sqliteCode(error: unknown): number {
  if (error instanceof Error && "errcode" in error && typeof error.errcode === "number") {
    return error.errcode & 0xff;
  }
  throw error;
}

const [, , source, destination] = process.argv;
if (source === undefined || destination === undefined) throw new Error("two paths are required");
const outcome = await importDatabase(source, destination);
process.stdout.write(JSON.stringify(outcome));
