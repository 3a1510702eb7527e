import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ReadAt } from "../../../src/sqlite/read-at.ts";

/** Bytes in memory, read at most `pieceBytes` at a time, as pread(2) may. */
export function memoryFile(
  bytes: Uint8Array,
  pieceBytes: number = Number.POSITIVE_INFINITY,
): ReadAt {
  return {
    readAt(out, outOffset, lengthBytes, offsetBytes): number {
      const available = Math.max(0, bytes.length - offsetBytes);
      const count = Math.min(lengthBytes, available, pieceBytes);
      out.set(bytes.subarray(offsetBytes, offsetBytes + count), outOffset);
      return count;
    },
  };
}

/** Plain copies: assertions on Node's Buffer print badly and compare by class. */
export function readBytes(path: string): Uint8Array {
  return new Uint8Array(readFileSync(path));
}

export function copyDatabase(from: string, to: string, suffixes: readonly string[]): void {
  for (const suffix of ["", ...suffixes]) copyFileSync(from + suffix, to + suffix);
}

export class TemporaryDirectory {
  readonly path: string = mkdtempSync(join(tmpdir(), "litefs-sqlite-"));

  file(name: string): string {
    return join(this.path, name);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
