import * as fs from "node:fs/promises";
import * as path from "node:path";
import { LitefsError } from "../../lib/errors.ts";

/**
 * A snapshot on its way into a file, so that one of any size takes no memory. The file is complete
 * and on the disk when `finish` resolves.
 */
export class SnapshotSpool {
  readonly path: string;
  readonly #file: fs.FileHandle;

  private constructor(file: fs.FileHandle, filePath: string) {
    this.#file = file;
    this.path = filePath;
  }

  static async create(filePath: string): Promise<SnapshotSpool> {
    try {
      await fs.mkdir(path.dirname(filePath), { recursive: true });
      return new SnapshotSpool(await fs.open(filePath, "w", 0o644), filePath);
    } catch (cause) {
      throw spoolError(filePath, cause);
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    try {
      await this.#file.writeFile(bytes);
    } catch (cause) {
      throw spoolError(this.path, cause);
    }
  }

  async finish(): Promise<void> {
    try {
      await this.#file.sync();
      await this.#file.close();
    } catch (cause) {
      throw spoolError(this.path, cause);
    }
  }

  async discard(): Promise<void> {
    await this.#file.close();
    await fs.rm(this.path, { force: true });
  }
}

function spoolError(file: string, cause: unknown): LitefsError {
  return new LitefsError(
    "SNAPSHOT_SPOOL_FAILED",
    `cannot store the received snapshot in ${file}: check the free space and the permissions of data.dir`,
    { cause },
  );
}
