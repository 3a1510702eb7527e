import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { errorCode, LitefsError } from "../lib/errors.ts";
import { parseMountinfo } from "./mountinfo.ts";

/** An attempt to lock a byte of a file that failed, because somebody else has it locked. */
export interface RefusedLock {
  /** Inode: in a FUSE mount the number of the node. */
  readonly inode: number;
  /** Process, as the machine's first namespace numbers it. */
  readonly pid: number;
  readonly byte: number;
}

const MOUNTED = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const EVENT = "events/filelock/posix_lock_inode";
const PREFIX = "litefs-";
/** Of the directories on which tracefs is mounted for a moment, and then the number of the process. */
const ROOT_PREFIX = "litefs-tracefs-";
const BUFFER_KIB = "64";
/** A lock of an open file description: those are what litefs itself takes. */
const FL_OFDLCK = 1024;
const READ_BYTES = 16 * 1024;
const MOUNT_TIMEOUT_MS = 5_000;
const MAX_TRIES = 5;

/**
 * Tells which locks the kernel has refused, through the tracepoint `filelock:posix_lock_inode` in an
 * instance of tracefs that is ours alone. What is read here are hints: the kernel may drop some.
 *
 * tracefs is mounted for the moments in which a path is needed, where nobody has mounted it.
 */
export class LockTrace {
  /** To be polled for. */
  readonly fd: number;
  readonly #name: string;
  readonly #filterFd: number;
  readonly #enableFd: number;
  readonly #buffer = Buffer.alloc(READ_BYTES);
  #rest = "";

  private constructor(name: string, fd: number, filterFd: number, enableFd: number) {
    this.#name = name;
    this.fd = fd;
    this.#filterFd = filterFd;
    this.#enableFd = enableFd;
  }

  /**
   * `name` begins with the number of this process. Throws when the kernel or this process's privileges
   * do not allow it.
   */
  static open(name: string): LockTrace {
    unmountLeftovers();
    return withTracefs((root) => {
      removeLeftovers(root);
      for (let tries = 1; ; tries++) {
        try {
          return LockTrace.#make(root, name);
        } catch (error) {
          // Another node, which starts now as well in a namespace of its own, has taken it for a
          // leftover: the directory is gone, or the instance behind it is, or is about to be.
          const isGone = ["ENOENT", "ENODEV", "EBUSY"].includes(errorCode(error) ?? "");
          if (!isGone || tries === MAX_TRIES) throw error;
        }
      }
    });
  }

  static #make(root: string, name: string): LockTrace {
    const directory = path.join(root, "instances", PREFIX + name);
    fs.mkdirSync(directory);
    const opened: number[] = [];
    const open = (file: string, flags: number): number => {
      const fd = fs.openSync(path.join(directory, file), flags);
      opened.push(fd);
      return fd;
    };
    try {
      // This first: nobody takes what is open for a leftover.
      const fd = open("trace_pipe", fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
      fs.writeFileSync(path.join(directory, "buffer_size_kb"), BUFFER_KIB);
      // Whoever polls is to be woken by the first event, not by a buffer that is half full.
      fs.writeFileSync(path.join(directory, "buffer_percent"), "0");
      const enableFd = open(`${EVENT}/enable`, fs.constants.O_WRONLY);
      const filterFd = open(`${EVENT}/filter`, fs.constants.O_WRONLY);
      return new LockTrace(name, fd, filterFd, enableFd);
    } catch (error) {
      for (const fd of opened) fs.closeSync(fd);
      removeIfUnused(directory);
      throw error;
    }
  }

