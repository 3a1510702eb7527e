import * as path from "node:path";
import { DatabaseFiles } from "../database/database-files.ts";
import { Database } from "../database/database.ts";
import { nodeFiles } from "../database/files.ts";
import type { DatabaseHost } from "../database/host.ts";
import { keepAside, limitKept } from "../database/keep-aside.ts";
import { TransactionLog } from "../database/log/transaction-log.ts";

/**
 * Puts a working copy (its database file, and its log if it has one) in the place of what is there,
 * which is kept aside. A crash in between leaves a database that the next start quarantines, and
 * everything of it in one of the two places.
 */
export function exchange(
  name: string,
  host: DatabaseHost,
  directory: string,
  work: string,
  parts: readonly string[],
): string {
  const nextLog = path.join(directory, "log.new");
  const hasLog = nodeFiles.list(path.join(work, "log")).length > 0;
  if (hasLog) {
    // The next start would take it for the log as soon as the old one is gone.
    nodeFiles.removeDirectory(nextLog);
    nodeFiles.rename(path.join(work, "log"), nextLog);
    nodeFiles.syncDirectory(directory);
  }
  const logDirectory = path.join(directory, "log");
  const stand = TransactionLog.standIn(nodeFiles, logDirectory, new Error("it is being replaced"));
  const db = new Database(name, host, new DatabaseFiles(nodeFiles, directory), stand);
  const kept = keepAside(db, "quarantine", parts);
  nodeFiles.rename(path.join(work, "database"), path.join(directory, "database"));
  if (hasLog) nodeFiles.rename(nextLog, logDirectory);
  nodeFiles.remove(path.join(directory, "shm"));
  nodeFiles.syncDirectory(directory);
  limitKept(nodeFiles, directory, host.keepAside);
  return kept;
}
