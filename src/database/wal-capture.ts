import { assert } from "../lib/assert.ts";
import {
  decodeFrameHeader,
  decodeWalHeader,
  FRAME_HEADER_SIZE,
  newFrameHeader,
  WAL_HEADER_SIZE,
  WalChecksum,
} from "../sqlite/wal.ts";
import type { WalHeader } from "../sqlite/wal.ts";
import type { OpenFile } from "./files.ts";
import { OpenTransaction } from "./open-transaction.ts";
import type { FinalOutcome, Outcome } from "./outcome.ts";
import type { PageStore } from "./page-store.ts";

/** What the capture tells the database it works for. */
export interface WalCaptureOwner {
  /** The open transaction is complete. "later" leaves it as it is until `WalCapture.decided`. */
  commitWal(open: OpenTransaction, header: WalHeader, pageCount: number): Outcome;
  /** A commit that was refused may be found in the WAL by whoever recovers it. */
  walIsUnsound(error: unknown): void;
  /** It is in the log. */
  adoptWal(open: OpenTransaction, pageCount: number, isChanged: boolean): void;
  /** Whether who starts the WAL over has moved everything out of it, as SQLite does before. */
  mayRestartWal(): boolean;
  /** The WAL starts over: what it held must be in the database file before that. */
  beforeWalReset(): void;
}

/**
 * Follows what SQLite writes into the WAL and finds the moment a transaction is complete: a frame
 * with a commit size is in place and the checksum chain up to it holds. That is inside the WRITE
 * of its last bytes, before SQLite learns that it succeeded, so a commit can still be refused.
 *
 * SQLite writes a frame as a 24-byte header and then the page. After a cache spill it may write
 * frames of the open transaction again, and later their headers once more with the right
 * checksums; then the chain holds only at the very end. So the chain is extended whenever either
 * half of the next frame comes in, and goes back when a frame in it is written again.
 */
export class WalCapture {
  readonly #owner: WalCaptureOwner;
  readonly #store: PageStore;
  readonly #open: OpenTransaction;
  readonly #checksum = new WalChecksum(false);
  readonly #pending = newFrameHeader();
  readonly #pendingBytes = new Uint8Array(FRAME_HEADER_SIZE);
  /** Frame whose header is in #pending, or -1. */
  #pendingFrame = -1;
  #header: WalHeader | undefined;
  #frameSize = 0;
  /** Running checksum after the last committed frame. */
  #sum1 = 0;
  #sum2 = 0;
  /** Frames of this generation that have been written as a whole. */
  #writtenFrames = 0;
  /** Frame of a refused commit, until SQLite writes a frame from its start again; or -1. */
  #refusedFrame = -1;
  #refusal: FinalOutcome = "io";
  /** A complete transaction that another node is deciding about. */
  #undecided: { readonly file: OpenFile; readonly pageCount: number } | undefined;

  constructor(owner: WalCaptureOwner, store: PageStore) {
    this.#owner = owner;
    this.#store = store;
    this.#open = new OpenTransaction(store);
  }

  get header(): WalHeader | undefined {
    return this.#header;
  }
  /** Running checksum after the last committed frame: where a local append continues. */
  get sum1(): number {
    return this.#sum1;
  }
  get sum2(): number {
    return this.#sum2;
  }

  /** Takes over a WAL whose header this node wrote itself, or none. */
  setHeader(header: WalHeader | undefined): void {
    this.#header = header;
    this.#pendingFrame = -1;
    this.#refusedFrame = -1;
    this.#writtenFrames = 0;
    this.#open.reset(0);
    if (header === undefined) return;
    this.#frameSize = FRAME_HEADER_SIZE + header.pageSize;
    this.#sum1 = header.checksum1;
    this.#sum2 = header.checksum2;
    this.#checksum.bigEndian = header.bigEndianChecksum;
  }

  /** Notes frames that this node appended and committed itself. */
  appended(sum1: number, sum2: number): void {
    this.#sum1 = sum1;
    this.#sum2 = sum2;
    this.#writtenFrames = this.#store.frames.count;
    this.#open.reset(this.#store.frames.count);
  }

