import { FormatError } from "../lib/errors.ts";

export const MAX_DATABASE_NAME_BYTES = 255;

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Names from the network become file names, so they are checked where they come in: valid UTF-8,
 * 1 to 255 bytes, no '/' or NUL, not '.' or '..'.
 */
export function decodeDatabaseName(bytes: Uint8Array): string {
  const name = decodeText(bytes);
  if (name === undefined || !isDatabaseName(name)) {
    const shown = Buffer.from(bytes.subarray(0, 40)).toString("latin1");
    throw new FormatError(
      "STREAM_INVALID",
      `a peer sent the invalid database name ${JSON.stringify(shown)}`,
    );
  }
  return name;
}

/** What decodeDatabaseName accepts; also the test for names that we send. */
export function isDatabaseName(name: string): boolean {
  if (name === "" || name === "." || name === "..") return false;
  if (name.includes("/") || name.includes("\0") || !name.isWellFormed()) return false;
  return Buffer.byteLength(name) <= MAX_DATABASE_NAME_BYTES;
}

/** Undefined when the bytes are not UTF-8. */
export function decodeText(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    // The decoder fails in one way only: bytes that are not UTF-8.
    return undefined;
  }
}
