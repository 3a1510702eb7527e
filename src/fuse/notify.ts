import { write, writeSync } from "node:fs";
import { assert } from "../lib/assert.ts";
import { errorCode } from "../lib/errors.ts";
import { putInt64 } from "./attributes.ts";
import {
  FUSE_NOTIFY_DELETE,
  FUSE_NOTIFY_INVAL_ENTRY,
  FUSE_NOTIFY_INVAL_INODE,
  FUSE_NOTIFY_RETRIEVE,
  FUSE_NOTIFY_STORE,
} from "./constants.ts";

/*
 * A notification is an answer that nobody asked for: an out header with unique 0 and a code where
 * an answer has its error. Any thread may write one to the fd of the connection.
 *
 * The kernel works inside that write. STORE and INVAL_INODE lock the pages they touch and wait for
 * a READ or WRITE of the same pages, INVAL_ENTRY and DELETE wait for operations in the same
 * directory. So the thread that answers requests must not write those itself for anything that an
 * application may be using: it would wait for itself. RETRIEVE waits for nothing.
 *
 * | offset | size | INVAL_INODE                | STORE            | RETRIEVE          |
 * |--------|------|----------------------------|------------------|-------------------|
 * | 0      | 4    | len                        | len              | len               |
 * | 4      | 4    | 2                          | 4                | 5                 |
 * | 8      | 8    | 0                          | 0                | 0                 |
 * | 16     | 8    | ino (the node id)          | nodeid           | notify_unique     |
 * | 24     | 8    | off, < 0: attributes only  | offset           | nodeid            |
 * | 32     | 8    | len, <= 0: to the end      | size u32, 0 u32  | offset            |
 * | 40     |      |                            | data             | size u32, 0 u32   |
 *
 * | offset | size | INVAL_ENTRY                | DELETE           |
 * |--------|------|----------------------------|------------------|
 * | 0      | 16   | header, code 3             | header, code 6   |
 * | 16     | 8    | parent                     | parent           |
 * | 24     | 8    | namelen u32, flags u32     | child            |
 * | 32     | 8    | name, 0                    | namelen u32, 0   |
 * | 40     |      |                            | name, 0          |
 */
const HEADER_BYTES = 16;

/** `unknown`: the kernel has never seen or already forgotten that node or name, which is fine. */
export type NotificationResult = "ok" | "unknown-inode";

/** Drops cached attributes, and cached data of the range; `length` 0 means to the end. */
export function invalidateInode(nodeId: number, offset: number, length: number): Uint8Array {
  const { bytes, words } = message(FUSE_NOTIFY_INVAL_INODE, 24);
  putInt64(words, 16, nodeId);
  putInt64(words, 24, offset);
  putInt64(words, 32, length);
  return bytes;
}

/** Drops cached attributes (size, times) only. */
export function invalidateAttributes(nodeId: number): Uint8Array {
  return invalidateInode(nodeId, -1, 0);
}

/** Drops what the kernel remembers of a name, present or absent. */
export function invalidateEntry(parentId: number, name: string): Uint8Array {
  const nameLength = Buffer.byteLength(name);
  const { bytes, words } = message(FUSE_NOTIFY_INVAL_ENTRY, 16 + nameLength + 1);
  putInt64(words, 16, parentId);
  words[6] = nameLength;
  bytes.write(name, 32);
  return bytes;
}

/** As invalidateEntry, and also tells watchers (inotify) that the name was deleted. */
export function deleteEntry(parentId: number, childId: number, name: string): Uint8Array {
  const nameLength = Buffer.byteLength(name);
  const { bytes, words } = message(FUSE_NOTIFY_DELETE, 24 + nameLength + 1);
  putInt64(words, 16, parentId);
  putInt64(words, 24, childId);
  words[8] = nameLength;
  bytes.write(name, 40);
  return bytes;
}

/**
 * Puts bytes into the page cache, visible at once to readers and in memory maps, and grows the
 * file's cached size where they go beyond it. `pieces` follow each other. No more than the
 * connection's maxWriteBytes in one message, because the kernel refuses more pages than that. A
 * page that is not cached and not covered completely is only guaranteed to be filled from
 * `offset` on, so begin and end at page boundaries (4096) or where the file ends.
 */
export function storeData(
  nodeId: number,
  offset: number,
  pieces: readonly Uint8Array[],
): Uint8Array {
  let size = 0;
  for (const piece of pieces) size += piece.length;
  const { bytes, words } = message(FUSE_NOTIFY_STORE, 24 + size);
  putInt64(words, 16, nodeId);
  putInt64(words, 24, offset);
  words[8] = size;
  let at = 40;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/**
 * Asks for cached bytes; they arrive as FuseHandler.notifyReply with the same `notifyUnique`. No
 * more than the connection's maxWriteBytes; the answer ends early at a page that is not cached.
 * Only for regular files (EINVAL otherwise).
 */
export function retrieveData(
  notifyUnique: number,
  nodeId: number,
  offset: number,
  size: number,
): Uint8Array {
  assert(notifyUnique >= 0 && notifyUnique <= 0xffff_ffff, "notifyUnique must fit into 32 bits");
  return retrieve(notifyUnique, 0, nodeId, offset, size);
}

/** retrieveData with all 64 bits of the id; the high half marks wake-ups. */
export function retrieve(
  uniqueLo: number,
  uniqueHi: number,
  nodeId: number,
  offset: number,
  size: number,
): Uint8Array {
  const { bytes, words } = message(FUSE_NOTIFY_RETRIEVE, 32);
  words[4] = uniqueLo;
  words[5] = uniqueHi;
  putInt64(words, 24, nodeId);
  putInt64(words, 32, offset);
  words[10] = size;
  return bytes;
}

/** Blocks while the kernel works, see above. Failures other than an unknown node are thrown. */
export function writeNotification(fd: number, notification: Uint8Array): NotificationResult {
  try {
    writeSync(fd, notification, 0, notification.length, null);
    return "ok";
  } catch (error) {
    if (isUnknown(error)) return "unknown-inode";
    throw error;
  }
}

/** The same without blocking this thread: the waiting happens in the thread pool. */
export function writeNotificationAsync(
  fd: number,
  notification: Uint8Array,
): Promise<NotificationResult> {
  return new Promise((resolve, reject) => {
    write(fd, notification, 0, notification.length, null, (error) => {
      if (error === null) resolve("ok");
      else if (isUnknown(error)) resolve("unknown-inode");
      else reject(error);
    });
  });
}

/** Whether a notification waits for calls under way in its directory, instead of pages of a file. */
export function waitsForNames(notification: Uint8Array): boolean {
  const code = new DataView(notification.buffer, notification.byteOffset).getInt32(4, true);
  return code === FUSE_NOTIFY_INVAL_ENTRY || code === FUSE_NOTIFY_DELETE;
}

function isUnknown(error: unknown): boolean {
  const code = errorCode(error);
  return code === "ENOENT" || code === "ENOTDIR";
}

function message(code: number, bodyBytes: number): { bytes: Buffer; words: Int32Array } {
  // Words need a multiple of 4; the message itself ends where its body ends.
  const length = HEADER_BYTES + bodyBytes;
  const memory = new ArrayBuffer((length + 3) & ~3);
  const words = new Int32Array(memory);
  words[0] = length;
  words[1] = code;
  return { bytes: Buffer.from(memory, 0, length), words };
}
