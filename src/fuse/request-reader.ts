import { readSync } from "node:fs";
import { errorCode } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { IdlePolling } from "./idle-polling.ts";
import { PollingRead } from "./polling-read.ts";
import { RequestBuffer } from "./request.ts";
import { SpareProcessors } from "./spare-processors.ts";
import { SpinWindow } from "./spin-window.ts";

export interface RequestReaderOptions {
  readonly fd: number;
  readonly maxWriteBytes: number;
  readonly logger: Logger;
  /** The longest to look for a request before going to sleep; 0: sleep at once. */
  readonly spinMs: number;
  readonly processors?: Pick<SpareProcessors, "isSpare">;
  /** Told of each request. */
  readonly idlePolling?: Pick<IdlePolling, "requestCame"> | undefined;
}

/**
 * Takes requests from the kernel, one after the other. To be woken for each costs more than to
 * handle it, on a virtual machine many times more, so for a moment after a request this one looks
 * for the next without going to sleep.
 */
export class RequestReader {
  readonly request: RequestBuffer;
  readonly #fd: number;
  readonly #poll: PollingRead | undefined;
  readonly #window: SpinWindow;
  readonly #processors: Pick<SpareProcessors, "isSpare">;
  readonly #idlePolling: Pick<IdlePolling, "requestCame"> | undefined;

  constructor(options: RequestReaderOptions) {
    const { fd, maxWriteBytes, logger, spinMs } = options;
    this.#fd = fd;
    this.#processors = options.processors ?? new SpareProcessors();
    this.#idlePolling = options.idlePolling;
    this.#window = new SpinWindow(spinMs);
    const capacity = RequestBuffer.capacityFor(maxWriteBytes);
    this.#poll = spinMs > 0 ? PollingRead.open(fd, capacity, logger) : undefined;
    this.request = new RequestBuffer(maxWriteBytes, this.#poll?.memory);
  }

  /** Waits for the next request and returns its length, or 0 when the mount has ended. */
  receive(): number {
    const poll = this.#poll;
    const startMs = performance.now();
    this.#idlePolling?.requestCame(startMs);
    if (poll === undefined) return this.#sleep();
    const windowMs = this.#window.ms;
    if (windowMs > 0 && this.#processors.isSpare(startMs)) {
      const endMs = startMs + windowMs;
      do {
        const length = poll.tryRead();
        if (length > 0) return length;
      } while (performance.now() < endMs);
    }
    poll.block();
    const length = this.#sleep();
    this.#window.missed(performance.now() - startMs);
    return length;
  }

  #sleep(): number {
    const { bytes } = this.request;
    for (;;) {
      try {
        return readSync(this.#fd, bytes, 0, bytes.length, null);
      } catch (error) {
        const code = errorCode(error);
        if (code === "ENODEV" || code === "ECONNABORTED") return 0;
        // ENOENT: the request was interrupted while it was being copied to us.
        if (code !== "ENOENT" && code !== "EINTR") throw error;
      }
    }
  }
}
