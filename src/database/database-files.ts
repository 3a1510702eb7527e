import * as path from "node:path";
import type { Files, OpenFile } from "./files.ts";

/** The four files SQLite keeps for a database, by their name in `dbs/<name>/`. */
export type FileKind = "database" | "journal" | "wal" | "shm";

/** One bit each, to note which of them there are. */
const BIT: Readonly<Record<FileKind, number>> = { database: 1, journal: 2, wal: 4, shm: 8 };
const UNKNOWN = -1;

/**
 * The SQLite files of one database in the data directory. Descriptors open on first use and close
 * together when nobody needs the database, so that thousands of idle databases hold none.
 *
 * Nobody else changes the directory, so it is looked at once: a listing of 50,000 databases, or the
 * lookup of a journal that is not there, asks the disk nothing.
 */
export class DatabaseFiles {
  readonly files: Files;
  readonly directory: string;
  /** Only while a file is open: a database at rest costs no map. */
  #open: Map<FileKind, OpenFile> | undefined;
  /** Bits of the files that exist, or UNKNOWN. */
  #present = UNKNOWN;
  /**
   * A file was created or removed, and a power cut may still undo that. At first by a process before
   * this one: when it was killed, what it had not synced stayed visible and is lost all the same.
   */
  #namesChanged = true;
  /** The application has asked for a sync of the database file that was put off. */
  #owesDatabaseSync = false;
  /** What is read here cannot be trusted any more: whoever has a file open gets an error. */
  isRevoked = false;
  /** The database file, or the names, could not be synced: any page written since may be lost. */
  onSyncFailed: (error: unknown) => void = () => undefined;

  constructor(files: Files, directory: string) {
    this.files = files;
    this.directory = directory;
  }

  pathOf(name: string): string {
    return path.join(this.directory, name);
  }

  /** The open file, or undefined when it does not exist. */
  get(kind: FileKind): OpenFile | undefined {
    const open = this.#open?.get(kind);
    if (open !== undefined) return open;
    if (!this.exists(kind)) return undefined;
    const file = this.files.open(this.pathOf(kind));
    if (file === undefined) this.#present &= ~BIT[kind];
    else this.#opened(kind, file);
    return file;
  }

  getOrCreate(kind: FileKind): OpenFile {
    const open = this.get(kind);
    if (open !== undefined) return open;
    this.files.mkdir(this.directory);
    const file = this.files.open(this.pathOf(kind), { create: true });
    if (file === undefined) throw new Error(`cannot create ${this.pathOf(kind)}`);
    if (kind !== "shm") this.#namesChanged = true;
    this.#present |= BIT[kind];
    this.#opened(kind, file);
    return file;
  }

  #opened(kind: FileKind, file: OpenFile): void {
    this.#open ??= new Map<FileKind, OpenFile>();
    this.#open.set(kind, file);
  }

  /** The names in the directory, of which those of the four kinds are kept in mind. */
  look(): readonly string[] {
    const names = this.files.list(this.directory);
    this.#present = bitsOf(names);
    return names;
  }

  /** Somebody else has moved files of the directory. */
  forgetNames(): void {
    this.#present = UNKNOWN;
  }

  exists(kind: FileKind): boolean {
    if (this.#present === UNKNOWN) this.look();
    return (this.#present & BIT[kind]) !== 0;
  }

  /** Bytes; 0 when it does not exist. */
  size(kind: FileKind): number {
    const open = this.#open?.get(kind);
    if (open !== undefined) return open.size();
    return this.exists(kind) ? (this.files.size(this.pathOf(kind)) ?? 0) : 0;
  }

  remove(kind: FileKind): void {
    if (!this.exists(kind)) return;
    this.#close(kind);
    this.files.remove(this.pathOf(kind));
    this.#present &= ~BIT[kind];
    if (kind !== "shm") this.#namesChanged = true;
  }

  /**
   * Makes the files that exist, and only they, survive a power cut. A journal whose name is lost
   * cannot undo what is half written, and one that comes back would undo what was committed.
   */
  syncNames(): void {
    if (!this.#namesChanged || this.files.size(this.directory) === undefined) return;
    try {
      this.files.syncDirectory(this.directory);
    } catch (error) {
      this.onSyncFailed(error);
      throw error;
    }
    this.#namesChanged = false;
  }

  /** The caller knows where else the bytes are that a power cut could take. */
  putOffDatabaseSync(): void {
    this.#owesDatabaseSync = true;
  }

  get owesDatabaseSync(): boolean {
    return this.#owesDatabaseSync;
  }

  /** The database file, and that it exists, survive a power cut when this returns. */
  syncDatabase(): void {
    const file = this.get("database");
    try {
      file?.sync();
    } catch (error) {
      this.onSyncFailed(error);
      throw error;
    }
    this.#owesDatabaseSync = false;
    this.syncNames();
  }

  /**
   * Takes the names away. Whoever has a file open keeps it through this object; what comes next
   * under the names belongs to another. A file given as the next database takes the place of the
   * old one without a moment in between.
   */
  retire(nextDatabase?: string): DatabaseFiles {
    const next = this.successor();
    for (const kind of ["journal", "wal", "shm", "database"] as const) {
      this.get(kind);
      if (kind !== "database" || nextDatabase === undefined) {
        this.files.remove(this.pathOf(kind));
        continue;
      }
      this.files.mkdir(this.directory);
      next.moveIn("database", nextDatabase);
    }
    return next;
  }

  /** Gives a file of the data directory one of these names, also over what has it. */
  moveIn(kind: FileKind, from: string): void {
    this.#close(kind);
    this.files.rename(from, this.pathOf(kind));
    this.#namesChanged = true;
    if (this.#present !== UNKNOWN) this.#present |= BIT[kind];
  }

  #close(kind: FileKind): void {
    this.#open?.get(kind)?.close();
    this.#open?.delete(kind);
  }

  /** What stands under the names from now on; whoever has a file open keeps it through this. */
  successor(): DatabaseFiles {
    const next = new DatabaseFiles(this.files, this.directory);
    next.onSyncFailed = this.onSyncFailed;
    return next;
  }

  closeAll(): void {
    if (this.#open === undefined) return;
    for (const file of this.#open.values()) file.close();
    this.#open = undefined;
  }
}

function bitsOf(names: readonly string[]): number {
  let bits = 0;
  for (const name of names) {
    if (name === "database" || name === "journal" || name === "wal" || name === "shm") {
      bits |= BIT[name];
    }
  }
  return bits;
}
