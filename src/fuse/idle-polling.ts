import { closeSync, openSync, writeSync } from "node:fs";
import * as os from "node:os";
import { errorText } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { allowsSpinning } from "./spare-processors.ts";

/**
 * The kernel's interface for who needs processors that wake up quickly (PM QoS,
 * Documentation/power/pm_qos_interface.rst): a signed 32-bit number of microseconds, native byte order,
 * in force while the descriptor is open.
 */
const DEVICE = "/dev/cpu_dma_latency";
const AT_ONCE = Int32Array.of(0);
/** PM_QOS_CPU_LATENCY_DEFAULT_VALUE: as if nobody had asked. */
const NO_MATTER = Int32Array.of(2_000_000_000);

/** Requests, and within how long they must have come: 1,000 a second. */
const BUSY_REQUESTS = 128;
const BUSY_MS = 128;

/**
 * Keeps idle processors from being halted while requests follow each other.
 *
 * To be woken on a halted processor takes tens of microseconds on a virtual machine, and of each
 * request the application waits that long for its answer, and the mount thread for the next. An idle processor that
 * polls instead starts at once. That costs nobody anything: as soon as somebody can use the processor he has it.
 *
 * The thread that serves the mount begins it; another thread ends it, since the former sleeps in
 * read(2) when there is nothing to do. The word says which of the two was last: 1, asked for.
 */
export class IdlePolling {
  readonly fd: number;
  readonly #words: Int32Array;
  readonly #at: number;
  #count = 0;
  #sinceMs = -Infinity;
  #servedBefore = 0;

  /** Throws what the system said where the device cannot be opened. */
  static open(words: Int32Array, at: number, device: string = DEVICE): IdlePolling {
    const fd = openSync(device, "w");
    const polling = new IdlePolling(fd, words, at);
    // Opened, it asks for nothing yet; old kernels take it for a wish of zero.
    writeSync(fd, NO_MATTER);
    return polling;
  }

  constructor(fd: number, words: Int32Array, at: number) {
    this.fd = fd;
    this.#words = words;
    this.#at = at;
  }

  /** Called for each request, by the thread that serves them. */
  requestCame(nowMs: number): void {
    if (++this.#count < BUSY_REQUESTS) return;
    const isBusy = nowMs - this.#sinceMs <= BUSY_MS;
    this.#count = 0;
    this.#sinceMs = nowMs;
    if (!isBusy || Atomics.exchange(this.#words, this.#at, 1) === 1) return;
    writeSync(this.fd, AT_ONCE);
  }

  /**
   * Ends it where there was little to do since the last call. `served` is the number of all requests so
   * far, `elapsedMs` how long ago the last call was.
   */
  rest(served: number, elapsedMs: number): void {
    const count = served - this.#servedBefore;
    this.#servedBefore = served;
    // Half of what begins it, so that it does not come and go.
    if (count * BUSY_MS * 2 >= BUSY_REQUESTS * elapsedMs) return;
    if (Atomics.exchange(this.#words, this.#at, 0) === 1) writeSync(this.fd, NO_MATTER);
  }

  get isOn(): boolean {
    return Atomics.load(this.#words, this.#at) === 1;
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** Beyond this a machine is more than the mount: all its processors would poll for two threads. */
const MAX_PROCESSORS = 8;

/** `fuse.idle-polling`; auto: on a small machine, all of which may be used. */
export type IdlePollingMode = "auto" | "on" | "off";

/** Undefined where it is not wanted, or cannot be had, which whoever wants it is told. */
export function openIdlePolling(
  mode: IdlePollingMode,
  words: Int32Array,
  at: number,
  logger: Logger,
): IdlePolling | undefined {
  const suits = allowsSpinning() && os.cpus().length <= MAX_PROCESSORS;
  if (mode === "off" || (mode === "auto" && !suits)) return undefined;
  try {
    return IdlePolling.open(words, at);
  } catch (error) {
    const text = "cannot keep idle processors from being halted, requests take longer";
    logger[mode === "on" ? "warn" : "debug"](text, { error: errorText(error) });
    return undefined;
  }
}