  /** A WRITE to the WAL by an application. */
  write(offset: number, data: Uint8Array, start: number, length: number, file: OpenFile): Outcome {
    if (this.#undecided !== undefined) return "io";
    if (!this.#fits(offset, data, start, length, file)) return "io";
    if (this.#header !== undefined && offset >= WAL_HEADER_SIZE) {
      const inFrame = (offset - WAL_HEADER_SIZE) % this.#frameSize;
      const frame = (offset - WAL_HEADER_SIZE - inFrame) / this.#frameSize;
      if (frame < this.#store.frames.count) return "io";
      // The kernel may send one write in two. When we refuse the second, write(2) tells SQLite of
      // a short write, and SQLite tries the rest again: it must be refused as often as it comes.
      if (inFrame === 0) this.#refusedFrame = -1;
      else if (frame === this.#refusedFrame) return this.#refusal;
      if (inFrame === 0 && length === FRAME_HEADER_SIZE) {
        return this.#writeFrameHeader(frame, offset, data, start, file);
      }
      if (inFrame === FRAME_HEADER_SIZE && length === this.#header.pageSize) {
        return this.#writeFramePage(frame, offset, data, start, file);
      }
    }
    return this.#writeOther(offset, data, start, length, file);
  }

  /**
   * A WAL whose pages are of another size than its database's is of another database. SQLite would
   * take it all the same, and the database with it.
   */
  #fits(offset: number, data: Uint8Array, start: number, length: number, file: OpenFile): boolean {
    const { pageSize } = this.#store;
    if (pageSize === 0) return true;
    if (offset >= WAL_HEADER_SIZE) return (this.#header?.pageSize ?? pageSize) === pageSize;
    const bytes = new Uint8Array(WAL_HEADER_SIZE);
    file.readAt(bytes, 0, WAL_HEADER_SIZE, 0);
    bytes.set(data.subarray(start, start + Math.min(length, WAL_HEADER_SIZE - offset)), offset);
    return (decodeWalHeader(bytes, 0)?.pageSize ?? pageSize) === pageSize;
  }

  #writeFrameHeader(
    frame: number,
    offset: number,
    data: Uint8Array,
    start: number,
    file: OpenFile,
  ): Outcome {
    this.#open.truncate(frame);
    file.writeAt(data, start, FRAME_HEADER_SIZE, offset);
    if (frame < this.#writtenFrames && frame === this.#nextFrame) {
      const outcome = this.#extend(file);
      if (outcome !== "ok" || this.#nextFrame > frame) return outcome;
    }
    // Only now, because looking at what is behind it decodes headers into the same place.
    decodeFrameHeader(data, start, this.#pending);
    this.#pendingBytes.set(data.subarray(start, start + FRAME_HEADER_SIZE));
    this.#pendingFrame = frame;
    return "ok";
  }

  #writeFramePage(
    frame: number,
    offset: number,
    data: Uint8Array,
    start: number,
    file: OpenFile,
  ): Outcome {
    this.#open.truncate(frame);
    file.writeAt(data, start, this.#frameSize - FRAME_HEADER_SIZE, offset);
    this.#writtenFrames = Math.max(this.#writtenFrames, frame + 1);
    const continues =
      frame === this.#nextFrame &&
      frame === this.#pendingFrame &&
      this.#chainHolds(this.#pendingBytes, data, start);
    if (!continues) {
      // The header before may have completed a frame with the page that was here already.
      return frame === this.#nextFrame ? this.#extend(file) : "ok";
    }
    const { pgno, commit } = this.#pending;
    this.#open.append(pgno, data, start, this.#checksum.s0, this.#checksum.s1);
    if (commit === 0) {
      this.#open.releasePage();
    } else {
      const outcome = this.#commit(commit, file);
      if (outcome !== "ok") return outcome;
    }
    return this.#nextFrame < this.#writtenFrames ? this.#extend(file) : "ok";
  }

  /** Writes of any other shape: the header, several frames at once, pieces of them. */
  #writeOther(
    offset: number,
    data: Uint8Array,
    start: number,
    length: number,
    file: OpenFile,
  ): Outcome {
    if (offset < WAL_HEADER_SIZE) {
      if (this.#header !== undefined) {
        const isRestart = this.#isRestart(offset, data, start, length);
        if (isRestart && !this.#owner.mayRestartWal()) return "io";
        this.#owner.beforeWalReset();
      }
      file.writeAt(data, start, length, offset);
      const bytes = new Uint8Array(WAL_HEADER_SIZE);
      file.readAt(bytes, 0, WAL_HEADER_SIZE, 0);
      this.#store.frames.reset();
      this.setHeader(decodeWalHeader(bytes, 0));
      if (this.#header !== undefined && this.#store.pageSize === 0) {
        this.#store.pageSize = this.#header.pageSize;
      }
    } else {
      file.writeAt(data, start, length, offset);
    }
    if (this.#header === undefined) return "ok";
    if (offset + length > WAL_HEADER_SIZE) {
      const first = Math.max(0, Math.floor((offset - WAL_HEADER_SIZE) / this.#frameSize));
      const end = Math.floor((offset + length - WAL_HEADER_SIZE) / this.#frameSize);
      this.#open.truncate(first);
      this.#pendingFrame = -1;
      this.#writtenFrames = Math.max(this.#writtenFrames, end);
    }
    return this.#extend(file);
  }

  /** What SQLite writes when it starts the WAL over; tools may write anything else there. */
  #isRestart(offset: number, data: Uint8Array, start: number, length: number): boolean {
    if (this.#header === undefined || offset > 0 || length !== WAL_HEADER_SIZE) return false;
    const next = decodeWalHeader(data, start);
    return next?.salt1 === (this.#header.salt1 + 1) >>> 0;
  }

  /** The frame after the chain. */
  get #nextFrame(): number {
    return this.#open.firstFrame + this.#open.frameCount;
  }

  /** Whether a frame continues the chain; leaves the running checksum after it. */
  #chainHolds(header: Uint8Array, page: Uint8Array, start: number): boolean {
    const wal = this.#header;
    const pending = this.#pending;
    if (wal === undefined || pending.pgno === 0) return false;
    if (pending.salt1 !== wal.salt1 || pending.salt2 !== wal.salt2) return false;
    const next = this.#nextFrame;
    if (this.#open.frameCount === 0) this.#checksum.set(this.#sum1, this.#sum2);
    else this.#checksum.set(this.#open.sum1(next - 1), this.#open.sum2(next - 1));
    this.#checksum.update(header, 0, 8);
    this.#checksum.update(page, start, wal.pageSize);
    return this.#checksum.s0 === pending.checksum1 && this.#checksum.s1 === pending.checksum2;
  }

  /** Extends the chain over frames that are in the file already. */
  #extend(file: OpenFile): Outcome {
    const frame = new Uint8Array(this.#frameSize);
    while (this.#nextFrame < this.#writtenFrames) {
      const index = this.#nextFrame;
      const offset = WAL_HEADER_SIZE + index * this.#frameSize;
      if (file.readAt(frame, 0, this.#frameSize, offset) < this.#frameSize) return "ok";
      decodeFrameHeader(frame, 0, this.#pending);
      this.#pendingFrame = -1;
      if (!this.#chainHolds(frame, frame, FRAME_HEADER_SIZE)) return "ok";
      const { pgno, commit } = this.#pending;
      this.#open.append(pgno, frame, FRAME_HEADER_SIZE, this.#checksum.s0, this.#checksum.s1);
      if (commit === 0) {
        this.#open.releasePage();
        continue;
      }
      const outcome = this.#commit(commit, file);
      if (outcome !== "ok") return outcome;
    }
    return "ok";
  }

  /**
   * The bytes of a refused commit are in the file already, and the kernel may have either half in
   * its page cache. With both halves gone here, no later recovery by SQLite can find a valid frame.
   */
  #invalidate(file: OpenFile, frame: number, refusal: FinalOutcome): void {
    this.#refusedFrame = frame;
    this.#refusal = refusal;
    const offset = WAL_HEADER_SIZE + frame * this.#frameSize;
    try {
      file.writeAt(new Uint8Array(this.#frameSize), 0, this.#frameSize, offset);
    } catch (error) {
      this.#owner.walIsUnsound(error);
    }
    this.#open.truncate(frame);
    this.#writtenFrames = Math.min(this.#writtenFrames, frame);
  }

  #commit(pageCount: number, file: OpenFile): Outcome {
    const header = this.#header;
    if (header === undefined) return "io";
    this.#open.seal(pageCount);
    const outcome = this.#owner.commitWal(this.#open, header, pageCount);
    if (outcome === "ok") this.#committed();
    else if (outcome === "later") {
      this.#open.releasePage();
      this.#undecided = { file, pageCount };
    } else this.#invalidate(file, this.#nextFrame - 1, outcome);
    return outcome;
  }

  #committed(): void {
    const lastFrame = this.#nextFrame - 1;
    this.#sum1 = this.#open.sum1(lastFrame);
    this.#sum2 = this.#open.sum2(lastFrame);
    this.#pendingFrame = -1;
    this.#open.reset(lastFrame + 1);
  }

  /** Another node has decided about the transaction that was left to it. */
  decided(isCommitted: boolean): FinalOutcome {
    const undecided = this.#undecided;
    assert(undecided !== undefined, "a transaction to be decided");
    this.#undecided = undefined;
    if (!isCommitted) {
      this.#invalidate(undecided.file, this.#nextFrame - 1, "io");
      return "io";
    }
    this.#owner.adoptWal(this.#open, undecided.pageCount, true);
    this.#committed();
    return "ok";
  }
}
