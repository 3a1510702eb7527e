import { REQUEST_COUNTS_BYTES } from "../fuse/request-counts.ts";
import type { KeepAsideLimits } from "../database/keep-aside.ts";
import type {
  ForwardedTransaction,
  ForwardResult,
  LoanResult,
  WriteEvent,
} from "../database/write-engine.ts";
import type { WaitSettlement } from "../database/sync-engine.ts";
import type { SyncPolicy } from "../database/sync-policy.ts";
import type { NotificationBatch } from "./notifier.ts";
import type { LockLinkData } from "./lock-messages.ts";
import type { Position } from "../lib/position.ts";
import type {
  ApplyResult,
  DatabaseState,
  NodePhase,
  ScrubStep,
  VerifyResult,
} from "../database/engine.ts";

/** What the mount thread is started with. */
export interface MountThreadData {
  readonly dataDirectory: string;
  /** The last run ended in order. */
  readonly wasClean: boolean;
  readonly nodeId: bigint;
  readonly isPrimary: boolean;
  readonly primaryHostname: string | undefined;
  readonly phase: NodePhase;
  readonly shared: SharedArrayBuffer;
  /** How long the thread may look for a request before it sleeps; 0: not at all. */
  readonly spinMs: number;
  /** Of the device that keeps processors awake, where that is wanted. */
  readonly idlePollingFd: number | undefined;
  /** There where the kernel keeps the locks. */
  readonly lockLink: LockLinkData | undefined;
  readonly debug: boolean;
  readonly logFormat: "text" | "json";
  readonly logTimestamp: boolean;
  readonly keepAside: KeepAsideLimits;
  /** Undefined when no commit ever waits for replicas. */
  readonly sync: SyncPolicy | undefined;
}

/** From the main thread. Those with an `id` are answered by a result with the same one. */
export type MountRequest =
  | { readonly type: "serve"; readonly fd: number }
  | {
      readonly type: "apply";
      readonly id: number;
      readonly database: string;
      readonly ltx: readonly Uint8Array[];
      readonly isDurable: boolean;
    }
  | {
      readonly type: "apply-file";
      readonly id: number;
      readonly database: string;
      readonly path: string;
      readonly isDurable: boolean;
    }
  | { readonly type: "abandon-received"; readonly id: number }
  | { readonly type: "make-durable"; readonly id: number; readonly database: string }
  | {
      readonly type: "settle-waits";
      readonly id: number;
      readonly database: string;
      readonly settlement: WaitSettlement;
    }
  | { readonly type: "open-snapshot"; readonly id: number; readonly database: string }
  | { readonly type: "next-pages"; readonly id: number; readonly snapshot: number }
  | { readonly type: "close-snapshot"; readonly id: number; readonly snapshot: number }
  | { readonly type: "verify"; readonly id: number; readonly database: string }
  | {
      readonly type: "set-role";
      readonly id: number;
      readonly isPrimary: boolean;
      readonly primaryHostname: string | undefined;
      readonly phase: NodePhase;
    }
  /** Answered once no application writes, with where every database stands then. */
  | { readonly type: "pause-writes"; readonly id: number }
  | { readonly type: "resume-writes"; readonly id: number }
  /** Answered when nothing of this process keeps the mount from being unmounted. */
  | { readonly type: "release-locks"; readonly id: number }
  | { readonly type: "enforce-retention"; readonly id: number; readonly olderThanMs: number }
  | { readonly type: "retry-quarantined"; readonly id: number }
  | {
      readonly type: "scrub";
      readonly id: number;
      readonly database: string;
      readonly isFirst: boolean;
      readonly maxBytes: number;
    }
  | WriteRequest;