  /** Begins with refusals of exclusive locks that start at one of these bytes, on one device. */
  start(device: number, bytes: readonly number[]): void {
    const starts = bytes.map((byte) => `fl_start == ${byte}`).join(" || ");
    const isOurs = `(flags & ${FL_OFDLCK})`;
    const filter = `ret == -11 && type == 1 && s_dev == ${device} && !${isOurs} && (${starts})`;
    fs.writeSync(this.#filterFd, filter);
    fs.writeSync(this.#enableFd, "1");
  }

  /** What has been refused since the last call. */
  read(): RefusedLock[] {
    let text = this.#rest;
    for (;;) {
      try {
        const count = fs.readSync(this.fd, this.#buffer);
        if (count === 0) break;
        text += this.#buffer.toString("latin1", 0, count);
      } catch (error) {
        if (errorCode(error) !== "EAGAIN") throw error;
        break;
      }
    }
    const end = text.lastIndexOf("\n") + 1;
    this.#rest = text.slice(end);
    return parseRefusedLocks(text.slice(0, end));
  }

  close(): void {
    fs.writeSync(this.#enableFd, "0");
    for (const fd of [this.fd, this.#filterFd, this.#enableFd]) fs.closeSync(fd);
    withTracefs((root) => fs.rmdirSync(path.join(root, "instances", PREFIX + this.#name)));
  }
}

/** A file system of its own numbers its devices as the kernel does, not as stat(2) shows them. */
export function kernelDevice(statDevice: number): number {
  const minor = (statDevice & 0xff) | ((statDevice >>> 12) & 0xfff00);
  const major = (statDevice >>> 8) & 0xfff;
  return major * 2 ** 20 + minor;
}

export function parseRefusedLocks(text: string): RefusedLock[] {
  const refused: RefusedLock[] = [];
  const pattern = /posix_lock_inode: .* ino=0x([0-9a-f]+) .* fl_pid=(\d+) .* fl_start=(\d+) /g;
  for (const [, inode = "", pid = "", byte = ""] of text.matchAll(pattern)) {
    refused.push({ inode: Number.parseInt(inode, 16), pid: Number(pid), byte: Number(byte) });
  }
  return refused;
}

function removeLeftovers(root: string): void {
  const instances = path.join(root, "instances");
  for (const name of fs.readdirSync(instances)) {
    if (isLeftover(name, PREFIX)) removeIfUnused(path.join(instances, name));
  }
}

/**
 * Whether something was named by a process that is gone: with this prefix, and then its number. What
 * belongs to a running one is being set up, or in use.
 */
function isLeftover(name: string, prefix: string): boolean {
  if (!name.startsWith(prefix)) return false;
  const pid = Number.parseInt(name.slice(prefix.length), 10);
  return !(pid > 0 && fs.existsSync(`/proc/${pid}`));
}

/** An instance that somebody reads cannot be removed; the others were left by a crash. */
function removeIfUnused(directory: string): void {
  try {
    fs.rmdirSync(directory);
  } catch (error) {
    const code = errorCode(error) ?? "";
    // Not empty: this is no tracefs, and whoever uses it will say so.
    if (!["EBUSY", "ENODEV", "ENOENT", "ENOTEMPTY"].includes(code)) throw error;
  }
}

/** A process that was killed at its start may have left tracefs mounted. */
function unmountLeftovers(): void {
  for (const entry of parseMountinfo(fs.readFileSync("/proc/self/mountinfo", "utf8"))) {
    const { fileSystemType, mountPoint } = entry;
    if (fileSystemType !== "tracefs") continue;
    if (!isLeftover(path.basename(mountPoint), ROOT_PREFIX)) continue;
    try {
      run("umount", ["-l", mountPoint]);
      fs.rmdirSync(mountPoint);
    } catch {
      // Another node that starts now has done it; and what is left over is no reason not to start.
    }
  }
}

function withTracefs<T>(use: (root: string) => T): T {
  const mounted = MOUNTED.find((root) => fs.existsSync(path.join(root, "instances")));
  if (mounted !== undefined) return use(mounted);
  const root = fs.mkdtempSync(path.join(os.tmpdir(), `${ROOT_PREFIX}${process.pid}-`));
  try {
    run("mount", ["-t", "tracefs", "litefs", root]);
    try {
      return use(root);
    } finally {
      // What was opened below it stays usable.
      run("umount", ["-l", root]);
    }
  } finally {
    fs.rmdirSync(root);
  }
}

function run(program: string, args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, args, {
    encoding: "utf8",
    timeout: MOUNT_TIMEOUT_MS,
    env: { ...process.env, LC_ALL: "C" },
  });
  if (error !== undefined) throw error;
  if (status === 0) return;
  const reason = stderr.trim().replaceAll(/\s*\n\s*/g, "; ");
  throw new LitefsError("TRACEFS_UNAVAILABLE", `${program} of tracefs has failed: ${reason}`);
}
