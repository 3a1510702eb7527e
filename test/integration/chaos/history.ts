/** What one client did, and what it was told. Times are of CLOCK_MONOTONIC, the same everywhere. */
export interface Operation {
  /** Applications that ever ran; each has one connection to one database on one node. */
  readonly client: number;
  /** Counts up within a client, reads included. */
  readonly number: number;
  readonly node: string;
  readonly database: string;
  readonly kind: "insert" | "transfer" | "rollback" | "read";
  /** Rows that it writes, in one transaction. */
  readonly rows: number;
  readonly invokedUs: number;
  readonly endedUs: number | undefined;
  readonly outcome: Outcome;
  /** What a read that succeeded has seen. */
  readonly snapshot: Snapshot | undefined;
  readonly error: string | undefined;
}

/**
 * `refused` promises that nothing was written: SQLITE_BUSY, or a rollback on purpose. Everything
 * between that and success is `unknown`, also what a client was doing when it was killed.
 */
export type Outcome = "ok" | "refused" | "unknown";

export interface Snapshot {
  readonly accounts: number;
  readonly balance: number;
  /** The largest row ID; rows are never removed, so there are as many. */
  readonly rows: number;
  readonly progress: ReadonlyMap<number, Progress>;
}

/** How far one client had come. */
export interface Progress {
  /** Of its last operation that wrote. */
  readonly number: number;
  readonly rows: number;
}

/** A database when everything is over; all nodes have the same bytes. */
export interface FinalState {
  readonly database: string;
  readonly rows: readonly FinalRow[];
  readonly accounts: ReadonlyMap<number, number>;
  /** By account: the sum of what the rows say was moved to and from it. */
  readonly moved: ReadonlyMap<number, number>;
}

export interface FinalRow {
  readonly client: number;
  readonly number: number;
  readonly part: number;
}

/** What a node that was deposed, or followed one, has kept aside. */
export interface DivergedHistory {
  readonly node: string;
  readonly database: string;
  readonly name: string;
  /** The last transaction that it shares with the history that won; undefined when not known. */
  readonly forkTxid: number | undefined;
  /** Rows that stand on its pages, as `rowKey`. */
  readonly rows: ReadonlySet<string>;
}

/** A time in which one and the same node certainly held the lease. */
export interface Term {
  readonly holder: string;
  readonly fromUs: number;
  readonly toUs: number;
}

export interface Evidence {
  readonly operations: readonly Operation[];
  readonly finals: readonly FinalState[];
  readonly histories: readonly DivergedHistory[];
  /** By database: the transaction in which a row, as `rowKey`, came, where that is known. */
  readonly txids: ReadonlyMap<string, ReadonlyMap<string, number>>;
  /** How often a node became the primary. */
  readonly elections: number;
  readonly terms: readonly Term[];
}

/** The text of a row from which its page tells whose it is. */
export function rowKey(client: number, number: number, part: number): string {
  return `<${client}.${number}.${part}>`;
}

export const ROW_KEYS: RegExp = /<\d+\.\d+\.\d+>/g;
