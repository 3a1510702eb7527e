/** As `sync.replicas` says it: so many replicas, or a part of the cluster. */
export type SyncRule = number | "majority" | "all";

/**
 * How many replicas a rule asks for in a cluster of so many nodes. The primary is one of a majority,
 * and of all.
 */
export function replicasOf(rule: SyncRule, nodeCount: number): number {
  if (rule === "majority") return Math.floor(nodeCount / 2);
  if (rule === "all") return Math.max(0, nodeCount - 1);
  return rule;
}

/**
 * Of how many nodes a candidate must know how far they are, itself included, so that one of them has
 * every transaction that so many replicas have acknowledged. The primary of before may be gone.
 */
export function electorateOf(needed: number, nodeCount: number): number {
  return nodeCount - needed;
}
