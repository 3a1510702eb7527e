import { assert } from "../lib/assert.ts";
import { CHUNK_HEADER_BYTES, chunkedBytes, writeChunks } from "./chunk.ts";
import { isDatabaseName } from "./database-name.ts";
import {
  FRAME_TYPE_DROP_DATABASE,
  FRAME_TYPE_END,
  FRAME_TYPE_HANDOFF,
  FRAME_TYPE_HEARTBEAT,
  FRAME_TYPE_HWM,
  FRAME_TYPE_LTX,
  FRAME_TYPE_READY,
  MAX_LEASE_ID_BYTES,
} from "./frames.ts";
import { writeU32, writeU64 } from "./integers.ts";

const LTX_FRAME_FIXED_BYTES = 16;

/** Announces an LTX file. Its bytes follow as `encodeChunks`, then `CHUNK_END`. */
export function encodeLtxBegin(name: string): Uint8Array {
  return ltxFrame(name, 0).frame;
}

/** A whole LTX frame, header and chunked body, in one buffer: for small transactions. */
export function encodeLtxFrame(name: string, ltx: Uint8Array): Uint8Array {
  const { frame, bodyOffset } = ltxFrame(name, chunkedBytes(ltx.length) + CHUNK_HEADER_BYTES);
  writeChunks(ltx, frame, bodyOffset);
  return frame;
}

export function encodeReady(): Uint8Array {
  return bareFrame(FRAME_TYPE_READY, 4);
}

export function encodeEnd(): Uint8Array {
  return bareFrame(FRAME_TYPE_END, 4);
}

export function encodeDropDatabase(name: string): Uint8Array {
  return textFrame(FRAME_TYPE_DROP_DATABASE, 4, nameBytes(name));
}

export function encodeHandoff(leaseId: string): Uint8Array {
  const bytes = Buffer.from(leaseId);
  assert(bytes.length >= 1 && bytes.length <= MAX_LEASE_ID_BYTES, "lease id has an invalid length");
  return textFrame(FRAME_TYPE_HANDOFF, 4, bytes);
}

export function encodeHwm(name: string, txid: number): Uint8Array {
  const frame = textFrame(FRAME_TYPE_HWM, 12, nameBytes(name));
  writeU64(frame, 4, txid);
  return frame;
}

export function encodeHeartbeat(timestampMs: number): Uint8Array {
  const frame = bareFrame(FRAME_TYPE_HEARTBEAT, 12);
  writeU64(frame, 4, timestampMs);
  return frame;
}

function ltxFrame(name: string, bodyBytes: number): { frame: Uint8Array; bodyOffset: number } {
  const bytes = nameBytes(name);
  const bodyOffset = LTX_FRAME_FIXED_BYTES + bytes.length;
  const frame = bareFrame(FRAME_TYPE_LTX, bodyOffset + bodyBytes);
  // The u64 size at offset 4 stays 0, as LiteFS sends it and ignores it.
  writeU32(frame, 12, bytes.length);
  frame.set(bytes, LTX_FRAME_FIXED_BYTES);
  return { frame, bodyOffset };
}

/** A frame that ends in a counted text at `offset`. */
function textFrame(type: number, offset: number, text: Uint8Array): Uint8Array {
  const frame = bareFrame(type, offset + 4 + text.length);
  writeU32(frame, offset, text.length);
  frame.set(text, offset + 4);
  return frame;
}

function bareFrame(type: number, byteCount: number): Uint8Array {
  const frame = new Uint8Array(byteCount);
  writeU32(frame, 0, type);
  return frame;
}

function nameBytes(name: string): Uint8Array {
  assert(isDatabaseName(name), `invalid database name ${JSON.stringify(name)}`);
  return Buffer.from(name);
}
