import { storeData } from "../fuse/notify.ts";
import { frameOffset } from "../sqlite/wal.ts";
import type { FileNode } from "./entry.ts";

const PAGE_BYTES = 4096;
const FIRST_STEP_BYTES = 64 * 1024;
const MAX_STEP_BYTES = 512 * 1024;
const zeros = new Uint8Array(MAX_STEP_BYTES);

interface Laid {
  /** Up to where the kernel has whole pages. */
  end: number;
  /** Where the file ends without what was laid. */
  fileEnd: number;
}

/**
 * Lays zeros into the kernel's page cache ahead of the end of a WAL. A frame does not end where a
 * cached page does, and the kernel cuts a write in two at a page that it has only in part; where
 * it has the pages already, a frame costs two requests instead of three.
 *
 * This is the one STORE that the mount thread writes itself, although a STORE waits for pages that
 * a request still unanswered may hold locked. It cannot wait here: the range begins behind the last
 * page of the file, so no reader can be after it, and the only writer, SQLite's by its WRITE lock,
 * is the one whose request is being answered.
 */
export class WalRunway {
  readonly #store: (message: Uint8Array) => void;
  readonly #laid = new WeakMap<FileNode, Laid>();

  constructor(store: (message: Uint8Array) => void) {
    this.#store = store;
  }

  /** Called before the answer to a WRITE that ends at an offset of the WAL. */
  extend(node: FileNode, writeEnd: number): void {
    const laid = this.#laid.get(node);
    if (laid !== undefined && writeEnd < laid.end) {
      if (writeEnd > laid.fileEnd) laid.fileEnd = writeEnd;
      return;
    }
    const file = node.files.get("wal");
    if (file === undefined) return;
    const fileEnd = Math.max(file.size(), writeEnd);
    const start = Math.ceil(fileEnd / PAGE_BYTES) * PAGE_BYTES;
    const step = Math.min(MAX_STEP_BYTES, Math.max(FIRST_STEP_BYTES, floorToPage(fileEnd)));
    // The size first: the kernel may ask for it as soon as it has seen the new end.
    file.truncate(start + step);
    this.#store(storeData(node.id, start, [zeros.subarray(0, step)]));
    if (laid === undefined) this.#laid.set(node, { end: start + step, fileEnd });
    else {
      laid.end = start + step;
      laid.fileEnd = fileEnd;
    }
  }

  /**
   * Somebody asks for the size: what he is told is where the WAL ends, and the kernel drops what it
   * has behind that.
   */
  retract(node: FileNode): void {
    const laid = this.#laid.get(node);
    if (laid === undefined) return;
    this.#laid.delete(node);
    node.files.get("wal")?.truncate(Math.max(laid.fileEnd, committedEnd(node)));
  }

  /** The file was cut: what the kernel had behind its end is gone. */
  forget(node: FileNode): void {
    this.#laid.delete(node);
  }
}

/** This node appends as well, what other nodes have committed: that is not what was laid. */
function committedEnd({ entry, files }: FileNode): number {
  const { db } = entry;
  if (files !== db.files || db.store.frames.count === 0) return 0;
  return frameOffset(db.store.frames.count, db.store.pageSize);
}

function floorToPage(bytes: number): number {
  return bytes - (bytes % PAGE_BYTES);
}
