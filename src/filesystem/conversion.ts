import * as path from "node:path";
import type { DatabaseFiles, FileKind } from "../database/database-files.ts";
import { handOverFile, moveFile, takeOverFile } from "../database/hand-over.ts";
import type { Outcome } from "../database/outcome.ts";
import { FormatError } from "../lib/errors.ts";
import { DATABASE_HEADER_SIZE, parseDatabaseHeader } from "../sqlite/database-header.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import type { FileSystemHost } from "./file-system-host.ts";
import type { HandleTable } from "./handle-table.ts";
import { nameOf, parseName } from "./names.ts";
import type { NodeTable } from "./node-table.ts";
import type { PlainFiles } from "./plain-files.ts";
import type { PlainNode } from "./plain-node.ts";

const COPY_BYTES = 1024 * 1024;

export interface ConversionOptions {
  readonly host: FileSystemHost;
  readonly nodes: NodeTable;
  readonly handles: HandleTable;
  readonly plain: PlainFiles;
  /** The database of a name, made when there is none. */
  entryFor(name: string): DatabaseEntry;
  closeIfUnused(files: DatabaseFiles): void;
}

/**
 * Where ordinary files become databases and databases ordinary files. A file in the root of the
 * mount is a database from the moment it begins like one, until it is emptied, replaced or moved
 * out of the root. Its node keeps its number, so descriptors, locks and mappings go on.
 */
export class Conversion {
  readonly #options: ConversionOptions;

  constructor(options: ConversionOptions) {
    this.#options = options;
  }

  /** Whether a file would be a database once these bytes are written to it. */
  becomesDatabase(
    node: PlainNode,
    offset: number,
    data: Uint8Array,
    start: number,
    size: number,
  ): boolean {
    if (offset >= DATABASE_HEADER_SIZE || node.kind !== "file" || node.isUnlinked) return false;
    if (!couldBeDatabase(node)) {
      if (offset === 0 && startsLikeDatabase(data, start, size)) this.#noteLocal(node);
      return false;
    }
    const head = new Uint8Array(DATABASE_HEADER_SIZE);
    if (offset > 0 || size < head.length) head.set(this.#options.plain.head(node, head.length));
    head.set(data.subarray(start, start + Math.min(size, head.length - offset)), offset);
    return isHeader(head);
  }

  /** Whoever puts a database where it stays on this node should know. */
  #noteLocal(node: PlainNode): void {
    if (node.isKnownLocal) return;
    node.isKnownLocal = true;
    const { host, plain } = this.#options;
    const file = path.relative(plain.root.path, node.path);
    host.logger.warn("not replicated: only databases in the root of the mount are", { file });
  }

  /** Whether a file that is there should be a database. */
  isDatabase(node: PlainNode): boolean {
    return couldBeDatabase(node) && this.hasDatabaseContent(node);
  }

