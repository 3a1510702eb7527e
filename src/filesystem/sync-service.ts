import type { SyncHost } from "../database/replica-waits.ts";
import type { WaitSettlement } from "../database/sync-engine.ts";
import type { SyncPolicy } from "../database/sync-policy.ts";
import { assert } from "../lib/assert.ts";
import type { Position } from "../lib/position.ts";
import type { DatabaseEntry } from "./entry.ts";

export interface SyncServiceHost {
  find(name: string): DatabaseEntry | undefined;
  entries(): Iterable<DatabaseEntry>;
  /** Tells the main thread that a commit waits, and where the database stands with it. */
  post(entry: DatabaseEntry): void;
  replicaCount(): number;
  /** Gives back what nobody needs. */
  rest(entry: DatabaseEntry): void;
}

/** Between the commits of all databases that wait for replicas, and the main thread. */
export class SyncService {
  readonly #host: SyncServiceHost;
  #replicaCount = 0;

  constructor(host: SyncServiceHost) {
    this.#host = host;
  }

  hostFor(policy: SyncPolicy): SyncHost {
    return {
      policy,
      replicaCount: () => this.#host.replicaCount(),
      commitWaits: (name) => {
        const entry = this.#host.find(name);
        assert(entry !== undefined, "a database in which something was committed");
        this.#host.post(entry);
      },
    };
  }

  settle(database: string, settlement: WaitSettlement): void {
    const entry = this.#host.find(database);
    entry?.db.replicaWaits?.settle(settlement);
    // Whether anybody may write has perhaps changed.
    entry?.released();
  }

  /**
   * This thread was woken, perhaps because there are more or fewer replicas than before. Where the
   * kernel keeps the locks nobody asks before he writes, so the guard is taken or dropped here.
   */
  noticeReplicas(): void {
    const replicaCount = this.#host.replicaCount();
    if (replicaCount === this.#replicaCount) return;
    this.#replicaCount = replicaCount;
    for (const entry of this.#host.entries()) {
      if (entry.db.replicaWaits !== undefined && entry.openCount("any") > 0) entry.released();
    }
  }

  /** For a primary that waits for this node. */
  makeDurable(database: string): Position | undefined {
    const entry = this.#host.find(database);
    if (entry === undefined || entry.db.status === "quarantined") return undefined;
    entry.db.log.sync();
    this.#host.rest(entry);
    return entry.db.position;
  }
}
