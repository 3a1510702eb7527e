import type { FileKind } from "../database/database-files.ts";
import { assert } from "../lib/assert.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import { LockTable } from "./lock-table.ts";
import { FIRST_FREE_NODE_ID } from "./nodes.ts";
import type { LockableNode, Node, ShelvedLook, SleepingNode, TextNode } from "./nodes.ts";
import { PlainNode } from "./plain-node.ts";
import type { PlainKind } from "./plain-node.ts";

/** Every node that the kernel knows by its number, until the kernel forgets it. */
export class NodeTable {
  readonly #nodes = new Map<number, Node | SleepingNode>();
  /** By the names of their databases. */
  readonly #sleeping = new Map<string, SleepingNode>();
  #nextId = FIRST_FREE_NODE_ID;
  /** Takes a database from the shelf, and so makes a file of its sleeping node. */
  wake: (database: string) => void = () => undefined;

  /** The kernel has forgotten an ordinary file. */
  plainForgotten: (node: PlainNode) => void = () => undefined;

  /** Whoever asks for a sleeping node wants more of it than it can do. */
  get(nodeId: number): Node | undefined {
    const node = this.#nodes.get(nodeId);
    if (node?.type !== "sleeping") return node;
    this.wake(node.name);
    const awake = this.#nodes.get(nodeId);
    assert(awake?.type !== "sleeping", "who is woken is awake");
    return awake;
  }

  lockable(nodeId: number): LockableNode | undefined {
    const node = this.get(nodeId);
    return node?.type === "text" ? undefined : node;
  }

  /** The kernel goes on to call the file of a database by the number that it had while it slept. */
  newFile(entry: DatabaseEntry, kind: FileKind): FileNode {
    const { name } = entry.db;
    const sleeping = kind === "database" ? this.#sleeping.get(name) : undefined;
    if (sleeping === undefined) return this.#addFile(this.#nextId++, entry, kind, new LockTable());
    this.#sleeping.delete(name);
    const node = this.#addFile(sleeping.id, entry, kind, new LockTable());
    node.lookups = sleeping.lookups;
    return node;
  }

  sleeping(database: string): SleepingNode | undefined {
    return this.#sleeping.get(database);
  }

  newSleeping(database: string, look: ShelvedLook): SleepingNode {
    const node: SleepingNode = {
      type: "sleeping",
      id: this.#nextId++,
      name: database,
      lookups: 0,
      ...look,
    };
    this.#nodes.set(node.id, node);
    this.#sleeping.set(database, node);
    return node;
  }

  /** The file behind a number has become one of a database; who has it open keeps his locks. */
  becomeFile(old: LockableNode, entry: DatabaseEntry, kind: FileKind): FileNode {
    const node = this.#addFile(old.id, entry, kind, old.locks);
    node.lookups = old.lookups;
    node.opens = old.opens;
    entry.nodes.set(kind, node);
    return node;
  }

  newPlain(kind: PlainKind, parent: PlainNode, name: string): PlainNode {
    const node = new PlainNode(this.#nextId++, kind, parent, name);
    this.#nodes.set(node.id, node);
    return node;
  }

  /** The file behind a number has become an ordinary one. */
  becomePlain(old: FileNode, plain: PlainNode): void {
    plain.lookups = old.lookups;
    plain.opens = old.opens;
    this.#nodes.set(plain.id, plain);
    if (old.entry.nodes.get(old.kind) === old) old.entry.nodes.delete(old.kind);
  }

  /** A node with a number of its own that is never forgotten. */
  add(node: PlainNode): void {
    this.#nodes.set(node.id, node);
  }

  #addFile(id: number, entry: DatabaseEntry, kind: FileKind, locks: LockTable): FileNode {
    const { files } = entry.db;
    const node: FileNode = {
      type: "file",
      id,
      entry,
      kind,
      files,
      locks,
      lookups: 0,
      opens: 0,
      isUnlinked: false,
    };
    this.#nodes.set(id, node);
    return node;
  }

  /** A text whose name leads to a new node at each lookup. */
  newText(size: number, content: () => string): TextNode {
    return this.addText(this.#nextId++, size, content);
  }

  /** `DB-lock`: always empty, and there to be locked. */
  newHaltLock(entry: DatabaseEntry): TextNode {
    const node = { ...this.newText(0, () => ""), haltLockOf: entry };
    this.#nodes.set(node.id, node);
    return node;
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
    if (node.type === "sleeping") this.#sleeping.delete(node.name);
    if (node.type === "file" && node.entry.nodes.get(node.kind) === node) {
      // We hold locks on it ourselves, and the name will lead to the same node again.
      if (node.locks.size > 0) return;
      node.entry.nodes.delete(node.kind);
    } else if (node.type === "plain") {
      if (node.parent?.children.get(node.name) === node) node.parent.children.delete(node.name);
      this.plainForgotten(node);
    }
    this.#nodes.delete(nodeId);
  }
}
