import { electorateOf, replicasOf } from "../cluster/sync/quorum.ts";
import type { Config } from "../config/config.ts";
import { isSynchronous } from "../database/sync-policy.ts";
import type { SyncPolicy } from "../database/sync-policy.ts";

/** Undefined when no commit ever waits for replicas. */
export function syncPolicyOf({ sync }: Pick<Config, "sync">): SyncPolicy | undefined {
  const { replicas, databases, nodes, onTimeout } = sync;
  const policy: SyncPolicy = {
    needed: replicasOf(replicas, nodes),
    databases: new Map(
      Object.entries(databases).map(([name, rule]) => [name, replicasOf(rule, nodes)]),
    ),
    isStrict: onTimeout === "refuse",
  };
  return isSynchronous(policy) ? policy : undefined;
}

/**
 * Of how many candidates one must know how far they are before it takes the lease, so that nothing
 * acknowledged is lost; 0 where that is not promised.
 */
export function electorateFor(config: Pick<Config, "sync">): number {
  const { nodes } = config.sync;
  const policy = syncPolicyOf(config);
  if (policy === undefined || !policy.isStrict || nodes === 0) return 0;
  const counts = [policy.needed, ...policy.databases.values()].filter((needed) => needed > 0);
  return electorateOf(Math.min(...counts), nodes);
}
