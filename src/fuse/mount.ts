import { close, open } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { promisify } from "node:util";
import { type Clock, systemClock } from "../lib/clock.ts";
import { errorCode } from "../lib/errors.ts";
import { type Logger, silentLogger } from "../lib/log.ts";
import { abortConnection } from "./connection.ts";
import {
  FuseMountError,
  deviceError,
  notRootError,
  programError,
  readPrivileges,
  refusedError,
} from "./mount-errors.ts";
import { canonicalMountPoint, findMount, isFuse } from "./mountinfo.ts";
import { type CommandResult, runCommand } from "./run-command.ts";

export interface MountOptions {
  /** An existing, empty directory. */
  readonly directory: string;
  /** What `mount` and `df` show as the source. */
  readonly fsname: string;
  /** Makes the file system type `fuse.<subtype>`. */
  readonly subtype?: string;
  /** Lets users other than root in. */
  readonly allowOther: boolean;
  /** Hides what is in the directory instead of refusing it. */
  readonly allowNonEmpty?: boolean;
  readonly logger?: Logger;
  readonly clock?: Clock;
}

/** Everything here is asynchronous and must stay so: a synchronous call on a path below the mount
 * would wait for a thread that may be waiting for this one. */
export interface FuseMount {
  /** Canonical path of the mount point. */
  readonly mountPoint: string;
  /** /dev/fuse, to be served by a FuseSession on another thread. */
  readonly fd: number;
  /** Number of the connection below /sys/fs/fuse/connections. */
  readonly connectionId: number;
  /**
   * Ends the mount, and with it the session's run(). `detached`: it was busy until the end, so it
   * is gone from the directory tree, but the session runs on until the last file is closed or
   * abort() is called.
   */
  unmount(): Promise<"unmounted" | "detached">;
  /** Fails every waiting request and ends the session, whatever state it is in. */
  abort(): Promise<void>;
  /** Closes fd. Only after the session's thread has returned from run(). */
  close(): Promise<void>;
}

const MAX_TRANSFER_BYTES = 1 << 20;
const MOUNT_TIMEOUT_MS = 10_000;
const UNMOUNT_TIMEOUT_MS = 5_000;
const BUSY_RETRIES = 10;
const BUSY_RETRY_MS = 100;

/**
 * Mounts a FUSE file system on a directory. The mount answers nothing before a FuseSession serves
 * its fd.
 */
export async function mountFuse(options: MountOptions): Promise<FuseMount> {
  const uid = process.geteuid?.() ?? 0;
  if (uid !== 0) throw notRootError(uid);
  const mountPoint = await checkMountPoint(options);
  const fd = await promisify(open)("/dev/fuse", "r+").catch((error: unknown) => {
    throw deviceError(error);
  });
  try {
    await mountOn(mountPoint, fd, options);
    const entry = await findMount(mountPoint);
    if (entry === undefined) {
      throw new FuseMountError("FUSE_MOUNT_FAILED", `${mountPoint} was mounted and is gone again`);
    }
    return new MountedFuse(mountPoint, fd, entry.deviceMinor, options);
  } catch (error) {
    await promisify(close)(fd);
    throw error;
  }
}

/**
 * Removes what a crashed predecessor left on the directory: a FUSE mount whose server is gone.
 * Returns whether there was one. A mount that still answers, or anything else that is mounted
 * there, is not touched.
 */
export async function unmountStale(directory: string): Promise<boolean> {
  let mountPoint: string;
  try {
    mountPoint = await canonicalMountPoint(directory);
  } catch (error) {
    // What is not there, or cannot be, has nothing mounted on it.
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return false;
    throw error;
  }
  let removed = false;
  // Several crashes can leave several mounts on top of each other.
  for (;;) {
    const entry = await findMount(mountPoint);
    if (entry === undefined || !isFuse(entry) || !(await isDisconnected(mountPoint))) {
      return removed;
    }
    const result = await umount(["-l", mountPoint]);
    if (result.exitCode !== 0) throw unmountError(mountPoint, result);
    removed = true;
  }
}

class MountedFuse implements FuseMount {
  readonly mountPoint: string;
  readonly fd: number;
  readonly connectionId: number;
  readonly #logger: Logger;
  readonly #clock: Clock;
  /** The kernel may give our connection's number to another mount from then on. */
  #ended = false;

  constructor(mountPoint: string, fd: number, connectionId: number, options: MountOptions) {
    this.mountPoint = mountPoint;
    this.fd = fd;
    this.connectionId = connectionId;
    this.#logger = options.logger ?? silentLogger;
    this.#clock = options.clock ?? systemClock;
  }

