import type { Database } from "../database/database.ts";
import type { DatabaseEntry } from "./entry.ts";

/**
 * The databases of the mount by name. Those that nobody has asked for since the start are on the
 * shelf, where each is a line of text instead of a dozen objects, and its files are not looked at.
 * To ask for one takes it from there.
 */
export class DatabaseTable {
  readonly #awake = new Map<string, DatabaseEntry>();
  readonly #shelf = new Map<string, string>();
  readonly #open: (name: string, shelved: string) => Database;
  readonly #show: (db: Database) => DatabaseEntry;

  /** `open` makes a database of what stood on the shelf, and `show` adds it here. */
  constructor(
    open: (name: string, shelved: string) => Database,
    show: (db: Database) => DatabaseEntry,
  ) {
    this.#open = open;
    this.#show = show;
  }

  /** Takes it from the shelf if it is there. */
  get(name: string): DatabaseEntry | undefined {
    const awake = this.#awake.get(name);
    if (awake !== undefined) return awake;
    const shelved = this.#shelf.get(name);
    if (shelved === undefined) return undefined;
    return this.#show(this.#open(name, shelved));
  }

  add(entry: DatabaseEntry): void {
    this.#shelf.delete(entry.db.name);
    this.#awake.set(entry.db.name, entry);
  }

  /** One that is not awake. */
  shelve(name: string, shelved: string): void {
    this.#shelf.set(name, shelved);
  }

  /** All that are not on the shelf, where nobody writes, waits or has anything open. */
  awake(): Iterable<DatabaseEntry> {
    return this.#awake.values();
  }

  /** Names with what is known of them. */
  shelved(): ReadonlyMap<string, string> {
    return this.#shelf;
  }
}
