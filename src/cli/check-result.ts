import type { Position } from "../lib/position.ts";

/** What was found out about one database. */
export interface DatabaseCheck {
  readonly name: string;
  readonly position: Position;
  readonly pageCount: number;
  /** In the log; undefined when it could not be read from here. */
  readonly transactionCount: number | undefined;
  readonly isDeleted: boolean;
  /** One line each; empty for a sound database. */
  readonly problems: readonly string[];
  /** What was not looked at, and why. */
  readonly notes: readonly string[];
}
