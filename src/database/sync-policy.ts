/** For how many replicas a commit waits, until they have the transaction on their disks. */
export interface SyncPolicy {
  /** Of every database that is not named. */
  readonly needed: number;
  readonly databases: ReadonlyMap<string, number>;
  /** Without enough replicas nobody writes; otherwise commits go on without them. */
  readonly isStrict: boolean;
}

/** 0: its commits wait for nobody. */
export function replicasNeeded(policy: SyncPolicy, database: string): number {
  return policy.databases.get(database) ?? policy.needed;
}

/** Whether commits of any database wait. */
export function isSynchronous(policy: SyncPolicy): boolean {
  return policy.needed > 0 || [...policy.databases.values()].some((needed) => needed > 0);
}
