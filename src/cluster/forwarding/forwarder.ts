import type { WriteEngine, WriteEvent } from "../../database/write-engine.ts";
import { assertNever } from "../../lib/assert.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorText } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { Borrowing } from "./borrowing.ts";
import { PrimaryLink } from "./primary-link.ts";
import { ForwardingStatistics } from "./statistics.ts";

export interface ForwarderOptions {
  readonly engine: WriteEngine;
  /** 16 upper-case hex digits. */
  readonly nodeId: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly isEnabled: boolean;
  readonly lingerMs: number;
  readonly timeoutMs: number;
  isPrimary(): boolean;
}

/** Lets applications on a replica write: what they commit becomes a transaction of the primary. */
export class Forwarder {
  readonly #options: ForwarderOptions;
  readonly #borrowings = new Map<string, Borrowing>();
  readonly statistics: ForwardingStatistics = new ForwardingStatistics();
  #link: PrimaryLink | undefined;
  #url: string | undefined;

  constructor(options: ForwarderOptions) {
    this.#options = options;
    options.engine.onWriteEvent((event) => this.#handle(event));
  }

  /** For how long this node has had the right to write a database; undefined: it has not. */
  heldForMs(database: string): number | undefined {
    return this.#borrowings.get(database)?.heldForMs;
  }

  /** Where the primary is now; undefined while there is none, or when it is this node. */
  setPrimary(url: string | undefined): void {
    if (url === this.#url) return;
    this.#url = url;
    const former = this.#link;
    this.#link = url === undefined ? undefined : new PrimaryLink(url, this.#options.nodeId);
    for (const borrowing of this.#borrowings.values()) borrowing.reset();
    former?.close();
  }

  close(): void {
    this.setPrimary(undefined);
  }

  #handle(event: WriteEvent): void {
    const { engine, isEnabled, log } = this.#options;
    const { database, type } = event;
    if (this.#options.isPrimary() && type === "sync") {
      // The log here has the last word now, and was synced before this was asked.
      engine.decideSync(database, event.sync, true).catch(() => undefined);
      return;
    }
    if (this.#options.isPrimary() && type !== "commit") return;
    if (!isEnabled && type === "writer-waits") {
      engine.denyWriters(database, 0).catch(() => undefined);
      return;
    }
    const borrowing = this.#borrowing(database);
    switch (type) {
      case "writer-waits":
        borrowing.writerWaits();
        return;
      case "turn-reserved":
        setTimeout(() => {
          engine.endReservation(database).catch(() => undefined);
        }, event.forMs).unref();
        return;
      case "writer-left":
        borrowing.writerLeft(event);
        return;
      case "right-lost":
        borrowing.rightLost();
        return;
      case "commit":
        borrowing.commit(event).catch((error: unknown) => {
          log.error("cannot decide a commit", { db: database, error: errorText(error) });
        });
        return;
      case "sync":
        borrowing.sync(event).catch((error: unknown) => {
          log.error("cannot end a sync", { db: database, error: errorText(error) });
        });
        return;
      default:
        assertNever(event);
    }
  }

  #borrowing(database: string): Borrowing {
    let borrowing = this.#borrowings.get(database);
    if (borrowing === undefined) {
      const { engine, clock, log, lingerMs, timeoutMs } = this.#options;
      borrowing = new Borrowing(database, {
        engine,
        clock,
        log,
        lingerMs,
        timeoutMs,
        link: () => this.#link,
        statistics: this.statistics,
      });
      this.#borrowings.set(database, borrowing);
    }
    return borrowing;
  }
}
