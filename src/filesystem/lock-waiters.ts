import type { LockableNode } from "./nodes.ts";

/** A SETLKW, or a reader's SETLK while the daemon has the database to itself, whose answer waits. */
export interface LockWaiter {
  readonly uniqueLo: number;
  readonly uniqueHi: number;
  readonly node: LockableNode;
  readonly fh: number;
  readonly ownerLo: number;
  readonly ownerHi: number;
  readonly start: number;
  readonly end: number;
  readonly type: number;
  readonly pid: number;
  /** By the monotonic clock of this process. */
  readonly sinceMs: number;
}

/** Lock requests that wait, served in the order they came. */
export class LockWaiters {
  #waiters: LockWaiter[] = [];

  get size(): number {
    return this.#waiters.length;
  }

  add(waiter: LockWaiter): void {
    this.#waiters.push(waiter);
  }

  /** Grants what has become possible on a file. */
  retry(node: LockableNode, granted: (uniqueLo: number, uniqueHi: number) => void): void {
    const rest: LockWaiter[] = [];
    for (const w of this.#waiters) {
      const { locks } = w.node;
      const isFree =
        locks === node.locks &&
        locks.conflict(w.ownerLo, w.ownerHi, false, w.start, w.end, w.type) === undefined;
      if (!isFree) {
        rest.push(w);
        continue;
      }
      locks.set(w.ownerLo, w.ownerHi, w.fh, w.pid, w.start, w.end, w.type);
      granted(w.uniqueLo, w.uniqueHi);
    }
    this.#waiters = rest;
  }

  /** Removes an interrupted request; false when it is not waiting here. */
  cancel(uniqueLo: number, uniqueHi: number): boolean {
    const index = this.#waiters.findIndex(
      (waiter) => waiter.uniqueLo === uniqueLo && waiter.uniqueHi === uniqueHi,
    );
    if (index < 0) return false;
    this.#waiters.splice(index, 1);
    return true;
  }

  /** Removes the requests of an owner who has closed the file. */
  cancelOwner(
    ownerLo: number,
    ownerHi: number,
    node: LockableNode,
    cancelled: (uniqueLo: number, uniqueHi: number) => void,
  ): void {
    this.#waiters = this.#waiters.filter((waiter) => {
      const isHis =
        waiter.node.locks === node.locks &&
        waiter.ownerLo === ownerLo &&
        waiter.ownerHi === ownerHi;
      if (isHis) cancelled(waiter.uniqueLo, waiter.uniqueHi);
      return !isHis;
    });
  }
}
