import { invalidateEntry, invalidateInode, retrieveData, storeData } from "../fuse/notify.ts";
import { FUSE_ROOT_ID } from "../fuse/constants.ts";
import type { FileKind } from "../database/database-files.ts";
import type { KernelCache } from "../database/host.ts";
import type { DatabaseEntry } from "./entry.ts";
import { nameOf } from "./names.ts";

const STORE_MAX_BYTES = 512 * 1024;
const PAGE_BYTES = 4096;

/** Messages that may be written in any order, each of them one write by a thread of the pool. */
type NotificationGroup = Uint8Array[];
/** What one database has to say must not take all of the pool's threads. */
const GROUP_MAX = 4;
/** Above this the copying, and not the way to another thread and back, is what takes the time. */
const PROMPT_MAX_BYTES = 64 * 1024;

/** Notifications for the main thread to write, in order. */
export interface NotificationBatch {
  readonly groups: NotificationGroup[];
  readonly batch: number;
  /**
   * They wait for nothing but this thread's next answers, if at all, and are few: whoever gets them
   * need not hand them to another thread.
   */
  readonly isPrompt: boolean;
}

/**
 * The outbox of notifications to the kernel. The mount thread fills it and never writes STORE and
 * INVAL itself: they wait for page locks that a READ still unanswered by this thread may hold. The
 * main thread writes them in order and reports how far it has come.
 */
export class Outbox {
  #batch: NotificationGroup[] = [];
  /** Of the batch; infinite if some message in it may wait for another node. */
  #promptBytes = 0;
  #sentBatches = 0;
  #settledBatches = 0;
  readonly #settling: { readonly batch: number; readonly resume: () => void }[] = [];
  readonly #send: (batch: NotificationBatch) => void;
  /** Whether the answer to some WRITE waits for other nodes, and the page in it is locked so long. */
  isWriteHeld: () => boolean = () => false;

  constructor(send: (batch: NotificationBatch) => void) {
    this.#send = send;
  }

  push(message: Uint8Array, isPrompt: boolean = false): void {
    this.#promptBytes += isPrompt ? message.length : Infinity;
    this.#batch.push([message]);
  }

  /** Written at the same time as the message before it. */
  pushAhead(message: Uint8Array, isPrompt: boolean): void {
    this.#promptBytes += isPrompt ? message.length : Infinity;
    const group = this.#batch.at(-1);
    if (group !== undefined && group.length < GROUP_MAX) group.push(message);
    else this.#batch.push([message]);
  }

  /** Calls back once everything pushed so far has been written. */
  settled(then: () => void): void {
    if (this.#batch.length === 0 && this.#settledBatches === this.#sentBatches) {
      then();
      return;
    }
    this.flush();
    this.#settling.push({ batch: this.#sentBatches, resume: then });
  }

  flush(): void {
    if (this.#batch.length === 0) return;
    this.#sentBatches++;
    const isPrompt = this.#promptBytes <= PROMPT_MAX_BYTES && !this.isWriteHeld();
    this.#send({ groups: this.#batch, batch: this.#sentBatches, isPrompt });
    this.#batch = [];
    this.#promptBytes = 0;
  }

  /** The main thread has written all batches up to this one. */
  confirm(batch: number): void {
    this.#settledBatches = batch;
    while ((this.#settling[0]?.batch ?? Infinity) <= batch) this.#settling.shift()?.resume();
  }
}

/** RETRIEVE requests under way. They take no page lock, so the mount thread writes them itself. */
export class Retrievals {
  #nextUnique = 1;
  readonly #pending = new Map<number, (data: Uint8Array | undefined) => void>();
  readonly #write: (message: Uint8Array) => boolean;

  /** `write` returns false when the kernel does not know the inode. */
  constructor(write: (message: Uint8Array) => boolean) {
    this.#write = write;
  }

  start(
    nodeId: number,
    offset: number,
    length: number,
    then: (data: Uint8Array | undefined) => void,
  ): void {
    const unique = this.#nextUnique++ & 0x7fffffff;
    this.#pending.set(unique, then);
    if (this.#write(retrieveData(unique, nodeId, offset, length))) return;
    this.#pending.delete(unique);
    then(undefined);
  }

  /** The kernel's answer; `data` is only valid during the call. */
  finish(unique: number, data: Uint8Array): void {
    const then = this.#pending.get(unique);
    this.#pending.delete(unique);
    then?.(data.slice());
  }
}

/** The kernel's cache of one database's files, in terms of the nodes it knows them by. */
export class EntryCache implements KernelCache {
  readonly #entry: DatabaseEntry;
  readonly #outbox: Outbox;
  readonly #retrievals: Retrievals;

  constructor(entry: DatabaseEntry, outbox: Outbox, retrievals: Retrievals) {
    this.#entry = entry;
    this.#outbox = outbox;
    this.#retrievals = retrievals;
  }

  invalidate(kind: FileKind, offsetBytes: number, lengthBytes: number): void {
    const node = this.#entry.nodes.get(kind);
    if (node !== undefined && node.lookups > 0) {
      this.#outbox.push(invalidateInode(node.id, offsetBytes, lengthBytes));
    }
  }

  store(kind: FileKind, offsetBytes: number, data: Uint8Array): void {
    this.#store(kind, offsetBytes, data, false);
  }

  storeAhead(kind: FileKind, offsetBytes: number, data: Uint8Array): void {
    this.#store(kind, offsetBytes, data, true);
  }

  #store(kind: FileKind, offsetBytes: number, data: Uint8Array, isAhead: boolean): void {
    const node = this.#entry.nodes.get(kind);
    if (node === undefined || node.lookups === 0) return;
    const isPrompt = isLockedBriefly(kind);
    for (let done = 0; done < data.length;) {
      // Pieces end at page borders, so that no cached page is stored in two halves.
      const at = offsetBytes + done;
      const limit = STORE_MAX_BYTES - (at % PAGE_BYTES);
      const piece = data.subarray(done, done + limit);
      const message = storeData(node.id, at, [piece]);
      if (isAhead) this.#outbox.pushAhead(message, isPrompt);
      else this.#outbox.push(message, isPrompt);
      done += piece.length;
    }
  }

  invalidateName(kind: FileKind): void {
    this.#outbox.push(invalidateEntry(FUSE_ROOT_ID, nameOf(this.#entry.db.name, kind)));
  }

  retrieve(
    kind: FileKind,
    offsetBytes: number,
    lengthBytes: number,
    then: (data: Uint8Array | undefined) => void,
  ): void {
    const node = this.#entry.nodes.get(kind);
    const fromFile = (): Uint8Array | undefined => {
      const data = new Uint8Array(lengthBytes);
      const count = this.#entry.db.files.get(kind)?.readAt(data, 0, lengthBytes, offsetBytes) ?? 0;
      return count < lengthBytes ? undefined : data;
    };
    if (node === undefined || node.lookups === 0) {
      then(fromFile());
      return;
    }
    this.#retrievals.start(node.id, offsetBytes, lengthBytes, (data) => {
      // What the kernel does not cache, nobody has mapped: then the file has the truth.
      then(data === undefined || data.length < lengthBytes ? fromFile() : data);
    });
  }

  settled(then: () => void): void {
    this.#outbox.settled(then);
  }
}

/**
 * The kernel's pages of a WAL and its index are locked by READ and WRITE only, and while the daemon has
 * something to show there it holds SQLite's WRITE lock: no commit can wait for other nodes there. Those
 * of a database file are also locked while it is truncated, written back or mapped by whoever likes.
 */
function isLockedBriefly(kind: FileKind): boolean {
  return kind === "wal" || kind === "shm";
}
