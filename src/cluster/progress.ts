import type { DatabaseState } from "../database/engine.ts";

/**
 * How far a node is: the number of transactions in all its databases together. Of two nodes that
 * followed the same primary, the one with more has what the other lacks; otherwise the number says
 * nothing, which is why terms are compared first.
 */
export function progressOf(databases: ReadonlyMap<string, DatabaseState>): number {
  let transactions = 0;
  for (const { status, position } of databases.values()) {
    // What is quarantined is of no use to a primary.
    if (status !== "quarantined") transactions += position.txid;
  }
  return transactions;
}

/** What a candidate tells others of itself before an election. */
export interface CandidateState {
  readonly nodeId: string;
  readonly isCandidate: boolean;
  readonly clusterId: string | undefined;
  /** See TermStore; undefined from a version that knows no terms. */
  readonly term: number | undefined;
  readonly progress: number;
}
