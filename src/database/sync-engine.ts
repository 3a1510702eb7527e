import type { Position } from "../lib/position.ts";
import type { SyncDuty } from "./replica-waits.ts";

/** What commits that wait for replicas need of the mount thread, where they wait. */
export interface SyncEngine {
  /** Replicas that tell what they have on their disks. Takes effect at once. */
  setReplicaCount(count: number): void;
  /** Told of every commit that waits, after the engine's `databases` show it. */
  onCommitWaits(listener: (database: string, position: Position) => void): void;
  /**
   * Ends the wait of all commits of a database up to a transaction, and says what the next ones are
   * to do: "wait" unless something is wrong.
   */
  settleWaits(database: string, settlement: WaitSettlement): Promise<void>;
  /** Brings what a database has onto the disk; undefined when there is nothing of it to speak of. */
  makeDurable(database: string): Promise<Position | undefined>;
}

export interface WaitSettlement {
  readonly throughTxid: number;
  /** Otherwise whoever waits is told that nobody knows. */
  readonly isAcknowledged: boolean;
  readonly next: SyncDuty;
}