  async unmount(): Promise<"unmounted" | "detached"> {
    for (let attempt = 0; attempt <= BUSY_RETRIES; attempt++) {
      if (!(await this.#isMounted())) return this.#end();
      const result = await umount([this.mountPoint]);
      if (result.exitCode === 0) return this.#end();
      if (result.exitCode === undefined) {
        this.#logger.warn("fuse: the mount does not answer, aborting it", { dir: this.mountPoint });
        await this.abort();
      } else if (!/busy/i.test(result.stderr) && (await this.#isMounted())) {
        throw unmountError(this.mountPoint, result);
      }
      await this.#clock.sleep(BUSY_RETRY_MS);
    }
    const result = await umount(["-l", this.mountPoint]);
    if (result.exitCode !== 0) throw unmountError(this.mountPoint, result);
    this.#logger.warn("fuse: files below the mount are still open, it was unmounted lazily", {
      dir: this.mountPoint,
    });
    return "detached";
  }

  async abort(): Promise<void> {
    if (!this.#ended) await abortConnection(this.connectionId, this.mountPoint);
  }

  close(): Promise<void> {
    return promisify(close)(this.fd);
  }

  #end(): "unmounted" {
    this.#ended = true;
    return "unmounted";
  }

  /** Ours, not something that was mounted there after somebody unmounted us. */
  async #isMounted(): Promise<boolean> {
    return (await findMount(this.mountPoint))?.deviceMinor === this.connectionId;
  }
}

async function mountOn(mountPoint: string, fd: number, options: MountOptions): Promise<void> {
  const flags = ["fd=3", "rootmode=40000", `user_id=${process.geteuid?.()}`];
  // With pages of 64 KiB the kernel would otherwise send larger READs than the session can answer.
  flags.push(`group_id=${process.getegid?.()}`, `max_read=${MAX_TRANSFER_BYTES}`);
  if (options.allowOther) flags.push("allow_other");
  const type = options.subtype === undefined ? "fuse" : `fuse.${options.subtype}`;
  // -i: no helper program of libfuse, which would not know about our fd.
  const args = ["-i", "-t", type, "-o", flags.join(","), options.fsname, mountPoint];
  const result = await runCommand("mount", args, {
    timeoutMs: MOUNT_TIMEOUT_MS,
    inheritedFd: fd,
  }).catch((error: unknown) => {
    throw programError("mount", error);
  });
  if (result.exitCode === 0) return;
  const reason = result.exitCode === undefined ? "the mount program hangs" : result.stderr;
  throw refusedError(mountPoint, reason, await readPrivileges());
}

async function checkMountPoint(options: MountOptions): Promise<string> {
  const { directory } = options;
  const problem = (code: string, text: string, cause?: unknown): FuseMountError =>
    new FuseMountError(code, `cannot mount on ${directory}: ${text}`, { cause });
  const unusable = (error: unknown): FuseMountError =>
    errorCode(error) === "ENOENT"
      ? problem("FUSE_MOUNT_POINT_MISSING", "it does not exist, create it first", error)
      : problem("FUSE_MOUNT_POINT_UNUSABLE", "it cannot be looked at", error);
  const mountPoint = await canonicalMountPoint(directory).catch((error: unknown) => {
    throw unusable(error);
  });
  // Before touching it: a mount whose server hangs would hang us.
  const mounted = await findMount(mountPoint);
  if (mounted !== undefined) {
    throw problem(
      "FUSE_MOUNT_POINT_BUSY",
      `${mounted.source} (${mounted.fileSystemType}) is already mounted there: stop the other litefs, or run \`umount ${directory}\``,
    );
  }
  const status = await stat(mountPoint).catch((error: unknown) => {
    throw unusable(error);
  });
  if (!status.isDirectory()) throw problem("FUSE_MOUNT_POINT_NOT_DIRECTORY", "not a directory");
  if (options.allowNonEmpty !== true && (await readdir(mountPoint)).length > 0) {
    throw problem(
      "FUSE_MOUNT_POINT_NOT_EMPTY",
      "it is not empty, and the mount would hide what is in it: move that away (databases belong into the data directory)",
    );
  }
  return mountPoint;
}

/**
 * Asks in another process, because a mount whose server hangs would keep a thread of ours waiting
 * for ever, and with it the end of this process. A mount that does not answer is not disconnected.
 */
async function isDisconnected(mountPoint: string): Promise<boolean> {
  const script =
    "try { require('fs').statSync(process.argv[1]) } catch (e) { if (e.code === 'ENOTCONN') process.exit(107) }";
  const args = ["-e", script, mountPoint];
  const result = await runCommand(process.execPath, args, { timeoutMs: UNMOUNT_TIMEOUT_MS });
  return result.exitCode === 107;
}

async function umount(args: readonly string[]): Promise<CommandResult> {
  try {
    return await runCommand("umount", args, { timeoutMs: UNMOUNT_TIMEOUT_MS });
  } catch (error) {
    throw programError("umount", error);
  }
}

function unmountError(mountPoint: string, result: CommandResult): FuseMountError {
  return new FuseMountError(
    "FUSE_UNMOUNT_FAILED",
    `${mountPoint} could not be unmounted: ${result.stderr || "umount hangs"}: stop the programs that use it, then run \`umount ${mountPoint}\``,
  );
}
