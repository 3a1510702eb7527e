import { assert } from "../lib/assert.ts";
import { Lz4BlockCompressor } from "./lz4-block.ts";
import { BLOCK_STORED, WRITE_BLOCK_BYTES, WRITE_FRAME_HEADER } from "./lz4-frame.ts";
import { XxHash32 } from "./xxhash32.ts";

/** Takes bytes that are valid only during the call. */
export type ByteSink = (bytes: Uint8Array) => void;

const BLOCK_HEADER_BYTES = 4;

/**
 * Writes LZ4 frames with the parameters of LiteFS, one after another, and reuses its buffers.
 * Input is cut every 64 KiB, whatever the portions in which it comes.
 */
export class Lz4FrameEncoder {
  readonly #sink: ByteSink;
  readonly #compressor = new Lz4BlockCompressor();
  readonly #hash = new XxHash32();
  readonly #block = new Uint8Array(WRITE_BLOCK_BYTES);
  readonly #packed = new Uint8Array(BLOCK_HEADER_BYTES + WRITE_BLOCK_BYTES);
  readonly #packedView = new DataView(this.#packed.buffer);
  #blockBytes = 0;
  #open = false;

  constructor(sink: ByteSink) {
    this.#sink = sink;
  }

  /** Begins a frame; an unfinished one is forgotten. */
  begin(): void {
    this.#hash.reset();
    this.#blockBytes = 0;
    this.#open = true;
    this.#sink(WRITE_FRAME_HEADER);
  }

  write(bytes: Uint8Array): void {
    assert(this.#open, "LZ4 frame is not open");
    const room = WRITE_BLOCK_BYTES - this.#blockBytes;
    if (bytes.length <= room) {
      this.#append(bytes);
      return;
    }
    for (let at = 0; at < bytes.length;) {
      const portion = Math.min(WRITE_BLOCK_BYTES - this.#blockBytes, bytes.length - at);
      this.#append(bytes.subarray(at, at + portion));
      at += portion;
    }
  }

  end(): void {
    assert(this.#open, "LZ4 frame is not open");
    if (this.#blockBytes > 0) this.#flush();
    this.#packedView.setUint32(0, 0);
    this.#packedView.setUint32(4, this.#hash.digest(), true);
    this.#open = false;
    this.#sink(this.#packed.subarray(0, 8));
  }

  #append(portion: Uint8Array): void {
    this.#block.set(portion, this.#blockBytes);
    this.#blockBytes += portion.length;
    if (this.#blockBytes === WRITE_BLOCK_BYTES) this.#flush();
  }

  #flush(): void {
    const length = this.#blockBytes;
    this.#hash.update(this.#block, 0, length);
    // Compression that saves nothing does not fit: the target ends one byte before the input's size.
    let size = this.#compressor.compress(
      this.#block,
      0,
      length,
      this.#packed,
      BLOCK_HEADER_BYTES,
      BLOCK_HEADER_BYTES + length - 1,
    );
    if (size > 0) {
      this.#packedView.setUint32(0, size, true);
    } else {
      size = length;
      this.#packedView.setUint32(0, (size | BLOCK_STORED) >>> 0, true);
      this.#packed.set(this.#block.subarray(0, length), BLOCK_HEADER_BYTES);
    }
    this.#blockBytes = 0;
    this.#sink(this.#packed.subarray(0, BLOCK_HEADER_BYTES + size));
  }
}
