/**
 * Where the parsers get their bytes from: a file, a capture in memory, a test double. Reads are
 * synchronous because they run on threads that own the file.
 */
export interface ReadAt {
  /** Returns the number of bytes read; fewer than asked for only at the end of the file. */
  readAt(out: Uint8Array, outOffset: number, lengthBytes: number, offsetBytes: number): number;
}

/**
 * True when all bytes were read. Tolerates sources that answer in pieces, as pread(2) may; a source
 * that reads nothing has ended.
 */
export function readFully(
  file: ReadAt,
  out: Uint8Array,
  outOffset: number,
  lengthBytes: number,
  offsetBytes: number,
): boolean {
  return readUpTo(file, out, outOffset, lengthBytes, offsetBytes) === lengthBytes;
}

/** Reads until the length is reached or the file ends and returns the number of bytes read. */
export function readUpTo(
  file: ReadAt,
  out: Uint8Array,
  outOffset: number,
  lengthBytes: number,
  offsetBytes: number,
): number {
  let done = 0;
  while (done < lengthBytes) {
    const count = file.readAt(out, outOffset + done, lengthBytes - done, offsetBytes + done);
    if (count <= 0) break;
    done += count;
  }
  return done;
}
