/** Plain shifts instead of a DataView: these run per frame and must not allocate. */

export function readUint16BE(bytes: Uint8Array, offset: number): number {
  return (bytes[offset]! << 8) | bytes[offset + 1]!;
}

export function readUint32BE(bytes: Uint8Array, offset: number): number {
  return (
    ((bytes[offset]! << 24) |
      (bytes[offset + 1]! << 16) |
      (bytes[offset + 2]! << 8) |
      bytes[offset + 3]!) >>>
    0
  );
}

export function readUint16LE(bytes: Uint8Array, offset: number): number {
  return (bytes[offset + 1]! << 8) | bytes[offset]!;
}

export function readUint32LE(bytes: Uint8Array, offset: number): number {
  return (
    ((bytes[offset + 3]! << 24) |
      (bytes[offset + 2]! << 16) |
      (bytes[offset + 1]! << 8) |
      bytes[offset]!) >>>
    0
  );
}

export function writeUint32BE(out: Uint8Array, offset: number, value: number): void {
  out[offset] = value >>> 24;
  out[offset + 1] = value >>> 16;
  out[offset + 2] = value >>> 8;
  out[offset + 3] = value;
}

export function writeUint16LE(out: Uint8Array, offset: number, value: number): void {
  out[offset] = value;
  out[offset + 1] = value >>> 8;
}

export function writeUint32LE(out: Uint8Array, offset: number, value: number): void {
  out[offset] = value;
  out[offset + 1] = value >>> 8;
  out[offset + 2] = value >>> 16;
  out[offset + 3] = value >>> 24;
}
