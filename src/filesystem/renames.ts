import { outcomeOf } from "../database/outcome.ts";
import type { Outcome } from "../database/outcome.ts";
import * as errno from "../fuse/errno.ts";
import { errorText, LitefsError } from "../lib/errors.ts";
import type { Conversion } from "./conversion.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import type { FileSystemHost } from "./file-system-host.ts";
import { parseName } from "./names.ts";
import type { Name } from "./names.ts";
import type { Namespace } from "./namespace.ts";
import type { Node } from "./nodes.ts";
import type { PlainFiles } from "./plain-files.ts";
import type { PlainNode } from "./plain-node.ts";

/** Of renameat2(2). */
const RENAME_NOREPLACE = 1;

/** One end of a rename. */
interface Place {
  readonly parent: PlainNode;
  readonly name: string;
  /** What has the name now. */
  readonly node: Node | undefined;
}

/** The result of a rename: an outcome of the engine or the number of a system error. */
type Result = Outcome | number;

/**
 * Renames. Between ordinary files one is what it is everywhere. A database that is renamed is
 * dropped under its old name and is there under the new one with the next transaction of that name;
 * what it replaces is replaced in one step.
 */
export class Renames {
  readonly #host: FileSystemHost;
  readonly #names: Namespace;
  readonly #plain: PlainFiles;
  readonly #conversion: Conversion;

  constructor(host: FileSystemHost, names: Namespace, plain: PlainFiles, conversion: Conversion) {
    this.#host = host;
    this.#names = names;
    this.#plain = plain;
    this.#conversion = conversion;
  }

  rename(
    oldParent: PlainNode,
    oldName: string,
    newParent: PlainNode,
    newName: string,
    flags: number,
  ): Result {
    if ((flags & ~RENAME_NOREPLACE) !== 0) return errno.EINVAL;
    try {
      return this.#rename(this.#place(oldParent, oldName), this.#place(newParent, newName), flags);
    } catch (error) {
      // What the engine refuses at the last moment is an answer; a system error is its caller's.
      if (!(error instanceof LitefsError)) throw error;
      const fields = { from: oldName, to: newName, error: errorText(error) };
      this.#host.logger.error("rename failed", fields);
      return outcomeOf(error);
    }
  }

  #rename(from: Place, to: Place, flags: number): Result {
    if (from.node === undefined) return errno.ENOENT;
    if ((flags & RENAME_NOREPLACE) !== 0 && to.node !== undefined) return errno.EEXIST;
    if (from.node.type === "text" || to.node?.type === "text") return errno.EACCES;
    if (from.node === to.node) return "ok";
    const name: Name = to.parent === this.#plain.root ? parseName(to.name) : { kind: "invalid" };
    if (name.kind === "lag" || name.kind === "primary") return errno.EACCES;
    const entry = name.kind === "file" ? this.#names.entries.get(name.database) : undefined;
    const target = entry?.db.files.exists("database") === true ? entry : undefined;
    if (from.node.type === "plain" && target === undefined) return this.#plainToPlain(from, to);
    if (!this.#host.mayCommit()) return errno.EROFS;
    const refusal = refuse(from.node) ?? (to.node === undefined ? undefined : refuse(to.node));
    if (refusal !== undefined) return refusal;
    if (from.node.type === "file" && from.node.kind !== "database") return errno.EBUSY;
    if (target?.db.isFenced === true) return errno.EROFS;
    if (target !== undefined && name.kind === "file" && name.file !== "database") {
      if (from.node.type === "file" || from.node.kind !== "file") return errno.EBUSY;
      return this.#toCompanion(from.node, target, name.file);
    }
    if (from.node.type === "file") return this.#database(from.node, to, name);
    return target === undefined ? errno.EBUSY : this.#plainToDatabase(from.node, from, to, target);
  }

  #place(parent: PlainNode, name: string): Place {
    const isRoot = parent === this.#plain.root;
    const node = isRoot ? this.#names.find(name) : this.#plain.find(parent, name);
    return { parent, name, node };
  }

  #plainToPlain(from: Place, to: Place): Result {
    const { node } = from;
    if (node?.type !== "plain") return errno.EBUSY;
    const becomes = to.parent === this.#plain.root && this.#isDatabaseUnder(node, to.name);
    if (becomes && !this.#mayCommit(to.name)) return errno.EROFS;
    this.#plain.rename(from.parent, from.name, to.parent, to.name);
    return becomes ? this.#conversion.promoteWhole(node) : "ok";
  }

  /** Asked before anything is moved: what was refused after that would be half done. */
  #mayCommit(database: string): boolean {
    return this.#host.mayCommit() && !this.#names.entryFor(database).db.isFenced;
  }

  #isDatabaseUnder(node: PlainNode, newName: string): boolean {
    const name = parseName(newName);
    if (node.kind !== "file" || name.kind !== "file" || name.file !== "database") return false;
    return this.#conversion.hasDatabaseContent(node);
  }

  #plainToDatabase(node: PlainNode, from: Place, to: Place, target: DatabaseEntry): Result {
    if (node.kind === "directory") return errno.ENOTDIR;
    if (this.#isDatabaseUnder(node, to.name)) return this.#conversion.replace(node, target);
    const outcome = this.#conversion.drop(target);
    if (outcome !== "ok") return outcome;
    this.#plain.rename(from.parent, from.name, to.parent, to.name);
    return "ok";
  }

  #toCompanion(
    node: PlainNode,
    target: DatabaseEntry,
    kind: "database" | "journal" | "wal" | "shm",
  ): Result {
    const outcome = target.db.unlink(kind);
    if (outcome !== "ok") return outcome;
    target.nodes.delete(kind);
    return this.#conversion.adoptCompanion(node, target, kind);
  }

  #database(node: FileNode, to: Place, name: Name): Result {
    if (to.node?.type === "plain" && to.node.kind === "directory") return errno.EISDIR;
    if (name.kind === "file" && name.file === "database") {
      if (!this.#mayCommit(name.database)) return errno.EROFS;
      const outcome = this.#conversion.rename(node, this.#names.entryFor(name.database));
      if (to.node?.type === "plain") this.#plain.unlink(to.parent, to.name);
      return outcome;
    }
    this.#conversion.demote(node, to.parent, to.name);
    return "ok";
  }
}

/** Nothing that is not committed may change its name, and nothing that another node may write. */
function refuse(node: Node): number | undefined {
  if (node.type !== "file") return undefined;
  if (node.entry.db.isLent) return errno.EBUSY;
  if (node.entry.db.status === "quarantined") return errno.EIO;
  if (node.entry.db.isFenced) return errno.EROFS;
  return node.kind === "database" && node.entry.db.hasOpenChanges ? errno.EBUSY : undefined;
}