  hasDatabaseContent(node: PlainNode): boolean {
    return isHeader(this.#options.plain.head(node, DATABASE_HEADER_SIZE));
  }

  /** Makes a file of the root a database. What it holds is not committed yet. */
  promote(node: PlainNode): FileNode | undefined {
    const { plain } = this.#options;
    const entry = this.#options.entryFor(node.name);
    if (entry.db.status === "quarantined") return undefined;
    const journalName = nameOf(node.name, "journal");
    const journal = plain.hasCompanion(journalName)
      ? plain.find(plain.root, journalName)
      : undefined;
    takeOverFile(entry.db, node.path, journal?.path);
    if (journal !== undefined) this.#nowFile(journal, entry, "journal");
    return this.#nowFile(node, entry, "database");
  }

  /** As promote, and commits what it holds, unless a journal says that it is not complete. */
  promoteWhole(node: PlainNode): Outcome {
    const file = this.promote(node);
    return file === undefined ? "io" : file.entry.db.endLooseWrites();
  }

  /** Drops a database; its file goes on as an ordinary one. */
  demote(node: FileNode, parent: PlainNode, name: string): PlainNode {
    const { handles, nodes, plain } = this.#options;
    const { entry, files } = node;
    handOverFile(entry.db, parent.pathOf(name));
    const now = plain.adopt(parent, name, node);
    nodes.becomePlain(node, now);
    handles.rebind(node, now);
    if (now.opens > 0) plain.open(now);
    this.#dropped(entry, files);
    return now;
  }

  /** Renames a database, perhaps over another one. */
  rename(node: FileNode, to: DatabaseEntry): Outcome {
    const { handles, nodes } = this.#options;
    const { entry, files } = node;
    const replaced = to.db.files;
    const outcome = moveFile(entry.db, to.db);
    handles.rebind(node, nodes.becomeFile(node, to, "database"));
    if (entry.nodes.get("database") === node) entry.nodes.delete("database");
    this.#dropped(entry, files);
    this.#dropped(to, replaced);
    return outcome;
  }

  /** Removes a database with all its files. */
  drop(entry: DatabaseEntry): Outcome {
    const { files } = entry.db;
    const outcome = entry.db.drop();
    if (outcome === "ok") this.#dropped(entry, files);
    return outcome;
  }

  /** An ordinary file takes the place of a database and is one itself. */
  replace(node: PlainNode, to: DatabaseEntry): Outcome {
    const replaced = to.db.files;
    takeOverFile(to.db, node.path);
    this.#nowFile(node, to, "database");
    this.#dropped(to, replaced);
    return to.db.endLooseWrites();
  }

  /**
   * An ordinary file whose name makes it the journal or WAL of a database is written into that, as
   * if an application had copied it there.
   */
  adoptCompanion(node: PlainNode, entry: DatabaseEntry, kind: FileKind): Outcome {
    const { plain } = this.#options;
    if (kind !== "shm") {
      const outcome = this.#copyIn(node, entry, kind);
      if (outcome !== "ok") return outcome;
    }
    plain.unlink(node.parent ?? plain.root, node.name);
    // The wal-index of another file would not fit: SQLite makes a new one.
    if (kind !== "shm") this.#nowFile(node, entry, kind);
    return "ok";
  }

  /**
   * A database has come whose name an ordinary file has. If that is empty, it was made by an
   * application which opened the database too early: it has the database open from now on. A file
   * with a content keeps that, unseen while the database is there.
   */
  giveWay(node: PlainNode, entry: DatabaseEntry): boolean {
    const { plain } = this.#options;
    if (node.kind !== "file" || node.opens === 0 || plain.attributes(node).size > 0) return false;
    plain.unlink(plain.root, node.name);
    this.#nowFile(node, entry, "database");
    return true;
  }

  #copyIn(node: PlainNode, entry: DatabaseEntry, kind: FileKind): Outcome {
    const { plain } = this.#options;
    const data = new Uint8Array(COPY_BYTES);
    entry.db.files.getOrCreate(kind);
    plain.open(node);
    try {
      for (let offset = 0; ;) {
        const count = plain.read(node, data, 0, data.length, offset);
        if (count === 0) return "ok";
        const outcome = entry.db.write(kind, offset, data, 0, count);
        // A WAL may hold a transaction that replicas have yet to acknowledge; nobody waits for that.
        if (outcome !== "ok" && outcome !== "later") return outcome;
        offset += count;
      }
    } finally {
      plain.closeIfUnused(node);
    }
  }

  #nowFile(plain: PlainNode, entry: DatabaseEntry, kind: FileKind): FileNode {
    const { handles, nodes } = this.#options;
    const node = nodes.becomeFile(plain, entry, kind);
    handles.rebind(plain, node);
    this.#options.plain.moved(plain);
    return node;
  }

  /** Names have gone that the kernel may remember, and files that perhaps nobody has open. */
  #dropped(entry: DatabaseEntry, files: DatabaseFiles): void {
    entry.forgetIndex();
    for (const kind of ["journal", "wal", "shm"] as const) entry.db.kernel.invalidateName(kind);
    this.#options.closeIfUnused(files);
  }
}

/** Only what lies in the root has a name that other nodes could know. */
function couldBeDatabase(node: PlainNode): boolean {
  if (node.kind !== "file" || node.isUnlinked || !node.isInRoot) return false;
  const parsed = parseName(node.name);
  return parsed.kind === "file" && parsed.file === "database";
}

/** Whether a file whose first bytes these are is a database. */
export function startsLikeDatabase(data: Uint8Array, start: number, size: number): boolean {
  return isHeader(data.subarray(start, start + size));
}

function isHeader(bytes: Uint8Array): boolean {
  return !(parseDatabaseHeader(bytes) instanceof FormatError);
}
