import { assert } from "../lib/assert.ts";
import { FormatError } from "../lib/errors.ts";

/** u64 big-endian as a number; a FormatError when it is beyond 2^53. */
export function readU64(bytes: Uint8Array, offset: number, what: string): number {
  const value = readU32(bytes, offset) * 2 ** 32 + readU32(bytes, offset + 4);
  if (!Number.isSafeInteger(value)) {
    throw new FormatError("STREAM_INVALID", `a peer sent ${what} that is out of range`);
  }
  return value;
}

/** Writes a safe integer that is not negative as u64 big-endian. */
export function writeU64(bytes: Uint8Array, offset: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, "u64 out of range");
  writeU32(bytes, offset, Math.floor(value / 2 ** 32));
  writeU32(bytes, offset + 4, value % 2 ** 32);
}

export function readU32(bytes: Uint8Array, offset: number): number {
  return (
    ((bytes[offset]! << 24) |
      (bytes[offset + 1]! << 16) |
      (bytes[offset + 2]! << 8) |
      bytes[offset + 3]!) >>>
    0
  );
}

export function writeU32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 24;
  bytes[offset + 1] = value >>> 16;
  bytes[offset + 2] = value >>> 8;
  bytes[offset + 3] = value;
}
