import type { LoanResult, WriteEvent } from "../database/write-engine.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import type { LockWaiter } from "./lock-waiters.ts";

/** How an application's request for SQLite's write lock is answered. */
export type TurnAnswer = "granted" | "busy";

/** A request for SQLite's write lock whose answer waits. */
export interface TurnRequest extends LockWaiter {
  readonly node: FileNode;
  readonly thread: number;
  /** Other threads of the process use the database, and cannot while this request waits. */
  readonly hasSiblings: boolean;
}

export interface WriteTurnsHost {
  isPrimary(): boolean;
  /** Nobody may begin to write now: the lease is about to change hands. */
  isHeldBack(): boolean;
  /** Answers a deferred request. */
  answer(request: TurnRequest, answer: TurnAnswer): void;
  /** The daemon has given up a lock on a file, for which readers may wait. */
  unlocked(node: FileNode): void;
  tell(event: WriteEvent): void;
}

/** A request for the halt lock: to keep the right to write here, whoever uses it. */
export interface HaltTurn {
  readonly isHalt: true;
  /** By the monotonic clock of this process. */
  readonly sinceMs: number;
  readonly answer: (isGranted: boolean) => void;
}

/** A request for a read lock by an application that is about to write; it waits for its turn. */
export interface Knock extends TurnRequest {
  readonly isKnock: true;
}

/** Another node that asks for the right to write. */
export interface Borrower {
  readonly loan: string;
  /** By the monotonic clock of this process. */
  readonly sinceMs: number;
  readonly lent: (result: LoanResult) => void;
}

/** Who waits for his turn to write, in the order in which they came. */
export type Turn = TurnRequest | Borrower | HaltTurn | Knock;

export function isRequest(turn: Turn): turn is TurnRequest {
  return "uniqueLo" in turn && !isKnock(turn);
}
export function isBorrower(turn: Turn): turn is Borrower {
  return "loan" in turn;
}
export function isHalt(turn: Turn): turn is HaltTurn {
  return "isHalt" in turn;
}
export function isKnock(turn: Turn): turn is Knock {
  return "isKnock" in turn;
}

/** Whether he must not wait for long, so that somebody has to look after him. */
export function isWatched(turn: Turn): boolean {
  return isKnock(turn) || ("hasSiblings" in turn && turn.hasSiblings);
}

export function warnOfLostHalt({ db }: DatabaseEntry): void {
  const warning = "halt lock lost, others may write until it is borrowed again";
  db.host.logger.warn(warning, { db: db.name });
}
