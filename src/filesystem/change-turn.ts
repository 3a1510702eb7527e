import { SHARED } from "./messages.ts";

/** What both threads do with the shared words; a test puts one thread's step between the other's. */
export type SharedAtomics = Pick<typeof Atomics, "exchange" | "load" | "store">;

/**
 * One "changed" event at a time is on its way to the main thread, so that during a burst it gets
 * the sum of many commits at once. Who has a change to tell and does not get the turn is woken
 * when the main thread has seen the event before.
 */
export class ChangeTurn {
  readonly #words: Int32Array;
  readonly #atomics: SharedAtomics;

  constructor(words: Int32Array, atomics: SharedAtomics = Atomics) {
    this.#words = words;
    this.#atomics = atomics;
  }

  /** Mount thread: whether it may post now. If not, a wake-up follows. */
  take(): boolean {
    if (this.#exchangePosted() === 1) {
      this.#atomics.store(this.#words, SHARED.changeWaiting, 1);
      // The main thread may have looked before the store: then nobody would wake us any more.
      if (this.#exchangePosted() === 1) return false;
    }
    this.#atomics.store(this.#words, SHARED.changeWaiting, 0);
    return true;
  }

  /** Main thread, when it has seen an event: whether the mount thread must be woken for more. */
  release(): boolean {
    this.#atomics.store(this.#words, SHARED.changePosted, 0);
    return this.#atomics.load(this.#words, SHARED.changeWaiting) === 1;
  }

  #exchangePosted(): number {
    return this.#atomics.exchange(this.#words, SHARED.changePosted, 1);
  }
}
