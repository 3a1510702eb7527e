import * as path from "node:path";
import { FormatError } from "../lib/errors.ts";
import {
  isHotJournalHeader,
  JOURNAL_HEADER_SIZE,
  readJournal,
  readSuperJournalName,
} from "../sqlite/journal.ts";
import type { Database } from "./database.ts";
import type { OpenFile } from "./files.ts";
import { readDatabaseHeader } from "./whole-database.ts";

/** Plays a hot journal back into the database file, as SQLite would at its next open. */
export function rollBackJournal(db: Database): void {
  playBackJournal(db);
  db.files.remove("journal");
}

/**
 * The same, but the journal stays, for whoever brings the file forward again after it: until that is
 * done, the journal is what tells the next start that it must be. Returns whether there was one.
 */
export function playBackJournal(db: Database): boolean {
  const journal = db.files.get("journal");
  const file = db.files.get("database");
  if (journal !== undefined && file !== undefined) {
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
  return journal !== undefined;
}

/**
 * Whether the database file is what it would be after the journal was played back: whoever wrote the
 * journal died before he changed the file.
 */
export function changesNothing(db: Database): boolean {
  const journal = db.files.get("journal");
  const file = db.files.get("database");
  const { pageSize } = db.log.state;
  if (journal === undefined || file === undefined || pageSize === 0) return false;
  const found = new Uint8Array(pageSize);
  let isSame = true;
  const scan = readJournal(journal, journal.size(), pageSize, (pgno, page) => {
    if (!isSame || page.length !== pageSize) return;
    const count = file.readAt(found, 0, pageSize, (pgno - 1) * pageSize);
    isSame = count === pageSize && Buffer.compare(found, page) === 0;
  });
  if (scan === undefined) return false;
  return isSame && scan.pageSize === pageSize && file.size() === scan.initialPageCount * pageSize;
}

/**
 * A transaction over several databases is committed in all of them by the removal of its
 * super-journal, which each of their journals names. So a journal whose super-journal is gone must
 * not be played back: the database file holds a committed transaction. To be asked only before the
 * mount is there, because the name may lead into it.
 */
export function isCommittedBySuperJournal(db: Database): boolean {
  const journal = db.files.get("journal");
  if (journal === undefined || !hasMagic(journal)) return false;
  const superJournal = readSuperJournalName(journal, journal.size());
  if (superJournal === undefined) return false;
  const { directory, files } = db.files;
  // The transaction may have begun in a database outside of the mount. LiteFS kept what is in the
  // mount among the databases; here it is an ordinary file, and where the mount was, nobody says.
  const places = [superJournal, path.join(directory, "..", path.basename(superJournal))];
  for (let rest = superJournal; rest.includes("/");) {
    rest = rest.slice(rest.indexOf("/") + 1);
    places.push(path.join(directory, "../../files", rest));
  }
  // SQLite takes an empty one for none.
  return places.every((place) => (files.size(place) ?? 0) === 0);
}

/** The journal belongs to a transaction over several databases. */
export function namesSuperJournal(db: Database): boolean {
  const journal = db.files.get("journal");
  return journal !== undefined && readSuperJournalName(journal, journal.size()) !== undefined;
}

function hasMagic(journal: OpenFile): boolean {
  const header = new Uint8Array(JOURNAL_HEADER_SIZE);
  const count = journal.readAt(header, 0, header.length, 0);
  return count === header.length && isHotJournalHeader(header, 0);
}
