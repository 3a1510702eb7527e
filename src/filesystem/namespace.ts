import type { Database } from "../database/database.ts";
import { formatPosition } from "../lib/position.ts";
import { DatabaseEntry } from "./entry.ts";
import type { FileSystemHost } from "./file-system-host.ts";
import { LAG_NAME, nameOf, parseName, PRIMARY_NAME } from "./names.ts";
import type { NodeTable } from "./node-table.ts";
import { LAG_FILE_BYTES, LAG_NODE_ID, lagText, PRIMARY_NODE_ID } from "./nodes.ts";
import type { Node, TextNode } from "./nodes.ts";

const POSITION_FILE_BYTES = 34;

/** The names in the mount: databases with their files, and the virtual files that go with them. */
export class Namespace {
  readonly entries: Map<string, DatabaseEntry> = new Map<string, DatabaseEntry>();
  readonly #host: FileSystemHost;
  readonly #nodes: NodeTable;

  constructor(host: FileSystemHost, nodes: NodeTable) {
    this.#host = host;
    this.#nodes = nodes;
    nodes.addText(LAG_NODE_ID, LAG_FILE_BYTES, () => lagText(host.lagMs()));
    nodes.addText(PRIMARY_NODE_ID, 0, () => `${host.primaryHostname() ?? ""}\n`);
  }

  /** Shows a database in the mount. */
  add(db: Database): DatabaseEntry {
    const entry = new DatabaseEntry(db, (owner, kind) => this.#nodes.newFile(owner, kind));
    this.entries.set(db.name, entry);
    return entry;
  }

  find(name: string): Node | undefined {
    const parsed = parseName(name);
    switch (parsed.kind) {
      case "lag":
        return this.#nodes.get(LAG_NODE_ID);
      case "primary":
        return this.#showsPrimary ? this.#nodes.get(PRIMARY_NODE_ID) : undefined;
      case "file": {
        const entry = this.entries.get(parsed.database);
        if (entry === undefined || !entry.db.files.exists(parsed.file)) return undefined;
        return entry.node(parsed.file);
      }
      case "position":
      case "lock": {
        const entry = this.entries.get(parsed.database);
        return entry === undefined ? undefined : this.#text(entry, parsed.kind);
      }
      case "invalid":
        return undefined;
    }
  }

  list(): string[] {
    const names = [".", "..", LAG_NAME];
    if (this.#showsPrimary) names.push(PRIMARY_NAME);
    for (const { db } of this.entries.values()) {
      for (const kind of ["database", "journal", "wal", "shm"] as const) {
        if (db.files.exists(kind)) names.push(nameOf(db.name, kind));
      }
      if (db.store.pageCount > 0) names.push(`${db.name}-pos`);
    }
    return names;
  }

  /** A replica names its primary, as soon as it knows it. */
  get #showsPrimary(): boolean {
    return !this.#host.isPrimary() && this.#host.primaryHostname() !== undefined;
  }

  #text(entry: DatabaseEntry, kind: "position" | "lock"): TextNode {
    if (kind === "lock") return this.#nodes.newText(0, () => "");
    return this.#nodes.newText(POSITION_FILE_BYTES, () => this.#positionText(entry));
  }

  /** Whoever waits for a position here and then reads must find it. */
  #positionText(entry: DatabaseEntry): string {
    const position = this.#host.isPrimary() ? entry.db.position : entry.visiblePosition;
    return `${formatPosition(position)}\n`;
  }
}
