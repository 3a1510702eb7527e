import { errorText } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Position } from "../../lib/position.ts";
import { encodeAcknowledgement } from "../../wire/acknowledgement.ts";
import type { AnnouncedDatabases } from "./announced-databases.ts";

/** Where acknowledgements go to: the open request of one connection. */
export interface AckChannel {
  write(bytes: Uint8Array): void;
}

export interface AckSenderOptions {
  readonly announced: AnnouncedDatabases;
  readonly log: Logger;
  readonly databases: () => readonly string[];
  /** Brings what a database has onto the disk. */
  readonly makeDurable: (database: string) => Promise<Position | undefined>;
  readonly openChannel: () => AckChannel;
}

/** On a replica: tells the primary of one connection what is on this node's disk. */
export class AckSender {
  readonly #options: AckSenderOptions;
  #channel: AckChannel | undefined;
  /** Before the channel was open; the engine's list may not have them yet. */
  readonly #appliedBefore = new Set<string>();

  constructor(options: AckSenderOptions) {
    this.#options = options;
  }

  /** Whether the primary waits until transactions of this database are on the disk here. */
  isAwaited(database: string): boolean {
    return this.#options.announced.has(database);
  }

  /**
   * This node has all that the primary had, so from now on it counts: one that is still catching up
   * would only make commits wait. What it has from before may not be on the disk.
   */
  async open(): Promise<void> {
    if (this.#channel !== undefined) return;
    try {
      this.#channel = this.#options.openChannel();
    } catch (error) {
      // The connection is gone, which whoever reads from it finds out as well.
      const text = "cannot tell the primary what is on the disk";
      this.#options.log.warn(text, { error: errorText(error) });
      return;
    }
    for (const database of new Set([...this.#options.databases(), ...this.#appliedBefore])) {
      if (!this.isAwaited(database)) continue;
      try {
        const position = await this.#options.makeDurable(database);
        if (position !== undefined) this.applied(database, position);
      } catch (error) {
        const text = "cannot make a database durable for the primary";
        this.#options.log.warn(text, { db: database, error: errorText(error) });
      }
    }
  }

  /** A database is at this position, on the disk. */
  applied(database: string, position: Position): void {
    if (!this.isAwaited(database)) return;
    if (this.#channel === undefined) this.#appliedBefore.add(database);
    this.#channel?.write(encodeAcknowledgement([{ name: database, position }]));
  }
}
