import * as path from "node:path";
import { LockTable } from "./lock-table.ts";

export type PlainKind = "file" | "directory" | "symlink";

/** An ordinary file, directory or symbolic link of this node, as the kernel knows it. */
export class PlainNode {
  readonly type = "plain" as const;
  readonly id: number;
  readonly kind: PlainKind;
  readonly locks: LockTable;
  /** Nodes of a directory that the kernel knows, by name. */
  readonly children: Map<string, PlainNode> = new Map<string, PlainNode>();
  /** The directory it is in; undefined for the root of the mount. */
  parent: PlainNode | undefined;
  /** The root's is where the tree is kept. */
  name: string;
  /** References the kernel holds. */
  lookups = 0;
  /** Open descriptors of applications. */
  opens = 0;
  /** Its name is gone; who has it open still has it. */
  isUnlinked = false;
  /** That it is a database which stays on this node has been said. */
  isKnownLocal = false;
  /** One descriptor serves all who have it open; -1 while nobody has. */
  fd = -1;
  /** Names in this directory have changed since it was synced last. */
  namesChanged = false;

  constructor(
    id: number,
    kind: PlainKind,
    parent: PlainNode | undefined,
    name: string,
    locks: LockTable = new LockTable(),
  ) {
    this.id = id;
    this.kind = kind;
    this.parent = parent;
    this.name = name;
    this.locks = locks;
  }

  /** Where it is kept. */
  get path(): string {
    return this.parent === undefined ? this.name : path.join(this.parent.path, this.name);
  }

  /** Where a name in this directory is kept. */
  pathOf(name: string): string {
    return path.join(this.path, name);
  }

  get isInRoot(): boolean {
    return this.parent !== undefined && this.parent.parent === undefined;
  }
}
