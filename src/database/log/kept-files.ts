import * as fs from "node:fs";
import { nodeFiles } from "../files.ts";
import type { LogFiles, ReadableFile } from "./log-reader.ts";

/** Descriptors that are kept; those used last stay. */
const MAX_KEPT = 8;

interface Kept {
  readonly file: ReadableFile;
  readonly device: number;
  readonly inode: number;
}

/**
 * The real files for a reader that comes back to the same one thousands of times a second: to open and
 * close a segment took more than to read what was new in it. A name is looked up each time, because
 * another file may have its place now.
 */
export class KeptFiles implements LogFiles {
  /** By path, the one used last at the end. */
  readonly #kept = new Map<string, Kept>();

  list(directory: string): string[] {
    return nodeFiles.list(directory);
  }

  /** What is closed is kept. */
  open(path: string): ReadableFile | undefined {
    const found = fs.statSync(path, { throwIfNoEntry: false });
    let kept = this.#kept.get(path);
    this.#kept.delete(path);
    if (kept !== undefined && (kept.inode !== found?.ino || kept.device !== found.dev)) {
      kept.file.close();
      kept = undefined;
    }
    if (found === undefined) return undefined;
    const file = kept?.file ?? nodeFiles.open(path, { readOnly: true });
    if (file === undefined) return undefined;
    // Opened after it was looked at, it could be another one already; then it is opened anew next time.
    return {
      readAt: (out, outOffset, lengthBytes, offsetBytes) =>
        file.readAt(out, outOffset, lengthBytes, offsetBytes),
      size: () => file.size(),
      close: () => this.#keep(path, { file, device: found.dev, inode: found.ino }),
    };
  }

  #keep(path: string, kept: Kept): void {
    const former = this.#kept.get(path);
    if (former !== undefined) former.file.close();
    this.#kept.set(path, kept);
    if (this.#kept.size <= MAX_KEPT) return;
    const [oldest] = this.#kept;
    if (oldest === undefined) return;
    this.#kept.delete(oldest[0]);
    oldest[1].file.close();
  }

  close(): void {
    for (const { file } of this.#kept.values()) file.close();
    this.#kept.clear();
  }
}
