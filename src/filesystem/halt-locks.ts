import { F_UNLCK, F_WRLCK } from "../fuse/constants.ts";
import * as errno from "../fuse/errno.ts";
import type { FuseReplies } from "../fuse/replies.ts";
import type { FuseRequest } from "../fuse/request.ts";
import type { DatabaseEntry } from "./entry.ts";
import type { HaltTurn } from "./write-turn-kinds.ts";

/** The byte of `DB-lock` that LiteFS gives a meaning to. */
export const HALT_BYTE = 72;

/** The number by which a request is answered. */
type RequestId = Pick<FuseRequest, "uniqueLo" | "uniqueHi">;

export interface Owner {
  readonly ownerLo: number;
  readonly ownerHi: number;
  /** The descriptor it was taken through. */
  readonly fh: number;
  readonly pid: number;
}

interface Asked extends Owner, RequestId {
  readonly granted: () => void;
}

/** Of one database. */
interface HaltLock {
  holder: Owner | undefined;
  /** Who waits for the primary; the turn is his place in the queue of those who want to write. */
  asking: { readonly by: Asked; readonly turn: HaltTurn } | undefined;
  /** Who waits for another process of this node, in the order they came. */
  readonly queue: Asked[];
}

/** No owner that the kernel names, whose halves are both numbers of 32 bits, is equal to it. */
const HANDLE_OWNER_HI = -(2 ** 40);

/**
 * The halt lock of each database: a write lock of byte 72 of its file `DB-lock`. Whoever has it keeps
 * the right to write the database on this node until he unlocks it, closes the file, or dies. On the
 * primary, where that right is, it only excludes others who ask for the same.
 *
 * A write of one byte at the same place takes it as well, and binds it to the open file: a program
 * without fcntl(2) needs no more than that.
 */
export class HaltLocks {
  readonly #locks = new Map<DatabaseEntry, HaltLock>();
  /** Set when the session begins. */
  replies!: FuseReplies;

  /** Answers a SETLK or, with `wait`, a SETLKW, perhaps later. */
  set(
    { uniqueLo, uniqueHi }: RequestId,
    entry: DatabaseEntry,
    owner: Owner,
    start: number,
    end: number,
    type: number,
    wait: boolean,
  ): void {
    if (type === F_UNLCK) {
      if (start <= HALT_BYTE && end >= HALT_BYTE) this.ownerCloses(entry, owner);
      this.replies.replyEmpty(uniqueLo, uniqueHi);
    } else if (type !== F_WRLCK || start !== HALT_BYTE || end !== HALT_BYTE) {
      this.replies.replyError(uniqueLo, uniqueHi, errno.EINVAL);
    } else {
      const granted = (): void => this.replies.replyEmpty(uniqueLo, uniqueHi);
      this.#take(entry, { ...owner, uniqueLo, uniqueHi, granted }, wait);
    }
  }

  get(
    { uniqueLo, uniqueHi }: RequestId,
    entry: DatabaseEntry,
    owner: Pick<Owner, "ownerLo" | "ownerHi">,
    start: number,
    end: number,
  ): void {
    const holder = this.#locks.get(entry)?.holder;
    const isAsked = start <= HALT_BYTE && end >= HALT_BYTE;
    if (!isAsked || holder === undefined || isSame(holder, owner)) {
      this.replies.replyLock(uniqueLo, uniqueHi, F_UNLCK, start, end, 0);
    } else {
      this.replies.replyLock(uniqueLo, uniqueHi, F_WRLCK, HALT_BYTE, HALT_BYTE, holder.pid);
    }
  }

  /** Answers a WRITE: one byte in the right place is a lock of the open file. */
  write(
    { uniqueLo, uniqueHi }: RequestId,
    entry: DatabaseEntry,
    fh: number,
    offset: number,
    size: number,
    pid: number,
  ): void {
    if (offset !== HALT_BYTE || size !== 1) {
      this.replies.replyError(uniqueLo, uniqueHi, errno.EIO);
      return;
    }
    const granted = (): void => this.replies.replyWrite(uniqueLo, uniqueHi, size);
    const owner = { ownerLo: fh, ownerHi: HANDLE_OWNER_HI, fh, pid };
    this.#take(entry, { ...owner, uniqueLo, uniqueHi, granted }, true);
  }

