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
    this.#channel = this.#options.openChannel();
    for (const database of this.#options.databases()) {
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
    this.#channel?.write(encodeAcknowledgement([{ name: database, position }]));
  }
}
