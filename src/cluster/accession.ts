import { LitefsError } from "../lib/errors.ts";
import type { ClusterIdStore } from "./cluster-id.ts";
import type { Lease, LeaseProvider } from "./lease.ts";
import type { TermStore } from "./term-store.ts";

export interface AccessionOptions {
  readonly lease: LeaseProvider;
  readonly clusterId: ClusterIdStore;
  readonly terms: TermStore;
}

/**
 * What must be on record before a lease makes this node the primary: that it belongs to the cluster,
 * and that a new term has begun, unless it goes on with the lease of the last one. Rejects when that
 * cannot be had, and then the lease is of no use.
 */
export async function accede(
  options: AccessionOptions,
  lease: Lease,
  isContinued: boolean,
): Promise<void> {
  const { lease: provider, terms } = options;
  await joinCluster(options);
  // With a static lease there are no elections, so no term is ever compared.
  if (provider.kind === "static" || isContinued) return;
  // Tokens begin anew when a backend has lost its data; terms must grow all the same.
  terms.advanceTo(Math.max(lease.token, terms.current + 1));
}

/** Nobody may be the primary of a cluster whose id is another one. */
async function joinCluster({ lease: provider, clusterId }: AccessionOptions): Promise<void> {
  const shared = await provider.clusterId();
  if (shared !== undefined && clusterId.current === undefined) clusterId.adopt(shared);
  const own = clusterId.ensure();
  if (shared === own) return;
  const claimed = await provider.claimClusterId(own);
  if (claimed === own) return;
  throw new LitefsError(
    "CLUSTER_ID_MISMATCH",
    `the lease belongs to cluster ${claimed}, this node to ${own}`,
  );
}
