import { createRequire } from "node:module";
import { getSystemErrorName } from "node:util";
import { LitefsError } from "../lib/errors.ts";
import { F_RDLCK, F_UNLCK, F_WRLCK } from "./constants.ts";

/*
 * struct flock of Linux on 64 bits
 *
 * | offset | size | field                         |
 * |--------|------|-------------------------------|
 * | 0      | 2    | l_type                        |
 * | 2      | 2    | l_whence: 0, from the start   |
 * | 8      | 8    | l_start                       |
 * | 16     | 8    | l_len                         |
 * | 24     | 4    | l_pid: 0 for these locks      |
 *
 * struct pollfd: 0 fd, 4 events (u16), 6 revents (u16)
 */
const FLOCK_BYTES = 32;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const POLLIN = 1;
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;
const EINTR = 4;
const EACCES = 13;
const EAGAIN = 11;

export type LockType = "read" | "write" | "none";

/** A lock that is in the way, and the process that has it; 0 when it is outside of our namespace. */
export interface ForeignLock {
  readonly pid: number;
}

/** The part of the FFI library that is used here. */
interface Library {
  func(prototype: string): (...args: unknown[]) => number;
}
interface ForeignFunctions {
  load(path: null): Library;
  errno(): number;
}

/**
 * System calls that Node.js does not have: locks of an open file description, which belong to a
 * descriptor and not to the process, and waiting for one of several descriptors. They go through the
 * optional package `koffi`.
 */
export class SystemCalls {
  readonly #koffi: ForeignFunctions;
  readonly #fcntl: (...args: unknown[]) => number;
  readonly #poll: (...args: unknown[]) => number;
  readonly #pipe: (...args: unknown[]) => number;
  readonly #flock = new Uint8Array(FLOCK_BYTES);
  readonly #view = new DataView(this.#flock.buffer);

  /** Throws when the package is missing, or not made for this platform. */
  constructor() {
    this.#koffi = createRequire(import.meta.url)("koffi") as ForeignFunctions;
    const libc = this.#koffi.load(null);
    this.#fcntl = libc.func("int fcntl(int fd, int command, void *argument)");
    this.#poll = libc.func("int poll(void *fds, uint64_t count, int timeout)");
    this.#pipe = libc.func("int pipe2(void *fds, int flags)");
  }

  /** Takes, changes or releases a lock, bytes inclusive; false when somebody is in the way. */
  setLock(fd: number, type: LockType, first: number, last: number): boolean {
    this.#encode(type, first, last);
    if (this.#fcntl(fd, F_OFD_SETLK, this.#flock) === 0) return true;
    const errno = this.#koffi.errno();
    if (errno === EAGAIN || errno === EACCES) return false;
    throw systemError("fcntl", errno);
  }

  /** A lock of somebody else that keeps this descriptor from having one of this type. */
  foreignLock(
    fd: number,
    type: "read" | "write",
    first: number,
    last: number,
  ): ForeignLock | undefined {
    this.#encode(type, first, last);
    if (this.#fcntl(fd, F_OFD_GETLK, this.#flock) !== 0) {
      throw systemError("fcntl", this.#koffi.errno());
    }
    if (this.#view.getInt16(0, true) === F_UNLCK) return undefined;
    return { pid: this.#view.getInt32(24, true) };
  }

  /** Waits until one of the descriptors can be read; with -1 for ever. */
  waitReadable(fds: readonly number[], timeoutMs: number): boolean {
    const polled = new Uint8Array(fds.length * 8);
    const view = new DataView(polled.buffer);
    for (const [i, fd] of fds.entries()) {
      view.setInt32(i * 8, fd, true);
      view.setInt16(i * 8 + 4, POLLIN, true);
    }
    const count = this.#poll(polled, fds.length, timeoutMs);
    if (count >= 0) return count > 0;
    const errno = this.#koffi.errno();
    if (errno === EINTR) return false;
    throw systemError("poll", errno);
  }

  /** Neither end ever waits. */
  pipe(): { readonly readFd: number; readonly writeFd: number } {
    const fds = new Int32Array(2);
    if (this.#pipe(fds, O_CLOEXEC | O_NONBLOCK) !== 0)
      throw systemError("pipe2", this.#koffi.errno());
    return { readFd: fds[0] ?? -1, writeFd: fds[1] ?? -1 };
  }

  #encode(type: LockType, first: number, last: number): void {
    const view = this.#view;
    this.#flock.fill(0);
    view.setInt16(0, type === "none" ? F_UNLCK : type === "read" ? F_RDLCK : F_WRLCK, true);
    view.setBigInt64(8, BigInt(first), true);
    view.setBigInt64(16, BigInt(last - first + 1), true);
  }
}

function systemError(call: string, errno: number): Error {
  const name = getSystemErrorName(-errno);
  return new LitefsError(name, `${call} has failed: ${name}`);
}
