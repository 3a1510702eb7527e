import { assert } from "../lib/assert.ts";
import { FormatError } from "../lib/errors.ts";
import { decompressLz4Block } from "./lz4-block.ts";
import type { ByteSink } from "./lz4-frame-encoder.ts";
import {
  BLOCK_STORED,
  FLG_BLOCK_CHECKSUM,
  FLG_BLOCK_INDEPENDENT,
  FLG_CONTENT_CHECKSUM,
  FLG_CONTENT_SIZE,
  FLG_DICTIONARY,
  FLG_RESERVED,
  FLG_VERSION_1,
  FLG_VERSION_MASK,
  LZ4_FRAME_MAGIC,
  WRITE_BLOCK_BYTES,
} from "./lz4-frame.ts";
import { XxHash32 } from "./xxhash32.ts";

const BASE_HEADER_BYTES = 7;
const CONTENT_SIZE_BYTES = 8;

type State = "header" | "block-size" | "block" | "checksum" | "done";

/**
 * Reads one LZ4 frame pushed in any portions. Holds at most one block, compressed and
 * uncompressed (64 KiB as LiteFS writes it, 4 MiB at most). Blocks must be independent and without
 * block checksums: LiteFS computes those wrongly, so they cannot be trusted either way.
 */
export class Lz4FrameDecoder {
  readonly #sink: ByteSink;
  readonly #hash = new XxHash32();
  #state: State = "header";
  /** The piece being gathered: header, block size, block or checksum. */
  #piece = new Uint8Array(64);
  #pieceBytes = 0;
  #pieceNeeded = BASE_HEADER_BYTES;
  #block: Uint8Array = new Uint8Array(0);
  #blockStored = false;
  #hasChecksum = false;
  #contentBytes = 0;
  #declaredContentBytes: bigint | undefined;

  /** The sink gets uncompressed bytes, valid only during the call. */
  constructor(sink: ByteSink) {
    this.#sink = sink;
  }

  get done(): boolean {
    return this.#state === "done";
  }

  /** Takes bytes from `start`; gives where it stopped, which is the end unless `done`. */
  push(bytes: Uint8Array, start: number): number {
    let at = start;
    while (at < bytes.length && this.#state !== "done") {
      const missing = this.#pieceNeeded - this.#pieceBytes;
      if (this.#pieceBytes === 0 && bytes.length - at >= missing) {
        this.#takePiece(bytes, at);
        at += missing;
        continue;
      }
      this.#growPiece();
      const portion = Math.min(missing, bytes.length - at);
      this.#piece.set(bytes.subarray(at, at + portion), this.#pieceBytes);
      this.#pieceBytes += portion;
      at += portion;
      if (this.#pieceBytes === this.#pieceNeeded) this.#takePiece(this.#piece, 0);
    }
    return at;
  }

  #takePiece(bytes: Uint8Array, start: number): void {
    const end = start + this.#pieceNeeded;
    switch (this.#state) {
      case "header":
        this.#takeHeader(bytes, start, end);
        return;
      case "block-size":
        this.#takeBlockSize(readU32LE(bytes, start));
        return;
      case "block":
        this.#takeBlock(bytes, start, end);
        return;
      case "checksum":
        if (readU32LE(bytes, start) !== this.#hash.digest()) {
          throw invalid("its content checksum does not match");
        }
        this.#finish();
        return;
      case "done":
        assert(false, "LZ4 frame is already complete");
    }
  }

