import * as fs from "node:fs";
import type { FileAttributes } from "../fuse/attributes.ts";
import {
  FATTR_ATIME,
  FATTR_ATIME_NOW,
  FATTR_GID,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_MTIME_NOW,
  FATTR_SIZE,
  FATTR_UID,
  FUSE_ROOT_ID,
} from "../fuse/constants.ts";
import { ESTALE } from "../fuse/errno.ts";
import type { SetattrFields } from "../fuse/handler.ts";
import type { DirectoryEntry } from "./directory-listings.ts";
import type { FileNode } from "./entry.ts";
import { companionSuffix } from "./names.ts";
import type { NodeTable } from "./node-table.ts";
import { PlainNode } from "./plain-node.ts";
import type { PlainKind } from "./plain-node.ts";

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR } = fs.constants;
const PERMISSIONS = 0o7777;
/** Keeps an owner or group as it is. */
const UNCHANGED = -1;

/** Who makes a file: what a FUSE request says of its sender. */
export interface Creator {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Everything in the mount that is no database: ordinary files, directories and symbolic links.
 * They belong to this node alone and lie in a directory of their own, in the same tree as in the
 * mount, so permissions, owners and times are those of the files there. Nobody else changes that
 * directory. Failures are thrown as system errors.
 */
export class PlainFiles {
  /** The root of the mount, as far as ordinary files go. */
  readonly root: PlainNode;
  readonly #nodes: NodeTable;
  /** Names in the root that end like a file of a database: whose they are may change. */
  readonly #companions = new Set<string>();

  constructor(directory: string, nodes: NodeTable) {
    this.#nodes = nodes;
    fs.mkdirSync(directory, { recursive: true });
    this.root = new PlainNode(FUSE_ROOT_ID, "directory", undefined, directory);
    nodes.add(this.root);
    nodes.plainForgotten = closeFd;
    for (const name of fs.readdirSync(directory)) this.#added(this.root, name);
  }

  // Names.

  find(parent: PlainNode, name: string): PlainNode | undefined {
    const known = parent.children.get(name);
    if (known !== undefined) return known;
    const stat = fs.lstatSync(parent.pathOf(name), { throwIfNoEntry: false });
    if (stat === undefined) return undefined;
    // What we cannot make, somebody else has put there.
    if (!stat.isFile() && !stat.isDirectory() && !stat.isSymbolicLink()) return undefined;
    const kind = stat.isFile() ? "file" : stat.isDirectory() ? "directory" : "symlink";
    return this.#newNode(kind, parent, name);
  }

  /** Whether there is an ordinary file in the root whose name ends like a file of a database. */
  hasCompanion(name: string): boolean {
    return this.#companions.size > 0 && this.#companions.has(name);
  }

  create(
    parent: PlainNode,
    name: string,
    mode: number,
    by: Creator,
    exclusive: boolean,
  ): PlainNode {
    const flags = O_RDWR | O_CREAT | O_NOFOLLOW | (exclusive ? O_EXCL : 0);
    const fd = fs.openSync(parent.pathOf(name), flags, mode & PERMISSIONS);
    try {
      // Ours was the file mode creation mask of the process.
      fs.fchmodSync(fd, mode & PERMISSIONS);
      setOwner(by, parent, (uid, gid) => fs.fchownSync(fd, uid, gid));
    } finally {
      fs.closeSync(fd);
    }
    this.#added(parent, name);
    return parent.children.get(name) ?? this.#newNode("file", parent, name);
  }

  mkdir(parent: PlainNode, name: string, mode: number, by: Creator): PlainNode {
    const directory = parent.pathOf(name);
    fs.mkdirSync(directory, mode & PERMISSIONS);
    const inherited = fs.statSync(directory).mode & 0o2000;
    fs.chmodSync(directory, (mode & PERMISSIONS) | inherited);
    setOwner(by, parent, (uid, gid) => fs.chownSync(directory, uid, gid));
    this.#added(parent, name);
    return this.#newNode("directory", parent, name);
  }

  symlink(parent: PlainNode, name: string, target: string, by: Creator): PlainNode {
    const link = parent.pathOf(name);
    fs.symlinkSync(target, link);
    setOwner(by, parent, (uid, gid) => fs.lchownSync(link, uid, gid));
    this.#added(parent, name);
    return this.#newNode("symlink", parent, name);
  }

