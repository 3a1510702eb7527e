import { assert } from "../lib/assert.ts";
import { errorText } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import {
  FUSE_BATCH_FORGET,
  FUSE_DESTROY,
  FUSE_FORGET,
  FUSE_INIT,
  FUSE_INTERRUPT,
  FUSE_NOTIFY_REPLY,
} from "./constants.ts";
import { dispatchRequest } from "./dispatch.ts";
import { EIO, ENOSYS, EPROTO, systemErrno } from "./errno.ts";
import type { FuseHandler } from "./handler.ts";
import type { IdlePolling } from "./idle-polling.ts";
import { type InitResult, FuseProtocolError, negotiate } from "./init.ts";
import { FuseReplies } from "./replies.ts";
import { IN_HEADER_BYTES, InvalidNameError } from "./request.ts";
import type { RequestBuffer } from "./request.ts";
import { RequestCounts } from "./request-counts.ts";
import { RequestReader } from "./request-reader.ts";

export interface FuseSessionOptions {
  /** /dev/fuse, as mountFuse opened it. Stays the caller's. */
  readonly fd: number;
  readonly handler: FuseHandler;
  readonly logger: Logger;
  /** Largest READ and WRITE, a multiple of 4096, at most 1 MiB (the default). */
  readonly maxWrite?: number;
  /** Every fcntl lock comes to the handler (default), or the kernel keeps them all. */
  readonly posixLocks?: boolean;
  /** How long to look for the next request before going to sleep; 0, at once, by default. */
  readonly spinMs?: number;
  readonly idlePolling?: IdlePolling | undefined;
  /** Where to count the requests served. */
  readonly requestCounts?: RequestCounts;
}

export type FuseSessionEnd = "unmounted" | "stopped";

/** 256 pages, the most that a kernel gives without tuning. */
const MAX_WRITE_BYTES = 1 << 20;

/**
 * Serves one mount, synchronously, on a thread that has nothing else to do: read a request, let
 * the handler answer it, read the next.
 */
export class FuseSession extends FuseReplies {
  readonly #handler: FuseHandler;
  readonly #logger: Logger;
  readonly #maxWrite: number;
  readonly #posixLocks: boolean;
  readonly #reader: RequestReader;
  readonly #requestCounts: RequestCounts;
  #initResult: InitResult | undefined;
  #stopRequested = false;

  constructor(options: FuseSessionOptions) {
    const maxWrite = options.maxWrite ?? MAX_WRITE_BYTES;
    assert(
      maxWrite >= 4096 && maxWrite <= MAX_WRITE_BYTES && maxWrite % 4096 === 0,
      "maxWrite must be a multiple of 4096 of at most 1 MiB",
    );
    super(options.fd, maxWrite);
    this.#handler = options.handler;
    this.#logger = options.logger;
    this.#maxWrite = maxWrite;
    this.#posixLocks = options.posixLocks ?? true;
    this.#reader = new RequestReader({
      fd: options.fd,
      maxWriteBytes: maxWrite,
      logger: options.logger,
      spinMs: options.spinMs ?? 0,
      idlePolling: options.idlePolling,
    });
    this.#requestCounts = options.requestCounts ?? new RequestCounts();
  }

  /** What was agreed on with the kernel; undefined before the first request. */
  get initResult(): InitResult | undefined {
    return this.#initResult;
  }

  /** Blocks until the mount has ended or a handler has called stop(). */
  run(): FuseSessionEnd {
    const reader = this.#reader;
    const { request } = reader;
    while (!this.#stopRequested) {
      const length = reader.receive();
      if (length === 0) return "unmounted";
      request.decodeHeader(length);
      this.#requestCounts.add(request.opcode);
      this.#serve(request);
    }
    return "stopped";
  }

  /** Called by the handler (from `wake`, say): run() returns after the current request. */
  stop(): void {
    this.#stopRequested = true;
  }

  /**
   * For a handler that has failed: blocks until the mount has ended, or something comes when `isOver`,
   * and refuses everything meanwhile. Whoever waits for an answer may hold a page that the thread which
   * is to abort the mount waits for.
   */
  refuseAll(isOver: () => boolean): void {
    const reader = this.#reader;
    const { request } = reader;
    for (let length = reader.receive(); length > 0; length = reader.receive()) {
      request.decodeHeader(length);
      const { uniqueLo, uniqueHi, opcode } = request;
      if (hasReply(opcode)) this.replyError(uniqueLo, uniqueHi, EIO);
      if (isOver()) return;
    }
  }

  #serve(request: RequestBuffer): void {
    const { uniqueLo, uniqueHi, opcode } = request;
    try {
      if (opcode === FUSE_INIT) this.#init(request);
      else if (opcode === FUSE_DESTROY) this.replyEmpty(uniqueLo, uniqueHi);
      else if (!dispatchRequest(request, this.#handler)) {
        this.replyError(uniqueLo, uniqueHi, ENOSYS);
      }
    } catch (error) {
      // If the handler has answered before it failed, this second answer is refused with ENOENT.
      const errno = systemErrno(error);
      if (hasReply(opcode)) this.replyError(uniqueLo, uniqueHi, errno ?? replyErrno(error));
      if (errno === undefined) throw error;
      // Of that the application hears, and nobody else.
      if (error instanceof InvalidNameError) return;
      this.#logger.error("fuse: request failed", { opcode, error: errorText(error) });
    }
  }

  /** fuse_init_in: 0 major, 4 minor, 8 max_readahead, 12 flags, 16 flags2 (none is for us). */
  #init(request: RequestBuffer): void {
    const body = IN_HEADER_BYTES;
    request.requireLength(body + 16);
    const result = negotiate(
      {
        major: request.int32(body),
        minor: request.int32(body + 4),
        maxReadaheadBytes: request.int32(body + 8),
        flags: request.int32(body + 12),
      },
      {
        maxWriteBytes: this.#maxWrite,
        posixLocks: this.#posixLocks,
        readdirplus: this.#handler.readdirplus !== undefined,
      },
    );
    this.#initResult = result;
    // Before the answer, because the first request follows it.
    this.#handler.init?.(this, result);
    this.replyInit(request.uniqueLo, request.uniqueHi, result);
    this.#logger.debug("fuse: connected", {
      protocol: `${result.major}.${result.minor}`,
      flags: result.flags,
    });
  }
}

function hasReply(opcode: number): boolean {
  return (
    opcode !== FUSE_FORGET &&
    opcode !== FUSE_BATCH_FORGET &&
    opcode !== FUSE_NOTIFY_REPLY &&
    opcode !== FUSE_INTERRUPT
  );
}

function replyErrno(error: unknown): number {
  return error instanceof FuseProtocolError ? EPROTO : EIO;
}
