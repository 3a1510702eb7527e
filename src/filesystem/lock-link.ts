import * as fs from "node:fs";
import { receiveMessageOnPort } from "node:worker_threads";
import { SystemCalls } from "../fuse/system-calls.ts";
import { errorCode } from "../lib/errors.ts";
import { LOCK_WORDS } from "./lock-messages.ts";
import type { LockLinkData, LockRequest, LockResult } from "./lock-messages.ts";

const KICK = Uint8Array.of(1);

/** Wakes the lock thread. */
export function kick(fd: number): void {
  try {
    fs.writeSync(fd, KICK);
  } catch (error) {
    // So many wake-ups are on their way already that there is no room for another one.
    if (errorCode(error) !== "EAGAIN") throw error;
  }
}

/** The lock thread, as the mount thread uses it. */
export class LockLink {
  readonly calls: SystemCalls;
  /** As the kernel names it in requests. */
  readonly threadId: number;
  readonly #data: LockLinkData;
  readonly #control: Int32Array;

  constructor(data: LockLinkData) {
    this.#data = data;
    this.#control = new Int32Array(data.control);
    this.threadId = data.threadId;
    this.calls = new SystemCalls();
  }

  /** Whether files of the mount can be opened. */
  get isServing(): boolean {
    return Atomics.load(this.#control, LOCK_WORDS.isServing) === 1;
  }

  send(request: LockRequest): void {
    this.#data.port.postMessage(request);
    this.#kick();
  }

  /** Wakes this thread every so many milliseconds from now on; 0: not any more. */
  pollEvery(ms: number): void {
    const before = Atomics.exchange(this.#control, LOCK_WORDS.pollMs, ms);
    if (ms > 0 && (before === 0 || before > ms)) this.#kick();
  }

  drain(handle: (result: LockResult) => void): void {
    for (;;) {
      const received = receiveMessageOnPort(this.#data.port);
      if (received === undefined) return;
      handle(received.message as LockResult);
    }
  }

  #kick(): void {
    kick(this.#data.kickFd);
  }
}
