import * as fs from "node:fs";
import * as path from "node:path";
import { errorCode } from "../lib/errors.ts";

/**
 * The file operations of the engine, handed in so that tests can fail or cut power at any of them.
 * All of them are synchronous: the engine runs on the mount thread, between two kernel requests.
 */
export interface Files {
  /** Opens for reading and writing; creates it when asked; undefined when it does not exist. */
  open(file: string, options?: { create?: boolean; readOnly?: boolean }): OpenFile | undefined;
  /** Names in a directory; empty when there is no such directory. */
  list(directory: string): string[];
  /** Size in bytes, or undefined when there is no such file. */
  size(file: string): number | undefined;
  /** Undefined when there is no such file. */
  identify(file: string): FileIdentity | undefined;
  mkdir(directory: string): void;
  rename(from: string, to: string): void;
  /** Removing what is not there is no error. */
  remove(file: string): void;
  /** With everything in it; missing is no error. */
  removeDirectory(directory: string): void;
  syncDirectory(directory: string): void;
  /** Changes when the machine starts anew, and with it may go what was not synced. */
  bootId(): string;
}

/** A file that was changed or replaced in the meantime has another one. */
export interface FileIdentity {
  readonly inode: number;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

export interface OpenFile {
  /** Bytes read; fewer than asked only at the end of the file. */
  readAt(out: Uint8Array, outOffset: number, lengthBytes: number, offsetBytes: number): number;
  writeAt(data: Uint8Array, start: number, lengthBytes: number, offsetBytes: number): void;
  truncate(sizeBytes: number): void;
  sync(): void;
  size(): number;
  close(): void;
}

class NodeFile implements OpenFile {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  readAt(out: Uint8Array, outOffset: number, lengthBytes: number, offsetBytes: number): number {
    let done = 0;
    while (done < lengthBytes) {
      const count = fs.readSync(
        this.#fd,
        out,
        outOffset + done,
        lengthBytes - done,
        offsetBytes + done,
      );
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  writeAt(data: Uint8Array, start: number, lengthBytes: number, offsetBytes: number): void {
    let done = 0;
    while (done < lengthBytes) {
      done += fs.writeSync(this.#fd, data, start + done, lengthBytes - done, offsetBytes + done);
    }
  }

  truncate(sizeBytes: number): void {
    fs.ftruncateSync(this.#fd, sizeBytes);
  }

  sync(): void {
    fs.fdatasyncSync(this.#fd);
  }

  size(): number {
    return fs.fstatSync(this.#fd).size;
  }

  close(): void {
    fs.closeSync(this.#fd);
  }
}

let bootId: string | undefined;

/** The real file system. */
export const nodeFiles: Files = {
  bootId() {
    bootId ??= fs.readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
    return bootId;
  },
  open(file, options = {}) {
    const access = options.readOnly === true ? fs.constants.O_RDONLY : fs.constants.O_RDWR;
    const flags = access | (options.create === true ? fs.constants.O_CREAT : 0);
    try {
      return new NodeFile(fs.openSync(file, flags, 0o666));
    } catch (error) {
      if (errorCode(error) === "ENOENT") return undefined;
      throw error;
    }
  },
  list(directory) {
    try {
      return fs.readdirSync(directory);
    } catch (error) {
      if (errorCode(error) === "ENOENT") return [];
      throw error;
    }
  },
  size(file) {
    return fs.statSync(file, { throwIfNoEntry: false })?.size;
  },
  identify(file) {
    const stat = fs.statSync(file, { throwIfNoEntry: false });
    return stat && { inode: stat.ino, sizeBytes: stat.size, modifiedMs: stat.mtimeMs };
  },
  mkdir(directory) {
    fs.mkdirSync(directory, { recursive: true });
  },
  rename(from, to) {
    fs.renameSync(from, to);
  },
  remove(file) {
    // rmSync looks at it twice before.
    try {
      fs.unlinkSync(file);
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
    }
  },
  removeDirectory(directory) {
    fs.rmSync(directory, { force: true, recursive: true });
  },
  syncDirectory(directory) {
    const fd = fs.openSync(directory, fs.constants.O_RDONLY);
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  },
};

/** Writes a small file so that a crash leaves either the old one or the new one. */
export function writeFileAtomically(files: Files, file: string, content: Uint8Array): void {
  const temporary = `${file}.tmp`;
  files.remove(temporary);
  const handle = files.open(temporary, { create: true });
  if (handle === undefined) throw new Error(`cannot create ${temporary}`);
  try {
    handle.writeAt(content, 0, content.length, 0);
    handle.sync();
  } finally {
    handle.close();
  }
  files.rename(temporary, file);
  files.syncDirectory(path.dirname(file));
}
