import type { Database } from "../database/database.ts";
import type { FileKind } from "../database/database-files.ts";
import { formatPosition } from "../lib/position.ts";
import type { Conversion } from "./conversion.ts";
import { DatabaseTable } from "./database-table.ts";
import type { DirectoryEntry } from "./directory-listings.ts";
import { DatabaseEntry } from "./entry.ts";
import type { EntryParts, FileNode } from "./entry.ts";
import type { FileSystemHost } from "./file-system-host.ts";
import { LAG_NAME, nameOf, parseName, PRIMARY_NAME, ROLE_NAME } from "./names.ts";
import type { Name } from "./names.ts";
import type { NodeTable } from "./node-table.ts";
import { LAG_FILE_BYTES, LAG_NODE_ID, lagText, PRIMARY_NODE_ID, ROLE_NODE_ID } from "./nodes.ts";
import type { Node, SleepingNode, TextNode } from "./nodes.ts";
import type { PlainFiles } from "./plain-files.ts";
import type { WriteTurnsHost } from "./write-turn-kinds.ts";

const POSITION_FILE_BYTES = 34;

/**
 * The names in the root of the mount: databases with their files, the virtual files that go with
 * them, and ordinary files. Where a database and an ordinary file have the same name, which only
 * replication can bring about, the database is seen.
 */
export class Namespace {
  readonly entries: DatabaseTable;
  readonly #host: FileSystemHost;
  readonly #nodes: NodeTable;
  readonly #plain: PlainFiles;
  /** One for all entries. */
  readonly #newNode = (owner: DatabaseEntry, kind: FileKind): FileNode =>
    this.#nodes.newFile(owner, kind);
  readonly #add: (db: Database) => DatabaseEntry;
  readonly #turns: WriteTurnsHost;
  readonly #makeParts: ((entry: DatabaseEntry, host: WriteTurnsHost) => EntryParts) | undefined;
  conversion!: Conversion;

  /** `add` shows a database in the mount. */
  constructor(
    host: FileSystemHost,
    nodes: NodeTable,
    plain: PlainFiles,
    add: (db: Database) => DatabaseEntry,
    turns: WriteTurnsHost,
    makeParts?: (entry: DatabaseEntry, host: WriteTurnsHost) => EntryParts,
  ) {
    this.#makeParts = makeParts;
    this.#host = host;
    this.#nodes = nodes;
    this.#plain = plain;
    this.#add = add;
    this.#turns = turns;
    this.entries = new DatabaseTable((name, shelved) => host.takeFromShelf(name, shelved), add);
    nodes.wake = (name) => void this.entries.get(name);
    nodes.addText(LAG_NODE_ID, LAG_FILE_BYTES, () => lagText(host.lagMs()));
    nodes.addText(ROLE_NODE_ID, 0, () => `${host.phase()}\n`);
    nodes.addText(PRIMARY_NODE_ID, 0, () => `${host.primaryHostname() ?? ""}\n`);
  }