  readlink(node: PlainNode): Uint8Array {
    return fs.readlinkSync(node.path, { encoding: "buffer" });
  }

  unlink(parent: PlainNode, name: string): void {
    this.#keep(parent, name);
    fs.unlinkSync(parent.pathOf(name));
    this.#removed(parent, name);
  }

  rmdir(parent: PlainNode, name: string): void {
    fs.rmdirSync(parent.pathOf(name));
    this.#removed(parent, name);
  }

  /** Replaces what has the new name, as rename(2) does. */
  rename(from: PlainNode, name: string, to: PlainNode, newName: string): void {
    if (from !== to || name !== newName) this.#keep(to, newName);
    fs.renameSync(from.pathOf(name), to.pathOf(newName));
    if (from === to && name === newName) return;
    const node = from.children.get(name);
    this.#removed(to, newName);
    this.#left(from, name);
    this.#added(to, newName);
    if (node === undefined) return;
    node.parent = to;
    node.name = newName;
    to.children.set(newName, node);
  }

  list(node: PlainNode): DirectoryEntry[] {
    return fs.readdirSync(node.path, { withFileTypes: true }).map((entry) => ({
      name: entry.name,
      type: entry.isDirectory() ? "directory" : entry.isSymbolicLink() ? "symlink" : "file",
    }));
  }

  /**
   * Makes the names in a directory survive a power cut. Called when the directory is opened, which
   * comes before its fsync: answering that as well would cost SQLite a request per transaction.
   */
  syncNames(directory: PlainNode): void {
    if (!directory.namesChanged) return;
    const fd = fs.openSync(directory.path, O_RDONLY | O_DIRECTORY);
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
    directory.namesChanged = false;
  }

  // A file changes sides, see conversion.ts.

  /** A node for a file that has become an ordinary one, with the number the kernel knows it by. */
  adopt(parent: PlainNode, name: string, node: FileNode): PlainNode {
    this.#removed(parent, name);
    this.#added(parent, name);
    const plain = new PlainNode(node.id, "file", parent, name, node.locks);
    parent.children.set(name, plain);
    return plain;
  }

  /** An ordinary file was moved away and has become part of a database. */
  moved(node: PlainNode): void {
    if (node.parent !== undefined) this.#left(node.parent, node.name);
    closeFd(node);
  }

  // Attributes.

  attributes(node: PlainNode): FileAttributes {
    const stat = node.fd < 0 ? fs.lstatSync(node.path) : fs.fstatSync(node.fd);
    return {
      ino: node.id,
      size: stat.size,
      blocks: stat.blocks,
      atimeMs: stat.atimeMs,
      mtimeMs: stat.mtimeMs,
      ctimeMs: stat.ctimeMs,
      mode: stat.mode,
      nlink: node.isUnlinked ? 0 : stat.nlink,
      uid: stat.uid,
      gid: stat.gid,
      rdev: 0,
      blksize: 4096,
    };
  }

  setAttributes(node: PlainNode, valid: number, fields: SetattrFields): void {
    if ((valid & FATTR_SIZE) !== 0) {
      withFd(node, (fd) => fs.ftruncateSync(fd, fields.size));
    }
    if ((valid & (FATTR_UID | FATTR_GID)) !== 0) {
      const uid = (valid & FATTR_UID) === 0 ? UNCHANGED : fields.uid;
      const gid = (valid & FATTR_GID) === 0 ? UNCHANGED : fields.gid;
      if (node.fd < 0) fs.lchownSync(node.path, uid, gid);
      else fs.fchownSync(node.fd, uid, gid);
    }
    // After the owner, whose change takes the set-user-ID bits away.
    if ((valid & FATTR_MODE) !== 0 && node.kind !== "symlink") {
      const mode = fields.mode & PERMISSIONS;
      if (node.fd < 0) fs.chmodSync(node.path, mode);
      else fs.fchmodSync(node.fd, mode);
    }
    if ((valid & (FATTR_ATIME | FATTR_MTIME)) !== 0) setTimes(node, valid, fields);
  }

  // Content.

  open(node: PlainNode): void {
    if (node.fd < 0 && node.kind === "file") node.fd = openFile(node);
  }

  /** One without a name is kept until the kernel forgets it, see `#keep`. */
  closeIfUnused(node: PlainNode): void {
    if (node.opens === 0 && (!node.isUnlinked || node.lookups <= 0)) closeFd(node);
  }

