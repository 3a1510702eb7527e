import type { TurnRequest } from "./write-turn-kinds.ts";

/** Where other threads of a process must wait with it. SQLite's busy handler lets them go on. */
const RETURNED_MAX_MS = 40;
/** The same where nobody knows whether there is a busy handler. */
const FIRST_MAX_MS = 500;
const FORGET_AFTER_MS = 10_000;
/** Processes come and go; what is forgotten is seen again. */
const MAX_OWNERS = 4_096;

/**
 * Which processes use databases from several threads. SQLite holds a mutex of its process while it asks
 * for a lock (os_unix.c): whoever waits for the answer keeps the other threads from beginning to read
 * the same database, and from ending it.
 */
export class SiblingThreads {
  /** The thread that has asked last, by owner of locks, which is a process. */
  readonly #last = new Map<number, number>();
  readonly #severalUntilMs = new Map<number, number>();

  /** `thread` is 0 for one of another container. */
  note(ownerLo: number, thread: number): void {
    const last = this.#last.get(ownerLo);
    if (last === thread) return;
    if (this.#last.size >= MAX_OWNERS) {
      this.#last.clear();
      this.#severalUntilMs.clear();
    }
    this.#last.set(ownerLo, thread);
    if (last !== undefined) this.#severalUntilMs.set(ownerLo, performance.now() + FORGET_AFTER_MS);
  }

  has(ownerLo: number): boolean {
    const untilMs = this.#severalUntilMs.get(ownerLo);
    return untilMs !== undefined && untilMs > performance.now();
  }
}

/** For how long a request may wait, of one who has had his place in the queue since `placeMs`. */
export function longestWaitMs(
  { hasSiblings, sinceMs }: TurnRequest,
  placeMs: number = sinceMs,
): number {
  if (!hasSiblings) return Infinity;
  return placeMs < sinceMs ? RETURNED_MAX_MS : FIRST_MAX_MS;
}
