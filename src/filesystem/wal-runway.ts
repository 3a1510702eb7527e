import { storeData } from "../fuse/notify.ts";
import type { FileNode } from "./entry.ts";

const PAGE_BYTES = 4096;
/** A short WAL is as long as SQLite made it: what little is written there is not worth a surprise. */
const FIRST_AT_BYTES = 64 * 1024;
const FIRST_STEP_BYTES = 64 * 1024;
const MAX_STEP_BYTES = 512 * 1024;
const zeros = new Uint8Array(MAX_STEP_BYTES);

/**
 * Lays zeros into the kernel's page cache ahead of the end of a WAL. A frame does not end where a
 * cached page does, and the kernel cuts a write in two at a page that it has only in part; where
 * it has the pages already, a frame costs two requests instead of three.
 *
 * This is the one STORE that the mount thread writes itself, although a STORE waits for pages that
 * a request still unanswered may hold locked. It cannot wait here: the range begins behind the last
 * page of the file, so no reader can be after it, and the only writer, SQLite's by its WRITE lock,
 * is the one whose request is being answered.
 *
 * What was laid belongs to the file from then on, and whoever asks for the size is told of it. A
 * smaller answer makes the kernel cut its cache to it, at whatever moment the one who asked gets to
 * run again, while SQLite's next frames are in that cache already and on their way here: the kernel
 * does not see them as growth, because the space was laid. That lost commits (recovery by SQLite ended
 * at the zeros), so the size goes down only where the kernel itself keeps writers out: when an
 * application truncates the file.
 */
export class WalRunway {
  readonly #store: (message: Uint8Array) => void;
  /** Up to where the kernel has whole pages. */
  readonly #laidEnd = new WeakMap<FileNode, number>();

  constructor(store: (message: Uint8Array) => void) {
    this.#store = store;
  }

  /** Called before the answer to a WRITE that ends at an offset of the WAL. */
  extend(node: FileNode, writeEnd: number): void {
    const laidEnd = this.#laidEnd.get(node);
    if (writeEnd < (laidEnd ?? FIRST_AT_BYTES)) return;
    const file = node.files.get("wal");
    if (file === undefined) return;
    const fileEnd = Math.max(file.size(), writeEnd);
    const start = Math.ceil(fileEnd / PAGE_BYTES) * PAGE_BYTES;
    const step = Math.min(MAX_STEP_BYTES, Math.max(FIRST_STEP_BYTES, floorToPage(fileEnd)));
    // The size first: the kernel may ask for it as soon as it has seen the new end.
    file.truncate(start + step);
    this.#store(storeData(node.id, start, [zeros.subarray(0, step)]));
    this.#laidEnd.set(node, start + step);
  }

  /** The file was cut, or is a new one: the kernel has nothing behind its end. */
  forget(node: FileNode): void {
    this.#laidEnd.delete(node);
  }
}

function floorToPage(bytes: number): number {
  return bytes - (bytes % PAGE_BYTES);
}
