import type { Position } from "../lib/position.ts";

/**
 * What the rest of a node may ask of the mount thread, which owns every database. All of it is
 * asynchronous: the mount thread answers between two kernel requests.
 */
export interface Engine {
  /** A live view, updated as commits and applied transactions are reported. */
  readonly databases: ReadonlyMap<string, DatabaseState>;

  /** Called after any database has moved, been created or been quarantined. Calls coalesce. */
  onChange(listener: (databases: ReadonlySet<string>) => void): () => void;

  /**
   * The log of one database, for reading. `after` is the position the reader has; the first
   * transaction returned continues it.
   */
  readLog(database: string, after: Position, maxBytes: number): Promise<LogRead>;

  /**
   * A consistent copy at the position of this call; writers go on meanwhile. When this resolves,
   * `databases` and `readLog` are at that position at least.
   */
  openSnapshot(database: string): Promise<SnapshotReader>;

  /**
   * Applies transactions of one database, in order, on a replica. Each `ltx` is one complete,
   * uncompressed or compressed LTX file. Resolves when readers of the mount can see them, and with
   * `isDurable` when they are on the disk as well.
   */
  applyTransactions(
    database: string,
    ltx: readonly Uint8Array[],
    isDurable?: boolean,
  ): Promise<ApplyResult>;

  /**
   * Applies the LTX in a file, which the engine consumes: a snapshot replaces the database, a
   * transaction too large for memory continues it.
   */
  applyLtxFile(database: string, path: string, isDurable?: boolean): Promise<ApplyResult>;
  /**
   * Ends the wait for applications of all that is being applied, which rejects with APPLY_ABANDONED. What
   * has begun to be written is finished.
   */
  abandonReceived(): Promise<void>;

  /** Where an LTX that is being received may be stored (same file system as the database). */
  snapshotPath(database: string): string;

  /** Recomputes the checksum of a database from its pages (all of them: slow on large ones). */
  verify(database: string): Promise<VerifyResult>;

  setRole(role: NodeRole): Promise<void>;

  /**
   * Commits are refused from this moment of the machine's monotonic clock on, whatever the role.
   * Takes effect at once, so a renewed lease counts before this returns.
   */
  setCommitDeadline(deadlineMonotonicMs: number): void;

  /**
   * Holds back whoever wants to begin to write, and resolves once nobody writes any more;
   * `databases` then shows where everything stands, for as long as the pause lasts. Nothing is
   * refused: who is held back waits, until `resumeWrites`.
   */
  pauseWrites(): Promise<void>;
  resumeWrites(): Promise<void>;
}

export type DatabaseStatus = "ok" | "deleted" | "quarantined";

export interface DatabaseState {
  readonly name: string;
  readonly status: DatabaseStatus;
  /** Why it is quarantined, in one line; empty otherwise. */
  readonly reason: string;
  /** Quarantined only because the disk has failed: it is opened again every few seconds. */
  readonly isDiskFailure: boolean;
  readonly position: Position;
  /** Bytes per page; 0 while unknown. */
  readonly pageSize: number;
  /** Size in pages at `position`. */
  readonly pageCount: number;
  /** Wall clock of the last transaction at its origin, ms since the epoch. */
  readonly timestampMs: number;
  readonly counters: DatabaseCounters;
}

export interface DatabaseCounters {
  readonly databaseWrites: number;
  readonly journalWrites: number;
  readonly walWrites: number;
  readonly shmWrites: number;
  readonly commits: number;
  readonly ltxCount: number;
  readonly ltxBytes: number;
  readonly ltxReaped: number;
  /** How often it was quarantined, and how often it served again, since the start. */
  readonly quarantines: number;
  readonly heals: number;
  /** Histories of this node that a snapshot has replaced, still kept in `diverged/`. */
  readonly divergedHistories: number;
}

/** An LTX file that is read in pieces, because it is large. */
export interface LargeLtx {
  readonly lengthBytes: number;
  /** Fewer bytes than asked for only at the end. */
  read(offsetBytes: number, lengthBytes: number): Uint8Array;
}

export type LogRead =
  /** `ltx` holds one uncompressed LTX file per transaction; empty when `after` is the end. */
  | { readonly kind: "transactions"; readonly ltx: readonly Uint8Array[]; readonly end: Position }
  /** The next transaction is a large one: it alone, to be read in pieces. */
  | { readonly kind: "large"; readonly ltx: LargeLtx; readonly end: Position }
  /** The log cannot continue `after` (reaped, diverged or ahead): a snapshot is needed. */
  | { readonly kind: "unavailable" };

export interface SnapshotReader {
  readonly position: Position;
  readonly pageSize: number;
  readonly pageCount: number;
  readonly timestampMs: number;
  /** Pages in ascending order without the lock page; undefined at the end. */
  next(): Promise<SnapshotPages | undefined>;
  close(): Promise<void>;
}

export interface SnapshotPages {
  readonly pgnos: Uint32Array;
  /** `pgnos.length` pages back to back. */
  readonly data: Uint8Array;
}

export type ApplyResult =
  | { readonly kind: "applied"; readonly position: Position }
  /** It does not continue the local position: reconnect, and the primary will send a snapshot. */
  | { readonly kind: "mismatch"; readonly position: Position; readonly reason: string }
  /** This database cannot be served any more; the others can. */
  | { readonly kind: "quarantined"; readonly reason: string };

export type VerifyResult =
  | { readonly kind: "ok"; readonly position: Position }
  | { readonly kind: "mismatch"; readonly position: Position; readonly computed: bigint }
  | { readonly kind: "changed" }
  | { readonly kind: "failed"; readonly reason: string };

/** Some pages of a database were read and compared with what is known of them. */
export type ScrubStep =
  | { readonly kind: "more" | "done"; readonly bytes: number }
  | { readonly kind: "damaged"; readonly reason: string };

export interface NodeRole {
  readonly isPrimary: boolean;
  /** Hostname of the primary as it advertises itself; undefined when none is known. */
  readonly primaryHostname: string | undefined;
  /** For applications, in `.role`. */
  readonly phase: NodePhase;
}

/** What a node is to its cluster at this moment. */
export type NodePhase = "starting" | "replica" | "primary" | "disconnected" | "stopping";
