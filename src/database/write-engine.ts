import type { Position } from "../lib/position.ts";

/**
 * While others wait, the applications of one node go on among themselves for so long, on the primary as
 * on a node that has the right: going from node to node takes as long as several commits.
 */
export const TURN_SLICE_MS = 25;

/**
 * What moves the right to write a database between nodes, as the mount thread offers it. The right
 * belongs to the primary; it lends it to one node at a time, under an id that the borrower chose.
 */
export interface WriteEngine {
  /**
   * As the primary: lends the right once no application here writes and no other node has it, in
   * the order of the calls. Resolves to where the database stands; creates it if there is none.
   */
  lend(database: string, loan: string): Promise<LoanResult>;
  /** Ends a loan, or the wait for one. What is forwarded under it later is refused. */
  endLoan(database: string, loan: string): Promise<void>;
  /** Commits a transaction that a borrower has forwarded. */
  applyForwarded(forwarded: ForwardedTransaction): Promise<ForwardResult>;

  /** As a replica: the primary has lent it the right at this position. False: it is elsewhere. */
  grantRight(database: string, position: Position): Promise<boolean>;
  /** Gives the right back if no application is writing; otherwise `writer-left` comes later. */
  recallRight(database: string): Promise<boolean>;
  /** The primary has ended the loan. Whoever is writing will have his commit refused. */
  loseRight(database: string): Promise<void>;
  /** Applications that have waited for so long, here or on the primary, get SQLITE_BUSY. */
  denyWriters(database: string, waitedMs: number): Promise<void>;
  /** The time of a `turn-reserved` event has passed. */
  endReservation(database: string): Promise<void>;
  /** What became of the commit of a `commit` event. */
  decideCommit(database: string, commit: number, isCommitted: boolean): Promise<void>;
  /** What became of the request of a `sync` event. */
  decideSync(database: string, sync: number, isDurable: boolean): Promise<void>;

  /** Whether a database has, or has had, this position in the present history. */
  hasPosition(database: string, position: Position): Promise<boolean>;

  onWriteEvent(listener: (event: WriteEvent) => void): void;
}

export type LoanResult =
  | { readonly kind: "lent"; readonly position: Position }
  | { readonly kind: "refused"; readonly reason: string };

export interface ForwardedTransaction {
  readonly database: string;
  readonly loan: string;
  /** One LTX file, in memory or, a large one, in a file that is removed. */
  readonly ltx: Uint8Array | undefined;
  readonly path: string | undefined;
  readonly isDurable: boolean;
}

export type ForwardResult =
  | { readonly kind: "committed"; readonly position: Position }
  | { readonly kind: "refused"; readonly reason: string };

export type WriteEvent =
  /** An application waits: on a replica for the right, on the primary for its return. */
  | { readonly type: "writer-waits"; readonly database: string }
  /** A turn is kept for an application that comes back, or one waits to read because of it. */
  | { readonly type: "turn-reserved"; readonly database: string; readonly forMs: number }
  /** The application that used the right has given up its lock. */
  | WriterLeftEvent
  /** The database has moved on without us, so the right is not ours any more. */
  | { readonly type: "right-lost"; readonly database: string }
  | CommitEvent
  | SyncEvent;

export interface WriterLeftEvent {
  readonly type: "writer-left";
  readonly database: string;
  readonly hasCommitted: boolean;
  /** The right had been recalled and is back. */
  readonly isReturned: boolean;
  /** Another application here is about to use it. */
  readonly hasNext: boolean;
}

/** An application on a replica wants the primary to sync its log, and waits for `decideSync`. */
export interface SyncEvent {
  readonly type: "sync";
  readonly database: string;
  readonly sync: number;
  /** What must be on the disk. */
  readonly position: Position;
}

/** An application on a replica commits, and waits for `decideCommit`. */
export interface CommitEvent {
  readonly type: "commit";
  readonly database: string;
  readonly commit: number;
  /** Where the database stands after it. */
  readonly position: Position;
  readonly ltx: Uint8Array | undefined;
  readonly path: string | undefined;
  readonly isDurable: boolean;
}
