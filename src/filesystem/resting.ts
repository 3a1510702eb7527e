import type { DatabaseEntry } from "./entry.ts";

/** So many databases keep their descriptors and caches although nobody has them open. */
const MAX_AWAKE = 32;

/**
 * Databases that nobody has open give back descriptors and memory, but not at once: whoever forwards
 * transactions, or opens a database for every request, comes again, and to open and close four files
 * each time took a tenth of a forwarded commit. A few wait for that, until retention looks at all.
 */
export class Resting {
  /** In the order in which they were last in use. */
  readonly #awake = new Set<DatabaseEntry>();

  /** Nobody uses it for now. */
  add(entry: DatabaseEntry): void {
    this.#awake.delete(entry);
    if (entry.db.status === "deleted") {
      // Nobody comes again.
      this.#rest(entry);
      return;
    }
    this.#awake.add(entry);
    if (this.#awake.size <= MAX_AWAKE) return;
    const [oldest] = this.#awake;
    if (oldest !== undefined) this.#rest(oldest);
  }

  restAll(): void {
    for (const entry of this.#awake) this.#rest(entry);
  }

  #rest(entry: DatabaseEntry): void {
    this.#awake.delete(entry);
    // In use again: whoever ends that says so.
    if (entry.openCount("any") === 0 && !entry.isBusy) entry.rest();
  }
}
