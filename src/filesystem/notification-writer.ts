import { setTimeout as sleep } from "node:timers/promises";
import { waitsForNames, writeNotification, writeNotificationAsync } from "../fuse/notify.ts";
import type { NotificationBatch } from "./notifier.ts";

/** Longer than any call takes that does not wait for another node. */
const NAME_PAUSE_MS = 50;

/**
 * Writes STORE and INVAL for the mount thread, which must not: they wait for pages of requests
 * that only it can answer. Here the waiting happens in the thread pool, except for what waits for
 * nothing else than its next answer: a trip through the pool takes 100 µs and wakes this thread up
 * again, for each message, which was half of what a transaction cost a replica.
 */
export class NotificationWriter {
  readonly #settled: (batch: number) => void;
  readonly #failed: (error: unknown) => void;
  readonly #isServed: () => boolean;
  #queue: Promise<void> = Promise.resolve();
  /** Batches in the queue. */
  #queued = 0;
  #deviceFd = -1;

  /**
   * `settled` is told of each batch that has reached the kernel, in order. `isServed`: the mount thread
   * answers whatever this thread may wait for.
   */
  constructor(
    settled: (batch: number) => void,
    failed: (error: unknown) => void,
    isServed: () => boolean,
  ) {
    this.#settled = settled;
    this.#failed = failed;
    this.#isServed = isServed;
  }

  serve(deviceFd: number): void {
    this.#deviceFd = deviceFd;
  }

  add(batch: NotificationBatch): void {
    if (batch.isPrompt && this.#queued === 0 && this.#isServed()) {
      this.#writeNow(batch);
      return;
    }
    this.#queued++;
    this.#queue = this.#queue.then(() => this.#writeAll(batch));
  }

  #writeNow({ groups, batch }: NotificationBatch): void {
    try {
      for (const group of groups) {
        for (const message of group) writeNotification(this.#deviceFd, message);
      }
    } catch (error) {
      this.#failed(error);
      return;
    }
    this.#settled(batch);
  }

  async #writeAll({ groups, batch }: NotificationBatch): Promise<void> {
    try {
      for (const group of groups) await Promise.all(group.map((message) => this.#write(message)));
    } catch (error) {
      this.#failed(error);
      return;
    } finally {
      this.#queued--;
    }
    this.#settled(batch);
  }

  #write(message: Uint8Array): Promise<unknown> {
    const written = writeNotificationAsync(this.#deviceFd, message);
    return waitsForNames(message) ? this.#orAfterPause(written) : written;
  }

  /**
   * A change of a name waits for every call that is under way in the directory. One of those may be
   * the removal of a journal whose answer waits for the primary, and then for notifications about
   * pages: they must not queue up behind it.
   */
  async #orAfterPause(written: Promise<unknown>): Promise<void> {
    written.catch((error: unknown) => this.#failed(error));
    const pause = new AbortController();
    try {
      const options = { signal: pause.signal, ref: false };
      await Promise.race([written, sleep(NAME_PAUSE_MS, undefined, options)]);
    } finally {
      pause.abort();
    }
  }
}
