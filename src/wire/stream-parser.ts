import { assert } from "../lib/assert.ts";
import { FormatError } from "../lib/errors.ts";
import { ChunkParser } from "./chunk.ts";
import { decodeDatabaseName, decodeText, MAX_DATABASE_NAME_BYTES } from "./database-name.ts";
import {
  FRAME_TYPE_DROP_DATABASE,
  FRAME_TYPE_END,
  FRAME_TYPE_HANDOFF,
  FRAME_TYPE_HEARTBEAT,
  FRAME_TYPE_HWM,
  FRAME_TYPE_LTX,
  FRAME_TYPE_READY,
  MAX_LEASE_ID_BYTES,
  type StreamFrame,
} from "./frames.ts";
import { readU32, readU64 } from "./integers.ts";

const TYPE_BYTES = 4;
const LENGTH_BYTES = 4;

/**
 * Takes the body of a /stream response apart, pushed in any portions, in bounded memory. The
 * frames do not depend on how the body was cut, except for the borders of `ltx-data`.
 */
export class StreamParser {
  /** One frame's fields: at most type, TXID, length and text. */
  readonly #fields = new Uint8Array(TYPE_BYTES + 8 + LENGTH_BYTES + MAX_LEASE_ID_BYTES);
  #fieldBytes = 0;
  #neededBytes = TYPE_BYTES;
  #body: ChunkParser | undefined;
  #state: "open" | "pushing" | "failed" = "open";

  /**
   * Yields the frames that `portion` completes. The iteration must be run to its end before the
   * next push; frames before a damaged one are yielded before the FormatError is thrown.
   */
  *push(portion: Uint8Array): Generator<StreamFrame, void, undefined> {
    assert(this.#state === "open", "stream parser pushed after an error or during a push");
    this.#state = "pushing";
    try {
      yield* this.#parse(portion);
      this.#state = "open";
    } finally {
      if (this.#state === "pushing") this.#state = "failed";
    }
  }

  /** Throws a FormatError unless the stream ended between two frames. */
  end(): void {
    assert(this.#state === "open", "stream parser ended after an error or during a push");
    this.#state = "failed";
    if (this.#body !== undefined || this.#fieldBytes > 0) {
      throw new FormatError("STREAM_TRUNCATED", "the stream broke off inside a frame");
    }
  }

  *#parse(portion: Uint8Array): Generator<StreamFrame, void, undefined> {
    let at = 0;
    while (at < portion.length) {
      if (this.#body !== undefined) {
        const bytes = this.#body.take(portion, at);
        at = this.#body.offset;
        if (bytes !== undefined) yield { type: "ltx-data", bytes };
        if (this.#body.done) {
          this.#body = undefined;
          yield { type: "ltx-end" };
        }
        continue;
      }
      const end = Math.min(portion.length, at + this.#neededBytes - this.#fieldBytes);
      this.#fields.set(portion.subarray(at, end), this.#fieldBytes);
      this.#fieldBytes += end - at;
      at = end;
      if (this.#fieldBytes < this.#neededBytes) return;
      const frame = this.#takeFields();
      if (frame === undefined) continue;
      this.#fieldBytes = 0;
      this.#neededBytes = TYPE_BYTES;
      yield frame;
    }
  }

  /** The frame when its fields are complete; otherwise asks for more bytes. */
  #takeFields(): StreamFrame | undefined {
    const type = readU32(this.#fields, 0);
    switch (type) {
      case FRAME_TYPE_READY:
        return { type: "ready" };
      case FRAME_TYPE_END:
        return { type: "end" };
      case FRAME_TYPE_HEARTBEAT:
        return this.#takeHeartbeat();
      case FRAME_TYPE_LTX: {
        const text = this.#takeText(12, MAX_DATABASE_NAME_BYTES);
        if (text === undefined) return undefined;
        const name = decodeDatabaseName(text);
        this.#body = new ChunkParser();
        return { type: "ltx-begin", name };
      }
      case FRAME_TYPE_DROP_DATABASE: {
        const text = this.#takeText(4, MAX_DATABASE_NAME_BYTES);
        return text && { type: "drop-database", name: decodeDatabaseName(text) };
      }
      case FRAME_TYPE_HANDOFF: {
        const text = this.#takeText(4, MAX_LEASE_ID_BYTES);
        return text && { type: "handoff", leaseId: decodeLeaseId(text) };
      }
      case FRAME_TYPE_HWM: {
        const text = this.#takeText(12, MAX_DATABASE_NAME_BYTES);
        if (text === undefined) return undefined;
        const txid = readU64(this.#fields, 4, "a high-water mark");
        return { type: "hwm", txid, name: decodeDatabaseName(text) };
      }
      default:
        throw unknownType(this.#fields.subarray(0, TYPE_BYTES));
    }
  }

  #takeHeartbeat(): StreamFrame | undefined {
    if (!this.#has(12)) return undefined;
    return { type: "heartbeat", timestampMs: readU64(this.#fields, 4, "a heartbeat time") };
  }

  /** The text whose length field is at `offset`, once all of it is there. */
  #takeText(offset: number, maxBytes: number): Uint8Array | undefined {
    const start = offset + LENGTH_BYTES;
    if (!this.#has(start)) return undefined;
    const length = readU32(this.#fields, offset);
    if (length < 1 || length > maxBytes) {
      throw new FormatError(
        "STREAM_INVALID",
        `a stream frame has a text of ${length} bytes, outside 1…${maxBytes}`,
      );
    }
    if (!this.#has(start + length)) return undefined;
    return this.#fields.subarray(start, start + length);
  }

  #has(byteCount: number): boolean {
    if (this.#fieldBytes >= byteCount) return true;
    this.#neededBytes = byteCount;
    return false;
  }
}

function decodeLeaseId(bytes: Uint8Array): string {
  const leaseId = decodeText(bytes);
  if (leaseId === undefined) {
    throw new FormatError("STREAM_INVALID", "a handoff frame has a lease id that is not UTF-8");
  }
  return leaseId;
}

/** LiteFS writes error texts into a stream that has begun, so the type is shown as text, too. */
function unknownType(bytes: Uint8Array): FormatError {
  const text = JSON.stringify(Buffer.from(bytes).toString("latin1"));
  return new FormatError(
    "STREAM_INVALID",
    `unknown stream frame type ${readU32(bytes, 0)} (as text: ${text}); ` +
      "the primary may have written an error message into the stream, see its log",
  );
}
