import { reapLegacyTransactions } from "../database/legacy.ts";
import { decodeShelved } from "../database/shelf-file.ts";
import type { ShelvedDatabase } from "../database/shelved-database.ts";
import { errorText } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { DatabaseTable } from "./database-table.ts";
import type { DatabaseEntry } from "./entry.ts";

export interface RetentionOptions {
  readonly logger: Logger;
  readonly entries: DatabaseTable;
  changed(database: string): void;
  /** Nobody needs it any more, if nobody has it open. */
  release(entry: DatabaseEntry): void;
}

/** Removes transactions that are older than they need to be kept. */
export class Retention {
  readonly #options: RetentionOptions;
  /** Databases on the shelf of which something can be removed, sooner or later. */
  readonly #shelved = new Set<string>();

  constructor(options: RetentionOptions) {
    this.#options = options;
  }

  /** Of thousands of databases at rest most have lost their transactions long ago. */
  noteShelved({ name, log }: ShelvedDatabase): void {
    // The newest transaction stays, because recovery may apply it again, in the segment before the last.
    const used = log.segments.filter(({ firstTxid }) => firstTxid <= log.txid);
    if (used.length > 1 || used.length === log.segments.length) this.#shelved.add(name);
  }

  /** One database after the other. To begin a new segment takes several syncs. */
  *pass(olderThanMs: number): Generator<undefined, void> {
    const { entries } = this.#options;
    for (const name of this.#shelved) {
      const line = entries.shelved().get(name);
      if (line !== undefined) {
        const { log } = decodeShelved(line);
        if (log.segments.every((segment) => segment.startTimestampMs >= olderThanMs)) continue;
        entries.get(name);
      }
      this.#shelved.delete(name);
      yield;
    }
    for (const entry of entries.awake()) {
      this.#enforce(entry, olderThanMs);
      yield;
    }
  }

  #enforce(entry: DatabaseEntry, olderThanMs: number): void {
    const { db } = entry;
    try {
      db.log.rotateIfOlderThan(olderThanMs);
      const removed =
        db.log.enforceRetention(olderThanMs) + reapLegacyTransactions(db, olderThanMs);
      if (removed > 0) this.#options.changed(db.name);
      db.counters.ltxReaped += removed;
    } catch (error) {
      const fields = { db: db.name, error: errorText(error) };
      this.#options.logger.error("cannot enforce retention", fields);
    }
    // A new segment was begun for a database that nobody has open, perhaps.
    this.#options.release(entry);
  }
}
