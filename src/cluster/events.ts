import type { DatabaseState, Engine, NodeRole } from "../database/engine.ts";
import { errorText } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { formatChecksum, formatTxid, positionsEqual } from "../lib/position.ts";
import type { Position } from "../lib/position.ts";
import { decodeHeader, LTX_HEADER_SIZE, LTX_TRAILER_SIZE } from "../ltx/header.ts";
import { decodeTrailer } from "../ltx/trailer.ts";

/** One line of GET /events, in LiteFS's spelling. */
export type ClusterEvent =
  | { readonly type: "init"; readonly data: RoleData }
  | { readonly type: "primaryChange"; readonly data: RoleData }
  | { readonly type: "tx"; readonly db: string; readonly data: TransactionData };

export interface RoleData {
  readonly isPrimary: boolean;
  /** The primary's name; absent on the primary itself and while none is known. */
  readonly hostname?: string;
}

export interface TransactionData {
  readonly txID: string;
  readonly postApplyChecksum: string;
  readonly pageSize: number;
  readonly commit: number;
  /** RFC 3339. */
  readonly timestamp: string;
}

const LOG_READ_BYTES = 1024 * 1024;

/** Tells subscribers of every transaction and role change. Costs nothing while there are none. */
export class EventHub {
  readonly #engine: Engine;
  readonly #log: Logger;
  readonly #role: () => NodeRole;
  readonly #subscribers = new Set<(event: ClusterEvent) => void>();
  /** Up to where each database has been told. */
  readonly #told = new Map<string, Position>();
  readonly #pending = new Set<string>();
  #isTelling = false;
  #unsubscribe: (() => void) | undefined;

  constructor(engine: Engine, role: () => NodeRole, log: Logger) {
    this.#engine = engine;
    this.#role = role;
    this.#log = log;
  }

  get subscriberCount(): number {
    return this.#subscribers.size;
  }

  /** The first event, `init`, comes before this returns. */
  subscribe(onEvent: (event: ClusterEvent) => void): () => void {
    onEvent({ type: "init", data: roleData(this.#role()) });
    this.#subscribers.add(onEvent);
    this.#unsubscribe ??= this.#listen();
    return () => {
      this.#subscribers.delete(onEvent);
      if (this.#subscribers.size > 0) return;
      this.#unsubscribe?.();
      this.#unsubscribe = undefined;
    };
  }

  roleChanged(): void {
    this.#emit({ type: "primaryChange", data: roleData(this.#role()) });
  }

  #listen(): () => void {
    this.#told.clear();
    for (const [name, { position }] of this.#engine.databases) this.#told.set(name, position);
    return this.#engine.onChange((databases) => {
      for (const name of databases) this.#pending.add(name);
      if (!this.#isTelling) void this.#tellAll();
    });
  }

  async #tellAll(): Promise<void> {
    this.#isTelling = true;
    try {
      for (const name of this.#pending) {
        this.#pending.delete(name);
        const state = this.#engine.databases.get(name);
        if (state !== undefined) await this.#tell(state);
      }
    } catch (error) {
      this.#log.error("cannot report events", { error: errorText(error) });
    } finally {
      this.#isTelling = false;
    }
  }

  /** One event for each transaction; changes coalesce, so there may be several. */
  async #tell(state: DatabaseState): Promise<void> {
    const { name, position } = state;
    let told = this.#told.get(name);
    let hasRead = false;
    if (told !== undefined && positionsEqual(told, position)) return;
    while (told !== undefined && position.txid > told.txid + 1) {
      const read = await this.#engine.readLog(name, told, LOG_READ_BYTES);
      if (read.kind === "unavailable") break;
      if (read.kind === "large") {
        const header = read.ltx.read(0, LTX_HEADER_SIZE);
        this.#emit(eventOfLtx(name, header, read.end.checksum));
      } else {
        if (read.ltx.length === 0) break;
        for (const ltx of read.ltx) this.#emit(eventOfLtx(name, ltx, postApplyChecksumOf(ltx)));
      }
      hasRead = true;
      told = read.end;
      this.#told.set(name, told);
    }
    // The log may already hold more than the live view says; that was told.
    if (hasRead && told !== undefined && told.txid >= position.txid) return;
    if (position.txid > 0) this.#emit(eventOfState(state));
    this.#told.set(name, position);
  }

  #emit(event: ClusterEvent): void {
    for (const subscriber of this.#subscribers) subscriber(event);
  }
}

function roleData(role: NodeRole): RoleData {
  const { isPrimary, primaryHostname } = role;
  if (isPrimary || primaryHostname === undefined) return { isPrimary };
  return { isPrimary, hostname: primaryHostname };
}

function eventOfState(state: DatabaseState): ClusterEvent {
  return {
    type: "tx",
    db: state.name,
    data: {
      txID: formatTxid(state.position.txid),
      postApplyChecksum: formatChecksum(state.position.checksum),
      pageSize: state.pageSize,
      commit: state.pageCount,
      timestamp: isoTime(state.timestampMs),
    },
  };
}

function postApplyChecksumOf(ltx: Uint8Array): bigint {
  return decodeTrailer(ltx, ltx.length - LTX_TRAILER_SIZE).postApplyChecksum;
}

function eventOfLtx(db: string, ltx: Uint8Array, postApplyChecksum: bigint): ClusterEvent {
  const header = decodeHeader(ltx, 0);
  return {
    type: "tx",
    db,
    data: {
      txID: formatTxid(header.maxTxid),
      postApplyChecksum: formatChecksum(postApplyChecksum),
      pageSize: header.pageSize,
      commit: header.commit,
      timestamp: isoTime(header.timestampMs),
    },
  };
}

/** The last moment that a Date can be, in the year 275760. */
const MAX_DATE_MS = 8.64e15;

/** A peer's clock may say anything that fits 53 bits; a Date beyond its range has no text. */
function isoTime(timestampMs: number): string {
  const capped = Math.min(MAX_DATE_MS, Math.max(-MAX_DATE_MS, timestampMs));
  return new Date(capped).toISOString();
}
