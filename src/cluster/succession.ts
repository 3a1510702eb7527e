import type { Clock } from "../lib/clock.ts";
import { errorText } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { LeaseProvider } from "./lease.ts";

/** The end of a watch is a hint that may come without reason. */
const MIN_PAUSE_MS = 20;

export interface SuccessionOptions {
  readonly lease: LeaseProvider;
  readonly clock: Clock;
  readonly log: Logger;
  /** `lease.reconnect-delay`. */
  readonly reconnectDelayMs: number;
}

/** Resolves when the primary at a URL has the lease no more: true, or false when aborted. */
export async function primaryIsSucceeded(
  options: SuccessionOptions,
  url: string,
  signal: AbortSignal,
): Promise<boolean> {
  const { clock, lease, log, reconnectDelayMs } = options;
  while (!signal.aborted) {
    try {
      await lease.changed(signal);
      const found = await lease.primaryInfo();
      if (!signal.aborted && found?.advertiseUrl !== url) {
        log.info("the primary has changed, leaving its stream", { url });
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