  /** Shows a database in the mount. */
  add(db: Database): DatabaseEntry {
    const entry = new DatabaseEntry(db, this.#newNode, this.#turns, this.#makeParts);
    this.entries.add(entry);
    // What changes from now on must reach the kernel by the number that it knows.
    if (this.#nodes.sleeping(db.name) !== undefined) entry.node("database");
    return entry;
  }

  /** The file of a database on the shelf; undefined for any other, and where it is not as it was. */
  findSleeping(name: string): SleepingNode | undefined {
    const line = this.entries.shelved().get(name);
    if (line === undefined) return undefined;
    const known = this.#nodes.sleeping(name);
    if (known !== undefined) return known;
    const look = this.#host.lookAtShelved(name, line);
    return look && this.#nodes.newSleeping(name, look);
  }

  /** The database of a name, made when there is none; its file is yet to come. */
  entryFor(name: string): DatabaseEntry {
    return this.entries.get(name) ?? this.#add(this.#host.createDatabase(name));
  }

  /** The database that a name belongs to, as its file or one beside it; not when it is dropped. */
  liveEntry(parsed: Name): DatabaseEntry | undefined {
    if (parsed.kind !== "file") return undefined;
    const entry = this.entries.get(parsed.database);
    return entry?.db.files.exists("database") === true ? entry : undefined;
  }

  /** Whether a name is that of a virtual file beside a database that was dropped. */
  isOfDropped(name: string): boolean {
    const parsed = parseName(name);
    if (parsed.kind !== "position" && parsed.kind !== "lock") return false;
    return this.entries.get(parsed.database)?.db.files.exists("database") !== true;
  }

  /** Whether a name is that of a journal, a WAL or a wal-index of a database that there is or was. */
  isOfDatabase(name: string): boolean {
    const parsed = parseName(name);
    if (parsed.kind !== "file" || parsed.file === "database") return false;
    return this.entries.get(parsed.database) !== undefined;
  }

  find(name: string): Node | undefined {
    const parsed = parseName(name);
    switch (parsed.kind) {
      case "lag":
        return this.#nodes.get(LAG_NODE_ID);
      case "role":
        return this.#nodes.get(ROLE_NODE_ID);
      case "primary":
        return this.#showsPrimary ? this.#nodes.get(PRIMARY_NODE_ID) : undefined;
      case "file":
        return this.#file(name, parsed.database, parsed.file);
      case "position":
      case "lock": {
        const entry = this.entries.get(parsed.database);
        if (entry !== undefined) return this.#text(entry, parsed.kind);
        return this.#plain.find(this.#plain.root, name);
      }
      case "invalid":
        return this.#plain.find(this.#plain.root, name);
    }
  }

  #file(name: string, database: string, kind: FileKind): Node | undefined {
    const entry = this.entries.get(database);
    if (entry?.db.files.exists(kind) === true) return entry.node(kind);
    if (kind !== "database" && entry?.db.files.exists("database") === true) {
      if (!this.#plain.hasCompanion(name) || !this.#adopt(name, entry, kind)) return undefined;
      return entry.db.files.exists(kind) ? entry.node(kind) : undefined;
    }
    const { root } = this.#plain;
    const known = root.children.get(name);
    if (known !== undefined) return known;
    const node = this.#plain.find(root, name);
    // A database that is not known as one was left by a crash in the middle of a rename.
    if (node === undefined || !this.#host.isPrimary() || !this.conversion.isDatabase(node)) {
      return node;
    }
    this.conversion.promoteWhole(node);
    return this.#nodes.get(node.id);
  }

  /** A WAL or journal that was there before its database belongs to it from now on. */
  #adopt(name: string, entry: DatabaseEntry, kind: FileKind): boolean {
    const { db } = entry;
    if (!this.#host.isPrimary() || db.hasOpenChanges || db.status === "quarantined") return false;
    const node = this.#plain.find(this.#plain.root, name);
    return node?.kind === "file" && this.conversion.adoptCompanion(node, entry, kind) === "ok";
  }

  /**
   * Positions can be opened and are not listed: whoever copies or removes everything that begins
   * with the name of a database wants its files.
   */
  list(): DirectoryEntry[] {
    const names = [".", ".."].map((name): DirectoryEntry => ({ name, type: "directory" }));
    const add = (name: string): void => {
      names.push({ name, type: "file" });
    };
    add(LAG_NAME);
    add(ROLE_NAME);
    if (this.#showsPrimary) add(PRIMARY_NAME);
    // On the shelf are only those that have nothing else.
    for (const name of this.entries.shelved().keys()) add(name);
    for (const { db } of this.entries.awake()) {
      for (const kind of ["database", "journal", "wal", "shm"] as const) {
        if (db.files.exists(kind)) add(nameOf(db.name, kind));
      }
    }
    for (const entry of this.#plain.list(this.#plain.root)) {
      if (this.liveEntry(parseName(entry.name)) === undefined) names.push(entry);
    }
    return names;
  }

  /** A replica names its primary, as soon as it knows it. */
  get #showsPrimary(): boolean {
    return !this.#host.isPrimary() && this.#host.primaryHostname() !== undefined;
  }

  #text(entry: DatabaseEntry, kind: "position" | "lock"): TextNode {
    if (kind === "lock") return this.#nodes.newHaltLock(entry);
    return this.#nodes.newText(POSITION_FILE_BYTES, () => this.#positionText(entry));
  }

  /** Whoever waits for a position here and then reads must find it. */
  #positionText(entry: DatabaseEntry): string {
    const position = this.#host.isPrimary() ? entry.db.position : entry.visiblePosition;
    return `${formatPosition(position)}\n`;
  }
}
