import * as fs from "node:fs";
import * as path from "node:path";
import type { Database } from "../database/database.ts";
import { nodeFiles } from "../database/files.ts";
import type { Files } from "../database/files.ts";
import type { DatabaseHost } from "../database/host.ts";
import { openDatabase } from "../database/recover.ts";
import { decodeShelved, encodeShelved, readShelf, writeShelf } from "../database/shelf-file.ts";
import { isSameFile, isUntouched, shelve, takeFromShelf } from "../database/shelved-database.ts";
import type { ShelvedDatabase } from "../database/shelved-database.ts";
import { errorCode, errorText } from "../lib/errors.ts";
import type { DatabaseTable } from "./database-table.ts";
import { isDatabaseName } from "./names.ts";
import type { ShelvedLook } from "./nodes.ts";
import { readAccess } from "./shown-access.ts";

/**
 * After an orderly stop so many are looked at before the mount is there, so that what is damaged is
 * known at once. After a crash all are, because some were written since the shelf was.
 */
const LOOKED_AT_FIRST = 1_000;
/** How often a long start says how far it is. */
const PROGRESS_EVERY_MS = 5_000;

/** A database found at the start: open, or at rest and on the shelf. */
export type Found =
  | { readonly db: Database }
  | { readonly shelved: ShelvedDatabase; readonly line: string };

/** `dbs/` in the data directory, and the shelf beside it. */
export class DatabaseDirectory {
  readonly #host: DatabaseHost;
  readonly #files: Files;
  readonly #dataDirectory: string;
  readonly #directory: string;
  /** From when every database was opened: a path may lead into our own mount. */
  #isMounted = false;

  constructor(host: DatabaseHost, files: Files, dataDirectory: string) {
    this.#host = host;
    this.#files = files;
    this.#dataDirectory = dataDirectory;
    this.#directory = path.join(dataDirectory, "dbs");
  }

  #pathOf(name: string): string {
    return path.join(this.#directory, name);
  }

  /** One that cannot be opened is quarantined, not fatal. */
  *find(wasClean: boolean): Generator<Found, void> {
    nodeFiles.mkdir(this.#directory);
    const shelf = readShelf(this.#files, this.#dataDirectory);
    const lines: string[] = [];
    let opened = 0;
    let looked = wasClean ? 0 : -Infinity;
    let isChanged = shelf?.isOfThisBoot !== true;
    const found = fs.readdirSync(this.#directory, { withFileTypes: true });
    const count = found.length;
    let toldAtMs = this.#host.nowMs();
    for (const [i, entry] of found.sort((a, b) => (a.name < b.name ? -1 : 1)).entries()) {
      const { name } = entry;
      if (this.#host.nowMs() - toldAtMs >= PROGRESS_EVERY_MS) {
        toldAtMs = this.#host.nowMs();
        this.#host.logger.info("opening databases", { done: i, count });
      }
      if (!isDatabaseName(name) || !isDirectory(entry, this.#directory)) {
        this.#host.logger.warn("ignored in the data directory", { name });
        continue;
      }
      const line = shelf?.lines.get(name);
      const known = line === undefined ? undefined : decodeShelved(line);
      const isTouched =
        known !== undefined && looked++ < LOOKED_AT_FIRST && !this.#isUntouched(known);
      if (isTouched && wasClean) this.#tellTouched(name);
      if (line === undefined || known === undefined || isTouched) {
        const db = this.open(name);
        opened++;
        const shelved = shelve(db);
        if (shelved === undefined) {
          yield { db };
          continue;
        }
        isChanged = true;
        const newLine = encodeShelved(shelved);
        lines.push(newLine);
        yield { shelved, line: newLine };
      } else {
        lines.push(line);
        yield { shelved: known, line };
      }
    }
    this.#isMounted = true;
    this.#host.logger.info("databases found", { count, opened });
    // For the next start, if it comes after a crash.
    if (isChanged) this.#writeShelf(lines);
  }

  /** False also when the disk does not say: then whoever opens it is told why. */
  #isUntouched(shelved: ShelvedDatabase): boolean {
    try {
      return isUntouched(shelved, this.#files, this.#pathOf(shelved.name));
    } catch {
      return false;
    }
  }

  #tellTouched(name: string): void {
    this.#host.logger.info("changed while litefs did not run, its log is read", { db: name });
  }

  open(name: string): Database {
    return openDatabase(name, this.#host, this.#files, this.#pathOf(name), this.#isMounted);
  }

  create(name: string): Database {
    nodeFiles.mkdir(this.#pathOf(name));
    return this.open(name);
  }

  takeFromShelf(name: string, line: string): Database {
    const { logger } = this.#host;
    try {
      const shelved = decodeShelved(line);
      const db = takeFromShelf(shelved, this.#host, this.#files, this.#pathOf(name));
      if (db !== undefined) return db;
      this.#tellTouched(name);
    } catch (error) {
      logger.warn("cannot be taken from the shelf", { db: name, error: errorText(error) });
    }
    this.#host.changed(name);
    return this.open(name);
  }

  /** Without its log: to list thousands of databases must not take several calls for each. */
  lookAtShelved(name: string, line: string): ShelvedLook | undefined {
    const { file, log } = decodeShelved(line);
    const databaseFile = path.join(this.#pathOf(name), "database");
    try {
      if (!isSameFile(this.#files.identify(databaseFile), file)) return undefined;
      const { timestampMs } = log.state;
      return { sizeBytes: file.sizeBytes, timestampMs, access: readAccess(databaseFile) };
    } catch {
      // Whoever opens it is told why.
      return undefined;
    }
  }

  /**
   * Those that are at rest are put on the shelf for the next start. The digest of what is written;
   * undefined when that cannot be.
   */
  close(databases: DatabaseTable): string | undefined {
    const { logger } = this.#host;
    const lines = [...databases.shelved().values()];
    for (const { db } of databases.awake()) {
      try {
        db.close();
        const shelved = shelve(db);
        if (shelved !== undefined) lines.push(encodeShelved(shelved));
      } catch (error) {
        logger.error("cannot close", { db: db.name, error: errorText(error) });
      }
    }
    return this.#writeShelf(lines);
  }

  #writeShelf(lines: readonly string[]): string | undefined {
    try {
      return writeShelf(this.#files, this.#dataDirectory, lines);
    } catch (error) {
      // The next start takes longer.
      this.#host.logger.error("cannot write the shelf", { error: errorText(error) });
      return undefined;
    }
  }
}

/** The kind comes with the name; to ask for that of each was a tenth of the start with many. */
function isDirectory(entry: fs.Dirent, directory: string): boolean {
  if (entry.isDirectory()) return true;
  if (!entry.isSymbolicLink()) return false;
  try {
    nodeFiles.list(path.join(directory, entry.name));
    return true;
  } catch (error) {
    // Any other failure is the database's own, and quarantines it.
    return errorCode(error) !== "ENOTDIR";
  }
}
