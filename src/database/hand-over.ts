import * as path from "node:path";
import { errorText } from "../lib/errors.ts";
import type { Database } from "./database.ts";
import type { Outcome } from "./outcome.ts";

/*
 * What a rename does to databases. The log of a database is told (`loose`) before its file is moved
 * in or out, and the move is one rename(2), so recovery after a crash at any point finds the file in
 * one place or the other: loose without a file means that it was moved away, loose with one that
 * what is there now is the database.
 *
 * Whoever calls made sure that this node is the primary and that nothing is uncommitted.
 */

/** A file becomes the database, in place of what there may be. It must begin like one. */
export function takeOverFile(db: Database, file: string, journal?: string): void {
  prepare(db, journal !== undefined);
  db.takeOver(file, journal);
}

/** The file becomes an ordinary one under a path, and the database is dropped. */
export function handOverFile(db: Database, to: string): void {
  prepare(db);
  const { files } = db.files;
  files.rename(db.files.pathOf("database"), to);
  // What follows makes recovery remove a file that it finds here.
  files.syncDirectory(path.dirname(to));
  finishDrop(db);
}

/** The file of one database becomes that of another, in place of what that may be. */
export function moveFile(from: Database, to: Database): Outcome {
  prepare(from);
  prepare(to);
  to.takeOver(from.files.pathOf("database"), undefined);
  finishDrop(from);
  return to.endLooseWrites();
}

function prepare(db: Database, hasJournal = false): void {
  // The file alone is to be the whole database.
  db.beforeWalReset();
  // Whoever has it open keeps it.
  db.files.get("database");
  // Without a log recovery takes over what it finds. With a journal SQLite is at its very first
  // transaction, and without that nothing is to be left.
  if (db.log.txid > 0 || !hasJournal) db.log.appendLoose();
}

function finishDrop(db: Database): void {
  try {
    if (db.store.pageCount > 0) db.appendDeletion();
  } catch (error) {
    // Its file has another name already, which only recovery can bring to an end.
    db.quarantine(`its end cannot be recorded, restart litefs: ${errorText(error)}`);
    throw error;
  }
  db.removeFiles();
}
