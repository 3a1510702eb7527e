import type { WASI } from "node:wasi";
import { errorText } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";

/** What is used of it; the types of Node.js leave it to those of the browser. */
declare const WebAssembly: {
  readonly Memory: new (size: { readonly initial: number; readonly maximum: number }) => {
    readonly buffer: ArrayBuffer;
  };
};

/** Numbers and errno of WASI preview 1. */
const FDFLAGS_NONBLOCK = 4;
const ERRNO_SUCCESS = 0;
const STDIN = 0;
const WASM_PAGE_BYTES = 65_536;

type SystemCall = (...args: number[]) => number;

/**
 * read(2) that may find nothing, without an exception: in Node.js `fs.readSync` throws EAGAIN, which
 * takes 3 µs and leaves garbage. The system interface that Node.js has for WebAssembly programs
 * returns an errno instead. There is no program here, only memory, whose standard input is the
 * descriptor.
 *
 * Bytes are read into the beginning of `memory`; behind them stand the arguments of the call:
 *
 * | offset        | size | field                     |
 * |---------------|------|---------------------------|
 * | capacity      | 4    | address of the buffer (0) |
 * | capacity + 4  | 4    | its length                |
 * | capacity + 8  | 4    | bytes read                |
 */
export class PollingRead {
  readonly memory: ArrayBuffer;
  readonly #words: Int32Array;
  readonly #read: SystemCall;
  readonly #setFlags: SystemCall;
  readonly #argument: number;
  #isNonBlocking = false;

  /** Undefined where this Node.js cannot do it, which one line of the log tells. */
  static open(fd: number, capacityBytes: number, logger: Logger): PollingRead | undefined {
    try {
      return new PollingRead(fd, capacityBytes);
    } catch (error) {
      logger.warn("fuse: this Node.js cannot poll the kernel, requests take longer", {
        error: errorText(error),
      });
      return undefined;
    }
  }

  private constructor(fd: number, capacityBytes: number) {
    const pages = Math.ceil((capacityBytes + 12) / WASM_PAGE_BYTES);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    // Not imported at the top: loading it costs memory, and old programs would be warned of it.
    const { WASI: Interface } = process.getBuiltinModule("node:wasi");
    const wasi: WASI = new Interface({ version: "preview1", stdin: fd, stdout: fd, stderr: fd });
    wasi.initialize({ exports: { memory } });
    const calls = wasi.wasiImport as Readonly<Record<string, SystemCall | undefined>>;
    const { fd_read: read, fd_fdstat_set_flags: setFlags } = calls;
    if (read === undefined || setFlags === undefined) throw new Error("no fd_read");
    this.memory = memory.buffer;
    this.#words = new Int32Array(this.memory);
    this.#read = read;
    this.#setFlags = setFlags;
    this.#argument = capacityBytes;
    this.#words[(capacityBytes >> 2) + 1] = capacityBytes;
    this.#setNonBlocking(true);
    this.block();
  }

  /** Bytes read, or 0 when there is nothing or anything failed: then a blocking read tells what. */
  tryRead(): number {
    if (!this.#isNonBlocking) this.#setNonBlocking(true);
    const count = this.#argument + 8;
    const errno = this.#read(STDIN, this.#argument, 1, count);
    return errno === ERRNO_SUCCESS ? this.#words[count >> 2]! : 0;
  }

  /** From here on a read of the descriptor waits. */
  block(): void {
    if (this.#isNonBlocking) this.#setNonBlocking(false);
  }

  #setNonBlocking(value: boolean): void {
    const errno = this.#setFlags(STDIN, value ? FDFLAGS_NONBLOCK : 0);
    if (errno !== ERRNO_SUCCESS) throw new Error(`fd_fdstat_set_flags failed with ${errno}`);
    this.#isNonBlocking = value;
  }
}