  /** A descriptor was closed: POSIX ends the owner's locks. */
  ownerCloses(entry: DatabaseEntry, owner: Pick<Owner, "ownerLo" | "ownerHi">): void {
    this.#release(entry, (other) => isSame(other, owner));
  }

  /** The last descriptor is gone, and with it what belongs to the open file. */
  handleCloses(entry: DatabaseEntry, fh: number): void {
    this.#release(entry, (other) => other.fh === fh);
  }

  interrupt(uniqueLo: number, uniqueHi: number): void {
    for (const [entry, lock] of this.#locks) {
      const isIt = (asked: RequestId): boolean =>
        asked.uniqueLo === uniqueLo && asked.uniqueHi === uniqueHi;
      if (this.#cancel(entry, lock, isIt)) return;
    }
  }

  #take(entry: DatabaseEntry, asked: Asked, wait: boolean): void {
    let lock = this.#locks.get(entry);
    if (lock === undefined) {
      lock = { holder: undefined, asking: undefined, queue: [] };
      this.#locks.set(entry, lock);
    }
    if (lock.holder !== undefined && isSame(lock.holder, asked)) asked.granted();
    else if (lock.holder === undefined && lock.asking === undefined) this.#ask(entry, lock, asked);
    else if (wait) lock.queue.push(asked);
    else this.replies.replyError(asked.uniqueLo, asked.uniqueHi, errno.EAGAIN);
  }

  #ask(entry: DatabaseEntry, lock: HaltLock, by: Asked): void {
    const turn: HaltTurn = {
      isHalt: true,
      sinceMs: performance.now(),
      answer: (isGranted) => {
        lock.asking = undefined;
        if (isGranted) {
          const { ownerLo, ownerHi, fh, pid } = by;
          lock.holder = { ownerLo, ownerHi, fh, pid };
          by.granted();
        } else {
          this.replies.replyError(by.uniqueLo, by.uniqueHi, errno.EAGAIN);
          this.#next(entry, lock);
        }
      },
    };
    lock.asking = { by, turn };
    entry.turns.halt(turn);
  }

  #next(entry: DatabaseEntry, lock: HaltLock): void {
    if (lock.holder !== undefined || lock.asking !== undefined) return;
    const next = lock.queue.shift();
    if (next === undefined) this.#locks.delete(entry);
    else this.#ask(entry, lock, next);
  }

  #release(entry: DatabaseEntry, isHis: (owner: Owner) => boolean): void {
    const lock = this.#locks.get(entry);
    if (lock === undefined) return;
    while (this.#cancel(entry, lock, isHis)) {
      // Whoever closes the file waits for nothing any more.
    }
    if (lock.holder === undefined || !isHis(lock.holder)) return;
    lock.holder = undefined;
    entry.turns.endHalt();
    this.#next(entry, lock);
  }

  #cancel(entry: DatabaseEntry, lock: HaltLock, matches: (asked: Asked) => boolean): boolean {
    const { asking, queue } = lock;
    const index = queue.findIndex(matches);
    if (asking !== undefined && matches(asking.by)) {
      lock.asking = undefined;
      entry.turns.cancel(asking.turn);
      this.replies.replyError(asking.by.uniqueLo, asking.by.uniqueHi, errno.EINTR);
      this.#next(entry, lock);
      return true;
    }
    if (index < 0) return false;
    for (const { uniqueLo, uniqueHi } of queue.splice(index, 1)) {
      this.replies.replyError(uniqueLo, uniqueHi, errno.EINTR);
    }
    return true;
  }
}

function isSame(a: Pick<Owner, "ownerLo" | "ownerHi">, b: Pick<Owner, "ownerLo" | "ownerHi">) {
  return a.ownerLo === b.ownerLo && a.ownerHi === b.ownerHi;
}