  read(node: PlainNode, out: Uint8Array, start: number, size: number, offset: number): number {
    let done = 0;
    while (done < size) {
      const count = fs.readSync(node.fd, out, start + done, size - done, offset + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  /** The first bytes of a file, fewer when it is shorter. */
  head(node: PlainNode, sizeBytes: number): Uint8Array {
    const bytes = new Uint8Array(sizeBytes);
    return bytes.subarray(
      0,
      withFd(node, (fd) => fs.readSync(fd, bytes, 0, sizeBytes, 0)),
    );
  }

  write(node: PlainNode, data: Uint8Array, start: number, size: number, offset: number): void {
    // A mapping may be written back when nobody has the file any more.
    if (node.fd < 0 && node.isUnlinked) return;
    withFd(node, (fd) => {
      for (let done = 0; done < size;) {
        done += fs.writeSync(fd, data, start + done, size - done, offset + done);
      }
    });
  }

  sync(node: PlainNode): void {
    if (node.fd >= 0) fs.fsyncSync(node.fd);
    if (node.parent !== undefined && !node.isUnlinked) this.syncNames(node.parent);
  }

  // The books.

  #newNode(kind: PlainKind, parent: PlainNode, name: string): PlainNode {
    const node = this.#nodes.newPlain(kind, parent, name);
    parent.children.set(name, node);
    return node;
  }

  #added(parent: PlainNode, name: string): void {
    parent.namesChanged = true;
    if (parent === this.root && companionSuffix(name) !== undefined) this.#companions.add(name);
  }

  #left(parent: PlainNode, name: string): void {
    parent.namesChanged = true;
    parent.children.delete(name);
    if (parent === this.root) this.#companions.delete(name);
  }

  /**
   * Whoever has looked up a name that is about to go, or to be another file's, may open what he has found:
   * by its path he would get the other one. Until the kernel forgets it.
   */
  #keep(parent: PlainNode, name: string): void {
    const node = parent.children.get(name);
    if (node === undefined || node.lookups <= 0) return;
    try {
      this.open(node);
    } catch {
      // Without a descriptor to spare files must be removable all the same; who opens it gets ESTALE.
    }
  }

  #removed(parent: PlainNode, name: string): void {
    const node = parent.children.get(name);
    if (node !== undefined) node.isUnlinked = true;
    this.#left(parent, name);
  }
}

function openFile(node: PlainNode): number {
  if (node.isUnlinked) {
    throw Object.assign(new Error(`${node.name} is gone`), { code: "ESTALE", errno: -ESTALE });
  }
  return fs.openSync(node.path, O_RDWR | O_NOFOLLOW);
}

function closeFd(node: PlainNode): void {
  if (node.fd < 0) return;
  fs.closeSync(node.fd);
  node.fd = -1;
}

function withFd<T>(node: PlainNode, use: (fd: number) => T): T {
  if (node.fd >= 0) return use(node.fd);
  const fd = openFile(node);
  try {
    return use(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** The sender owns what he makes, but for the group in a directory that hands its own down. */
function setOwner(by: Creator, parent: PlainNode, chown: (uid: number, gid: number) => void): void {
  if (by.uid === process.getuid?.() && by.gid === process.getgid?.()) return;
  const inheritsGroup = (fs.statSync(parent.path).mode & 0o2000) !== 0;
  chown(by.uid, inheritsGroup ? UNCHANGED : by.gid);
}

function setTimes(node: PlainNode, valid: number, fields: SetattrFields): void {
  const old = node.fd < 0 ? fs.lstatSync(node.path) : fs.fstatSync(node.fd);
  const nowMs = Date.now();
  const atimeMs = chooseTime(valid, FATTR_ATIME, FATTR_ATIME_NOW, fields.atimeMs, old.atimeMs);
  const mtimeMs = chooseTime(valid, FATTR_MTIME, FATTR_MTIME_NOW, fields.mtimeMs, old.mtimeMs);
  if (node.fd < 0) fs.lutimesSync(node.path, atimeMs / 1000, mtimeMs / 1000);
  else fs.futimesSync(node.fd, atimeMs / 1000, mtimeMs / 1000);

  function chooseTime(v: number, is: number, isNow: number, setMs: number, oldMs: number): number {
    if ((v & is) === 0) return oldMs;
    return (v & isNow) === 0 ? setMs : nowMs;
  }
}
