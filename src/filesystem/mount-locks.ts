import type { FuseReplies } from "../fuse/replies.ts";
import type { FuseRequest } from "../fuse/request.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import type { LockableNode, Node } from "./nodes.ts";

/** The number by which a request is answered. */
export type RequestId = Pick<FuseRequest, "uniqueLo" | "uniqueHi">;

/** And the thread that has made it. */
export type LockRequest = Pick<FuseRequest, "uniqueLo" | "uniqueHi" | "pid">;

/**
 * The fcntl locks of applications, as the mount deals with them. There are two of it: ApplicationLocks
 * is asked for each, KernelLocks sees none of them and is one more process that takes some.
 */
export interface MountLocks {
  /** Set when the session begins. */
  replies: FuseReplies;
  /** Holds back new writers; calls back once there is none left. */
  pauseWrites(whenQuiet: () => void): void;
  resumeWrites(): void;
  readonly isHoldingBack: boolean;
  /** Somebody may have ended what he was writing. */
  checkQuiet(): void;

  /** A SETLK or, with `wait`, a SETLKW, answered perhaps later. */
  set(
    request: LockRequest,
    node: LockableNode,
    fh: number,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    type: number,
    pid: number,
    wait: boolean,
  ): void;
  get(
    request: FuseRequest,
    node: LockableNode | undefined,
    ownerLo: number,
    ownerHi: number,
    start: number,
    end: number,
    type: number,
  ): void;
  interrupt(targetLo: number, targetHi: number): void;

  /** This process asks for a name that nobody else may know; false: it is an ordinary request. */
  lookup(request: FuseRequest, name: string): boolean;
  /** This process opens a file itself. */
  isOwn(request: FuseRequest): boolean;
  /** An application opens a file of a database: `answer` is called when it may, with 0 or an errno. */
  opens(request: RequestId, node: FileNode, answer: (errno: number) => void): void;
  /** An ordinary file that applications have open has become a database. */
  adopted(node: Node): void;
  /** A descriptor was closed, perhaps by a dying process; `then` answers it. */
  ownerCloses(
    request: FuseRequest,
    node: LockableNode,
    ownerLo: number,
    ownerHi: number,
    then: () => void,
  ): void;
  /** A descriptor is gone. */
  handleCloses(node: LockableNode, fh: number): void;
  /** Whether an application other than the one that makes a request writes in a rollback mode. */
  isBeingWritten(node: FileNode, request: FuseRequest): boolean;
  /** Whether an application has begun to write, or none may be kept from it. */
  isWriting(entry: DatabaseEntry): boolean;
  /** An application has written to, cut or synced a file, and has its answer. */
  changed(node: FileNode): void;

  /** This thread was woken. */
  woken(): void;
  /** The mount is about to end; calls back when nothing of this process is in the way. */
  release(then: () => void): void;
}
