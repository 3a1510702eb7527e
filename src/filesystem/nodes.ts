import type { FileAttributes } from "../fuse/attributes.ts";
import { FUSE_ROOT_ID, S_IFDIR, S_IFREG } from "../fuse/constants.ts";
import type { FileNode } from "./entry.ts";

/** A small file whose content is made when it is opened. */
export interface TextNode {
  readonly type: "text";
  readonly id: number;
  readonly size: number;
  lookups: number;
  readonly content: () => string;
}

export type Node = FileNode | TextNode;

/** A node that the main thread holds, so that it can wake the mount thread: `.lag`. */
export const LAG_NODE_ID = 2;
export const PRIMARY_NODE_ID = 3;
export const FIRST_FREE_NODE_ID = 16;
export const LAG_FILE_BYTES = 11;
const LAG_MAX_MS = 2147483647;
const uid = process.getuid?.() ?? 0;
const gid = process.getgid?.() ?? 0;

export function attributesOf(node: Node, mountedAtMs: number): FileAttributes {
  const isFile = node.type === "file";
  const timeMs = isFile ? Math.max(node.entry.db.log.state.timestampMs, mountedAtMs) : Date.now();
  const mode = S_IFREG | (isFile ? 0o666 : 0o444);
  return attributes(node.id, mode, 1, sizeOf(node), timeMs);
}

export function rootAttributes(mountedAtMs: number): FileAttributes {
  return attributes(FUSE_ROOT_ID, S_IFDIR | 0o777, 2, 0, mountedAtMs);
}

function sizeOf(node: Node): number {
  if (node.type === "file") return node.files.size(node.kind);
  return node.id === PRIMARY_NODE_ID ? Buffer.byteLength(node.content()) : node.size;
}

function attributes(
  ino: number,
  mode: number,
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
    mode,
    nlink,
    uid,
    gid,
    rdev: 0,
    blksize: 4096,
  };
}

/** Sign and nine digits, as LiteFS writes it; the largest value means "not in sync yet". */
export function lagText(lagMs: number): string {
  const capped = Math.min(LAG_MAX_MS, Math.max(0, Math.round(lagMs)));
  return `+${String(capped).padStart(9, "0")}\n`.slice(0, LAG_FILE_BYTES);
}
