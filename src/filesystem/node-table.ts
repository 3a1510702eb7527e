import type { FileKind } from "../database/database-files.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import { LockTable } from "./lock-table.ts";
import { FIRST_FREE_NODE_ID } from "./nodes.ts";
import type { Node, TextNode } from "./nodes.ts";

/** Every node that the kernel knows by its number, until the kernel forgets it. */
export class NodeTable {
  readonly #nodes = new Map<number, Node>();
  #nextId = FIRST_FREE_NODE_ID;

  get(nodeId: number): Node | undefined {
    return this.#nodes.get(nodeId);
  }

  file(nodeId: number): FileNode | undefined {
    const node = this.#nodes.get(nodeId);
    return node?.type === "file" ? node : undefined;
  }

  newFile(entry: DatabaseEntry, kind: FileKind): FileNode {
    const node: FileNode = {
      type: "file",
      id: this.#nextId++,
      entry,
      kind,
      files: entry.db.files,
      locks: new LockTable(),
      lookups: 0,
      opens: 0,
      isUnlinked: false,
    };
    this.#nodes.set(node.id, node);
    return node;
  }

  /** A text whose name leads to a new node at each lookup. */
  newText(size: number, content: () => string): TextNode {
    return this.addText(this.#nextId++, size, content);
  }

  /** A text with a number of its own. */
  addText(id: number, size: number, content: () => string): TextNode {
    const node: TextNode = { type: "text", id, size, lookups: 0, content };
    this.#nodes.set(id, node);
    return node;
  }

  forget(nodeId: number, lookupCount: number): void {
    const node = this.#nodes.get(nodeId);
    if (node === undefined) return;
    node.lookups -= lookupCount;
    if (node.lookups > 0 || nodeId < FIRST_FREE_NODE_ID) return;
    if (node.type === "file" && node.entry.nodes.get(node.kind) === node) {
      // We hold locks on it ourselves, and the name will lead to the same node again.
      if (node.locks.size > 0) return;
      node.entry.nodes.delete(node.kind);
    }
    this.#nodes.delete(nodeId);
  }
}
