import type { DatabaseState, Engine } from "../../database/engine.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";

/** Damage will not go away; a disk that is full may have space again before anybody asks. */
const FIRST_DELAY_MS = 1_000;
const FIRST_DELAY_OF_DISK_MS = 15_000;
const MAX_DELAY_MS = 5 * 60_000;
/** A database that was well for so long begins anew with the shortest delay. */
const FORGET_AFTER_MS = 15 * 60_000;

interface Attempts {
  count: number;
  lastAtMs: number;
}

/** How long to wait before a quarantined database is fetched anew: longer each time it was in vain. */
export class HealingDelays {
  readonly #attempts = new Map<string, Attempts>();

  next({ name, isDiskFailure }: DatabaseState, nowMs: number): number {
    const known = this.#attempts.get(name);
    const isRecent = known !== undefined && nowMs - known.lastAtMs < FORGET_AFTER_MS;
    const count = isRecent ? known.count : 0;
    this.#attempts.set(name, { count: count + 1, lastAtMs: nowMs });
    const first = isDiskFailure ? FIRST_DELAY_OF_DISK_MS : FIRST_DELAY_MS;
    return Math.min(first * 2 ** Math.min(count, 20), MAX_DELAY_MS);
  }
}

export interface HealerOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Logger;
  readonly filter: ReadonlySet<string> | undefined;
  readonly delays: HealingDelays;
  /** What this connection brings for the database is dropped, since it was quarantined. */
  readonly isDiscarding: (database: string) => boolean;
  /** Ends this connection; the next one begins with a snapshot of the database. */
  readonly reconnect: (database: string) => void;
}

/**
 * Watches over the databases of a replica during one connection. One that is quarantined can only
 * be helped by a new copy, for which the protocol has a single way: to say, at the beginning of a
 * connection, that nothing of it is here.
 */
export class QuarantineHealer {
  readonly #options: HealerOptions;
  /** Those of which a copy is on its way. */
  readonly #awaited = new Set<string>();
  readonly #scheduled = new Set<string>();
  readonly #stop = new AbortController();
  readonly #unsubscribe: () => void;

  constructor(options: HealerOptions) {
    this.#options = options;
    for (const [name, { status }] of options.engine.databases) {
      if (status === "quarantined") this.#awaited.add(name);
    }
    this.#unsubscribe = options.engine.onChange((databases) => {
      for (const name of databases) this.#look(name);
    });
  }

  close(): void {
    this.#unsubscribe();
    this.#stop.abort();
  }

  /** What was awaited has come. */
  applied(database: string): void {
    this.#awaited.delete(database);
  }

  /** What has come could not be applied. */
  quarantined(database: string): void {
    this.#awaited.delete(database);
    this.#look(database);
  }

  #look(name: string): void {
    const { engine, clock, log, delays, filter } = this.#options;
    const state = engine.databases.get(name);
    if (state?.status !== "quarantined") return;
    if (this.#awaited.has(name) || this.#scheduled.has(name)) return;
    if (filter !== undefined && !filter.has(name)) return;
    this.#scheduled.add(name);
    const delayMs = delays.next(state, clock.monotonicMs());
    log.warn("a new copy of a quarantined database will be fetched", { db: name, inMs: delayMs });
    clock.sleep(delayMs, this.#stop.signal).then(
      () => this.#due(name),
      () => undefined,
    );
  }

  #due(name: string): void {
    this.#scheduled.delete(name);
    const { engine, isDiscarding, reconnect } = this.#options;
    // It may serve again by now; but what was dropped meanwhile is missing.
    const isOut = engine.databases.get(name)?.status === "quarantined" || isDiscarding(name);
    if (isOut && !this.#awaited.has(name)) reconnect(name);
  }
}
