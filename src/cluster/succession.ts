import type { Clock } from "../lib/clock.ts";
import { errorText } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { LeaseProvider } from "./lease.ts";
import type { StreamEnd } from "./replication/stream-reception.ts";

/** The end of a watch is a hint that may come without reason. */
const MIN_PAUSE_MS = 20;

export interface SuccessionOptions {
  readonly lease: LeaseProvider;
  readonly clock: Clock;
  readonly log: Logger;
  /** `lease.reconnect-delay`. */
  readonly reconnectDelayMs: number;
}

/** A primary that hangs, or is cut off from here alone, is left as soon as it has a successor. */
export async function followUntilSucceeded(
  options: SuccessionOptions,
  url: string,
  stop: AbortSignal,
  follow: (leave: AbortSignal) => Promise<StreamEnd>,
): Promise<StreamEnd> {
  return await underWatch(options, url, stop, async (leave) => {
    try {
      const end = await follow(leave);
      return leave.aborted ? { ...end, isSucceeded: true } : end;
    } catch (error) {
      if (leave.aborted && !stop.aborted) return { announced: false, isSucceeded: true };
      throw error;
    }
  });
}

/** Does something that is of no use any more, and is aborted, once there is a primary. */
export async function whileNobodyIsPrimary(
  options: SuccessionOptions,
  stop: AbortSignal,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  await underWatch(options, undefined, stop, (succeeded) =>
    work(AbortSignal.any([stop, succeeded])),
  );
}

/** Watches the lease for as long as the work goes on, whose signal says that there is another primary. */
async function underWatch<Result>(
  options: SuccessionOptions,
  url: string | undefined,
  stop: AbortSignal,
  work: (succeeded: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const succeeded = new AbortController();
  const over = new AbortController();
  const signal = AbortSignal.any([stop, over.signal]);
  const watching = primaryIsSucceeded(options, url, signal).then((isSucceeded) => {
    if (isSucceeded) succeeded.abort();
  });
  try {
    return await work(succeeded.signal);
  } finally {
    over.abort();
    await watching;
  }
}

/**
 * Resolves when the primary at a URL has the lease no more, or with undefined when somebody has it: true,
 * or false when aborted.
 */
async function primaryIsSucceeded(
  options: SuccessionOptions,
  url: string | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  const { clock, lease, log, reconnectDelayMs } = options;
  while (!signal.aborted) {
    try {
      await lease.changed(signal);
      const found = await lease.primaryInfo();
      if (!signal.aborted && found?.advertiseUrl !== url) {
        if (url !== undefined) log.info("the primary has changed, leaving its stream", { url });
        return true;
      }
    } catch (error) {
      // Without its backend a cluster goes on as it is.
      log.debug("cannot watch the lease", { error: errorText(error) });
      await clock.sleep(reconnectDelayMs, signal).catch(() => undefined);
    }
    await clock.sleep(MIN_PAUSE_MS, signal).catch(() => undefined);
  }
  return false;
}
