import * as path from "node:path";
import { FormatError } from "../lib/errors.ts";
import { readJournal, readSuperJournalName } from "../sqlite/journal.ts";
import type { Database } from "./database.ts";
import type { OpenFile } from "./files.ts";
import { readDatabaseHeader } from "./whole-database.ts";

/** Plays a hot journal back into the database file, as SQLite would at its next open. */
export function rollBackJournal(db: Database): void {
  const journal = db.files.get("journal");
  const file = db.files.get("database");
  if (journal !== undefined && file !== undefined && !isStaleJournal(db, journal)) {
    let pageSize = db.log.state.pageSize;
    const header = readDatabaseHeader(file);
    if (pageSize === 0 && !(header instanceof FormatError)) pageSize = header.pageSize;
    const scan = readJournal(journal, journal.size(), pageSize, (pgno, page) => {
      file.writeAt(page, 0, page.length, (pgno - 1) * page.length);
    });
    if (scan !== undefined) {
      file.truncate(scan.initialPageCount * scan.pageSize);
      file.sync();
    }
  }
  db.files.remove("journal");
}

function isStaleJournal(db: Database, journal: OpenFile): boolean {
  const superJournal = readSuperJournalName(journal, journal.size());
  if (superJournal === undefined) return false;
  // Super-journals are ordinary files; LiteFS kept them among the databases.
  const { directory, files } = db.files;
  const name = path.basename(superJournal);
  return [path.join(directory, "../../files", name), path.join(directory, "..", name)].every(
    (file) => files.size(file) === undefined,
  );
}
