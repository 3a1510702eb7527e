import type { DatabaseState } from "../database/engine.ts";

/** How far a node is, by database: its TXID. What is quarantined is of no use to a primary. */
export type Progress = ReadonlyMap<string, number>;

/** What a candidate tells others of itself before an election. */
export interface CandidateState {
  readonly nodeId: string;
  readonly isCandidate: boolean;
  readonly clusterId: string | undefined;
  /** See TermStore; undefined from a version that knows no terms. */
  readonly term: number | undefined;
  readonly progress: Progress;
  /** It could not serve these. */
  readonly quarantined: ReadonlySet<string>;
}

/** What counts of a database, in this process or as another node tells it. */
export type Standing = Pick<DatabaseState, "name" | "status" | "position">;

export function progressOf(databases: Iterable<Standing>): Progress {
  const progress = new Map<string, number>();
  for (const { name, status, position } of databases) {
    if (status !== "quarantined") progress.set(name, position.txid);
  }
  return progress;
}

export function quarantinedOf(databases: Iterable<Standing>): Set<string> {
  const quarantined = new Set<string>();
  for (const { name, status } of databases) {
    if (status === "quarantined") quarantined.add(name);
  }
  return quarantined;
}

/** The number of transactions in all databases together, for people to compare nodes by. */
export function transactionCount(progress: Progress): number {
  let count = 0;
  for (const txid of progress.values()) count += txid;
  return count;
}

/**
 * How many transactions of each database somebody else has and this one lacks. Of two nodes that followed
 * the same primary the one with the higher TXID has what the other lacks; otherwise the numbers say
 * nothing, which is why terms are compared first.
 */
export function missingFrom(own: Progress, other: Progress): Map<string, number> {
  const missing = new Map<string, number>();
  for (const [name, txid] of other) {
    const count = txid - (own.get(name) ?? 0);
    if (count > 0) missing.set(name, count);
  }
  return missing;
}
