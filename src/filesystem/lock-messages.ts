import type { MessagePort } from "node:worker_threads";
import type { RefusedLock } from "../fuse/lock-trace.ts";

/** What the lock thread is started with. */
export interface LockThreadData {
  readonly dataDirectory: string;
  /** To the mount thread. */
  readonly port: MessagePort;
  readonly control: SharedArrayBuffer;
  /** The words that the other threads share. */
  readonly shared: SharedArrayBuffer;
}

/** From the main thread: the mount is being served. */
export interface LockThreadCall {
  readonly deviceFd: number;
  readonly mountPoint: string;
}

export type LockThreadEvent =
  | { readonly type: "unavailable"; readonly reason: string }
  /** Whoever has a message for it writes to `kickFd` after. */
  | { readonly type: "ready"; readonly threadId: number; readonly kickFd: number }
  | { readonly type: "serving" };

/** From the mount thread. */
export type LockRequest =
  /** With `isNeeded` even where no more should be open: an application has the file open already. */
  | { readonly type: "open"; readonly nodeId: number; readonly isNeeded: boolean }
  | { readonly type: "close"; readonly fd: number }
  /** Everything is to be closed, so that the mount can be unmounted. */
  | { readonly type: "finish" };

/** "full": this process has so many files of the mount open that the others need what is left. */
export type OpenFailure = "full" | "io";

/** To the mount thread. */
export type LockResult =
  | { readonly type: "opened"; readonly nodeId: number; readonly fd: number }
  | {
      readonly type: "failed";
      readonly nodeId: number;
      readonly code: OpenFailure;
      readonly reason: string;
    }
  | { readonly type: "refused"; readonly refused: readonly RefusedLock[] }
  | { readonly type: "finished" };

/** Words that the lock thread shares with the others, accessed with Atomics. */
export const LOCK_WORDS = {
  stop: 0,
  /** How often the mount thread wants to be woken, because it waits for a lock; 0: not at all. */
  pollMs: 1,
  /** Files of the mount can be opened. */
  isServing: 2,
} as const;
export const LOCK_WORDS_BYTES = 12;

/** What the mount thread needs to use the lock thread. */
export interface LockLinkData {
  readonly port: MessagePort;
  readonly control: SharedArrayBuffer;
  readonly kickFd: number;
  /** As the kernel names it in requests. */
  readonly threadId: number;
}
