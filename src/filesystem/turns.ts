import type { LoanResult } from "../database/write-engine.ts";
import type { Position } from "../lib/position.ts";
import type { SubmittedCommits } from "./submitted-commits.ts";
import type { HaltTurn } from "./write-turn-kinds.ts";

/**
 * Whose turn it is to write one database, among the applications here and the nodes of the cluster.
 * There are two of it, because applications make themselves known in different ways: WriteTurns is
 * asked for SQLite's write lock, KernelTurns hears of attempts to take it.
 */
export interface Turns {
  /** Decides about commits while the right to write is here. */
  readonly submitted: SubmittedCommits;
  /** On the primary: the node that has the right. */
  readonly loan: string | undefined;
  readonly hasRight: boolean;
  /** No application may write now. */
  readonly isGuarded: boolean;
  /** It wants to be called now and then, see `serve`. */
  readonly isWaiting: boolean;
  /** Some lock was released, or the database has moved: whose turn is it now? */
  serve(): void;
  /** Some lock was released: perhaps that of the application that was writing. */
  noticeLeaving(): void;
  /** The daemon waits for the readers of the database file. */
  makeWay(): void;
  /** Whoever the turn was kept for has it now, or has not come back. */
  endReservation(): void;
  lend(loan: string, lent: (result: LoanResult) => void): void;
  endLoan(loan: string): void;
  /** False when the database here is not a past of the primary's. */
  grant(position: Position): boolean;
  /** True when the right is given back; otherwise an application is writing, who will leave. */
  recall(): boolean;
  lose(): void;
  /** A process asks for the halt lock. It is answered at once or later. */
  halt(turn: HaltTurn): void;
  endHalt(): void;
  /** Nobody waits for the answer to this request any more. */
  cancel(turn: HaltTurn): void;
  /** Applications that have waited for so long are told SQLITE_BUSY. */
  deny(waitedMs: number): void;
  /** This node has become the primary, or has stopped being it. */
  roleChanged(): void;
  decide(commit: number, isCommitted: boolean): void;
}