/** The calls of a WriteEngine. */
export type WriteRequest =
  | {
      readonly type: "lend" | "end-loan";
      readonly id: number;
      readonly database: string;
      readonly loan: string;
    }
  | {
      readonly type: "apply-forwarded";
      readonly id: number;
      readonly forwarded: ForwardedTransaction;
    }
  | {
      readonly type: "grant-right" | "has-position";
      readonly id: number;
      readonly database: string;
      readonly position: Position;
    }
  | {
      readonly type: "recall-right" | "lose-right" | "end-reservation";
      readonly id: number;
      readonly database: string;
    }
  | {
      readonly type: "deny-writers";
      readonly id: number;
      readonly database: string;
      readonly waitedMs: number;
    }
  | {
      readonly type: "decide-commit";
      readonly id: number;
      readonly database: string;
      readonly commit: number;
      readonly isCommitted: boolean;
    }
  | {
      readonly type: "decide-sync";
      readonly id: number;
      readonly database: string;
      readonly sync: number;
      readonly isDurable: boolean;
    };

export interface SnapshotInfo {
  readonly snapshot: number;
  /** Goes with the answer: what is told of changes may come later. */
  readonly state: DatabaseUpdate;
  readonly txid: number;
  readonly checksum: bigint;
  readonly pageSize: number;
  readonly pageCount: number;
  readonly timestampMs: number;
}

export interface SnapshotPagesMessage {
  readonly pgnos: Uint32Array;
  readonly data: Uint8Array;
}

export type MountResult =
  | ApplyResult
  | VerifyResult
  | ScrubStep
  | SnapshotInfo
  | SnapshotPagesMessage
  | LoanResult
  | ForwardResult
  | Position
  | boolean
  | readonly DatabaseUpdate[]
  | undefined;

/** A database's state with where its log ends, for the reader on the main thread. */
export interface DatabaseUpdate extends DatabaseState {
  readonly logSegment: string;
  readonly logOffsetBytes: number;
}

/** From the mount thread. */
export type MountEvent =
  | { readonly type: "opened"; readonly databases: readonly DatabaseUpdate[] }
  | { readonly type: "changed"; readonly databases: readonly DatabaseUpdate[] }
  | { readonly type: "write"; readonly event: WriteEvent }
  /** A commit waits for replicas. Not by way of "changed", which may be told a little later. */
  | { readonly type: "commit-waits"; readonly state: DatabaseUpdate }
  | { readonly type: "state"; readonly state: DatabaseUpdate }
  | { readonly type: "result"; readonly id: number; readonly result: MountResult }
  | { readonly type: "failure"; readonly id: number; readonly code: string; readonly text: string }
  /** Notifications for the main thread to write, in order; then `settledBatch` is this batch. */
  | ({ readonly type: "notify" } & NotificationBatch)
  /** The thread cannot go on, and refuses everything until the mount is aborted. */
  | { readonly type: "failed"; readonly error: unknown }
  | {
      readonly type: "ended";
      readonly how: "unmounted" | "stopped";
      /** The digest of the shelf that was left for the next start, if one was. */
      readonly shelf: string | undefined;
    };

/**
 * Shared words, all but the last accessed with Atomics. They replace messages where a message
 * would cost more than what it says.
 */
export const SHARED = {
  /** 1: the mount thread has been woken and has not looked yet. */
  wakePending: 0,
  /** 1: the mount thread is to leave its loop. */
  stop: 1,
  /** 1: a "changed" event is on its way; the next waits until the main thread has seen it. */
  changePosted: 2,
  /** 1: the mount thread has more changes to tell. */
  changeWaiting: 3,
  /** Number of the last notification batch that was written. */
  settledBatch: 4,
  /** Milliseconds behind the primary, for `.lag`. */
  lagMs: 5,
  /** How many replicas tell what they have on their disks. */
  replicas: 6,
  /** 1: idle processors are kept from being halted. */
  idlePolling: 7,
} as const;
/** Behind the words: the requests of the kernel, counted by the mount thread. */
export const SHARED_REQUEST_COUNTS_OFFSET_BYTES = 32;
/**
 * Behind those, a float64: up to when commits are covered by the lease, by the machine's monotonic
 * clock. The main thread writes it, the mount thread reads it at every commit; an aligned store of
 * 8 bytes is seen as a whole.
 */
export const SHARED_COMMIT_DEADLINE_OFFSET_BYTES: number =
  Math.ceil((SHARED_REQUEST_COUNTS_OFFSET_BYTES + REQUEST_COUNTS_BYTES) / 8) * 8;
export const SHARED_BYTES: number = SHARED_COMMIT_DEADLINE_OFFSET_BYTES + 8;
