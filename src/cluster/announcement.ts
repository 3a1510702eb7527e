import type { Clock } from "../lib/clock.ts";
import { errorText } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { LeaseProvider } from "./lease.ts";

/** Candidates announce themselves this often; their backends forget them after 20 s. */
const ANNOUNCE_INTERVAL_MS = 8_000;

export interface AnnouncementOptions {
  readonly lease: LeaseProvider;
  readonly nodeId: string;
  readonly isCandidate: boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Lets other candidates find this node. They can do without, so a failure is only told. */
export async function announceForever(
  options: AnnouncementOptions,
  signal: AbortSignal,
): Promise<void> {
  const { clock, isCandidate, lease, log, nodeId } = options;
  if (!isCandidate || lease.kind === "static") return;
  const { hostname, advertiseUrl } = lease;
  let isFailing = false;
  while (!signal.aborted) {
    try {
      await lease.announce({ nodeId, hostname, advertiseUrl });
      isFailing = false;
    } catch (error) {
      if (!isFailing) log.warn("cannot announce this candidate", { error: errorText(error) });
      isFailing = true;
    }
    await clock.sleep(ANNOUNCE_INTERVAL_MS, signal).catch(() => undefined);
  }
}