  #takeHeader(bytes: Uint8Array, start: number, end: number): void {
    if (readU32LE(bytes, start) !== LZ4_FRAME_MAGIC)
      throw invalid("it does not start with its magic");
    const flg = bytes[start + 4]!;
    const bd = bytes[start + 5]!;
    const withContentSize = (flg & FLG_CONTENT_SIZE) !== 0;
    if (withContentSize && this.#pieceNeeded === BASE_HEADER_BYTES) {
      this.#growHeader(bytes, start);
      return;
    }
    this.#hash.update(bytes, start + 4, end - 1);
    const check = (this.#hash.digest() >>> 8) & 0xff;
    this.#hash.reset();
    if (check !== bytes[end - 1]) throw invalid("its header check does not match");
    checkFlags(flg);
    const blockBytes = blockBytesOf(bd);
    this.#hasChecksum = (flg & FLG_CONTENT_CHECKSUM) !== 0;
    if (withContentSize) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      this.#declaredContentBytes = view.getBigUint64(start + 6, true);
    }
    this.#block = takeBlockBuffer(blockBytes);
    this.#expect("block-size", 4);
  }

  /** The first header bytes tell that more are to come: gather again, from where they lie. */
  #growHeader(bytes: Uint8Array, start: number): void {
    if (bytes !== this.#piece) {
      this.#piece.set(bytes.subarray(start, start + BASE_HEADER_BYTES));
    }
    this.#pieceBytes = BASE_HEADER_BYTES;
    this.#pieceNeeded = BASE_HEADER_BYTES + CONTENT_SIZE_BYTES;
  }

  #takeBlockSize(field: number): void {
    if (field === 0) {
      const declared = this.#declaredContentBytes;
      if (declared !== undefined && declared !== BigInt(this.#contentBytes)) {
        throw invalid(`it declares ${declared} bytes and holds ${this.#contentBytes}`);
      }
      if (this.#hasChecksum) this.#expect("checksum", 4);
      else this.#finish();
      return;
    }
    this.#blockStored = field >= BLOCK_STORED;
    const size = this.#blockStored ? field - BLOCK_STORED : field;
    if (size === 0 || size > this.#block.length) {
      throw invalid(`a block of ${size} bytes is outside 1…${this.#block.length}`);
    }
    this.#expect("block", size);
  }

  #takeBlock(bytes: Uint8Array, start: number, end: number): void {
    let length = end - start;
    // A stored block is copied, too: what comes out is aligned, which checksums like.
    if (this.#blockStored) this.#block.set(bytes.subarray(start, end));
    else length = decompressLz4Block(bytes, start, end, this.#block);
    const content = this.#block.subarray(0, length);
    this.#contentBytes += content.length;
    if (this.#hasChecksum) this.#hash.update(content, 0, content.length);
    this.#expect("block-size", 4);
    this.#sink(content);
  }

  /** Only a piece that arrives in several portions needs the space. */
  #growPiece(): void {
    if (this.#piece.length >= this.#pieceNeeded) return;
    const larger = new Uint8Array(this.#pieceNeeded);
    larger.set(this.#piece.subarray(0, this.#pieceBytes));
    this.#piece = larger;
  }

  #finish(): void {
    this.#state = "done";
    giveBlockBuffer(this.#block);
  }

  #expect(state: State, byteCount: number): void {
    this.#state = state;
    this.#pieceBytes = 0;
    this.#pieceNeeded = byteCount;
  }
}

/**
 * Blocks of 64 KiB go from one decoder to the next: clearing a new one takes longer than decoding
 * a small transaction. A decoder that fails keeps its block, which is then collected.
 */
const freeBlocks: Uint8Array[] = [];
const MAX_FREE_BLOCKS = 4;

function takeBlockBuffer(byteCount: number): Uint8Array {
  const free = byteCount === WRITE_BLOCK_BYTES ? freeBlocks.pop() : undefined;
  return free ?? new Uint8Array(byteCount);
}

function giveBlockBuffer(block: Uint8Array): void {
  if (block.length === WRITE_BLOCK_BYTES && freeBlocks.length < MAX_FREE_BLOCKS) {
    freeBlocks.push(block);
  }
}

function checkFlags(flg: number): void {
  if ((flg & FLG_VERSION_MASK) !== FLG_VERSION_1) throw invalid("its version is unknown");
  if ((flg & FLG_RESERVED) !== 0) throw invalid("it uses reserved flags");
  if ((flg & FLG_DICTIONARY) !== 0) throw invalid("it needs a dictionary");
  if ((flg & FLG_BLOCK_CHECKSUM) !== 0) throw invalid("block checksums are not supported");
  if ((flg & FLG_BLOCK_INDEPENDENT) === 0) throw invalid("linked blocks are not supported");
}

/** Block size codes 4 to 7 stand for 64 KiB, 256 KiB, 1 MiB and 4 MiB. */
function blockBytesOf(bd: number): number {
  const code = bd >>> 4;
  if ((bd & 0x8f) !== 0 || code < 4) throw invalid(`its block size code ${bd} is invalid`);
  return 1 << (8 + 2 * code);
}

function readU32LE(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0
  );
}

function invalid(what: string): FormatError {
  return new FormatError("LZ4_INVALID", `the compressed pages are not a valid LZ4 frame: ${what}`);
}
