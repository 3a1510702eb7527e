import type { FileKind } from "../database/database-files.ts";
import type { FinalOutcome } from "../database/outcome.ts";
import type { FileAttributes, FuseEntry } from "../fuse/attributes.ts";
import {
  FOPEN_DIRECT_IO,
  FOPEN_KEEP_CACHE,
  FOPEN_NOFLUSH,
  FUSE_ROOT_ID,
  S_IFDIR,
  S_IFREG,
} from "../fuse/constants.ts";
import * as errno from "../fuse/errno.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import type { ShownAccess } from "./shown-access.ts";
import type { PlainNode } from "./plain-node.ts";

/** A small file whose content is made when it is opened. */
export interface TextNode {
  readonly type: "text";
  readonly id: number;
  readonly size: number;
  lookups: number;
  readonly content: () => string;
  /** The database whose halt lock is a byte of this file. */
  readonly haltLockOf?: DatabaseEntry;
}

/**
 * The file of a database on the shelf. The kernel knows it by this number, and nobody has asked for more
 * than what it looks like: to list thousands of databases opens none.
 */
export interface SleepingNode extends ShelvedLook {
  readonly type: "sleeping";
  readonly id: number;
  /** Of the database. */
  readonly name: string;
  lookups: number;
}

/** What stat(2) says of the file of a database on the shelf. */
export interface ShelvedLook {
  readonly sizeBytes: number;
  /** Of its last transaction. */
  readonly timestampMs: number;
  readonly access: ShownAccess;
}

export type Node = FileNode | TextNode | PlainNode;

/** What can be locked: files with content that applications write. */
export type LockableNode = FileNode | PlainNode;

/** A node that the main thread holds, so that it can wake the mount thread: `.lag`. */
export const LAG_NODE_ID = 2;
export const PRIMARY_NODE_ID = 3;
export const ROLE_NODE_ID = 4;
export const OWN_DIRECTORY_NODE_ID = 5;
export const FIRST_FREE_NODE_ID = 16;
export const LAG_FILE_BYTES = 11;
const LAG_MAX_MS = 2147483647;
const uid = process.getuid?.() ?? 0;
const gid = process.getgid?.() ?? 0;
const TEXT_ACCESS: ShownAccess = { mode: 0o444, uid, gid };
const ROOT_ACCESS: ShownAccess = { mode: 0o777, uid, gid };

/** Every change reaches the kernel through itself or by notification, so it may remember for long. */
export const FOREVER_MS: number = 24 * 3600 * 1000;

/**
 * How the kernel treats an open file of a database. A journal is read by nobody but who plays it
 * back: without the page cache each of SQLite's writes is one request, with it those that cross a
 * page are two. Nor does anybody lock it or wait for its end, so that closing it need not be told.
 */
export function openFlagsOf(kind: FileKind): number {
  return kind === "journal" ? FOPEN_DIRECT_IO | FOPEN_NOFLUSH : FOPEN_KEEP_CACHE;
}
const mountedAtMs = Date.now();

/** The answers to a refusal of the engine. */
export const ERRNO: Readonly<Record<Exclude<FinalOutcome, "ok">, number>> = {
  "read-only": errno.EROFS,
  busy: errno.EBUSY,
  unsupported: errno.EOPNOTSUPP,
  full: errno.ENOSPC,
  io: errno.EIO,
};

/**
 * Whether a file's name is gone, perhaps with its database, while the notification of that may still
 * be on its way. ESTALE then makes the kernel ask again what the name stands for.
 */
export function isGone(node: Node | undefined): boolean {
  return node?.type === "file" && (node.isUnlinked || node.files !== node.entry.db.files);
}

/** What a name leads to, counted as one reference of the kernel. */
export function entryOf(node: FileNode | TextNode | SleepingNode): FuseEntry {
  node.lookups++;
  const isFile = node.type !== "text";
  return {
    nodeId: node.id,
    generation: 0,
    attr: attributesOf(node),
    // `.lag` is always there; positions and `.primary` change behind the kernel's back.
    entryTimeoutMs: isFile || node.id === LAG_NODE_ID ? FOREVER_MS : 0,
    attrTimeoutMs: isFile ? FOREVER_MS : 0,
  };
}

export function attributesOf(node: FileNode | TextNode | SleepingNode): FileAttributes {
  if (node.type === "sleeping") {
    const sinceMs = Math.max(node.timestampMs, mountedAtMs);
    return attributes(node.id, S_IFREG, node.access, 1, node.sizeBytes, sinceMs);
  }
  const isFile = node.type === "file";
  const timeMs = isFile ? Math.max(node.entry.db.log.state.timestampMs, mountedAtMs) : Date.now();
  const access = isFile ? node.entry.access : TEXT_ACCESS;
  return attributes(node.id, S_IFREG, access, 1, sizeOf(node), timeMs);
}

export function rootAttributes(): FileAttributes {
  return directoryAttributes(FUSE_ROOT_ID);
}

/** The directory through which this process opens files; nobody else can look it up. */
export function ownDirectoryEntry(): FuseEntry {
  return {
    nodeId: OWN_DIRECTORY_NODE_ID,
    generation: 0,
    attr: directoryAttributes(OWN_DIRECTORY_NODE_ID),
    entryTimeoutMs: 0,
    attrTimeoutMs: FOREVER_MS,
  };
}

function directoryAttributes(ino: number): FileAttributes {
  return attributes(ino, S_IFDIR, ROOT_ACCESS, 2, 0, mountedAtMs);
}

function sizeOf(node: FileNode | TextNode): number {
  if (node.type === "file") return node.files.size(node.kind);
  const isOfAnyLength = node.id === PRIMARY_NODE_ID || node.id === ROLE_NODE_ID;
  return isOfAnyLength ? Buffer.byteLength(node.content()) : node.size;
}

function attributes(
  ino: number,
  type: number,
  access: ShownAccess,
  nlink: number,
  size: number,
  timeMs: number,
): FileAttributes {
  return {
    ino,
    size,
    blocks: Math.ceil(size / 512),
    atimeMs: timeMs,
    mtimeMs: timeMs,
    ctimeMs: timeMs,
    mode: type | access.mode,
    nlink,
    uid: access.uid,
    gid: access.gid,
    rdev: 0,
    blksize: 4096,
  };
}

/** Sign and nine digits, as LiteFS writes it; the largest value means "not in sync yet". */
export function lagText(lagMs: number): string {
  const capped = Math.min(LAG_MAX_MS, Math.max(0, Math.round(lagMs)));
  return `+${String(capped).padStart(9, "0")}\n`.slice(0, LAG_FILE_BYTES);
}
