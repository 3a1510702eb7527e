import type { Engine } from "../../database/engine.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { Position } from "../../lib/position.ts";
import type { FrameSink } from "./frame-sink.ts";
import { StreamSession } from "./stream-session.ts";

export interface StreamServerOptions {
  readonly engine: Engine;
  /** Goes into the header of every snapshot. */
  readonly nodeId: bigint;
  readonly clock: Clock;
  readonly log: Logger;
  /** LZ4 in snapshots; transactions go out as the log holds them. */
  readonly compress: boolean;
  readonly heartbeatIntervalMs: number;
  /** A replica that takes a snapshot slower than this is cut off; 0: never. */
  readonly snapshotTimeoutMs: number;
}

export interface StreamRequest {
  /** Only for the log. */
  readonly clientNodeId: string;
  readonly positions: ReadonlyMap<string, Position>;
  /** Only these databases; all when undefined. */
  readonly filter: ReadonlySet<string> | undefined;
}

export type SentFrameType = "ltx" | "ltx:snapshot";

/** The primary's side of replication: one session for each connected replica. */
export class StreamServer {
  readonly #options: StreamServerOptions;
  readonly #sessions = new Set<AbortController>();
  /** Positions at which the pages of a database contradicted their checksum. */
  readonly #damagedAt = new Map<string, Position>();
  readonly #sentFrames = new Map<string, Record<SentFrameType, number>>();

  constructor(options: StreamServerOptions) {
    this.#options = options;
  }

  /** Replicas connected at this moment. */
  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** LTX frames sent since the start, by database. */
  get sentFrames(): ReadonlyMap<string, Readonly<Record<SentFrameType, number>>> {
    return this.#sentFrames;
  }

  /**
   * Serves one replica until it leaves, or until `endAll`. Resolves after the End frame; rejects
   * when the stream stopped in the middle of a frame and must be reset.
   */
  async serve(request: StreamRequest, sink: FrameSink, replicaGone: AbortSignal): Promise<void> {
    const stop = new AbortController();
    this.#sessions.add(stop);
    const session = new StreamSession(this.#options, request, sink, {
      stop: stop.signal,
      replicaGone,
      damagedAt: this.#damagedAt,
      onFramesSent: (database, type, count) => this.#countFrames(database, type, count),
    });
    try {
      await session.run();
    } finally {
      this.#sessions.delete(stop);
    }
  }

  /** Ends every stream cleanly: at shutdown, and when this node is no longer the primary. */
  endAll(): void {
    for (const session of this.#sessions) session.abort();
  }

  #countFrames(database: string, type: SentFrameType, count: number): void {
    let counts = this.#sentFrames.get(database);
    if (counts === undefined) {
      counts = { ltx: 0, "ltx:snapshot": 0 };
      this.#sentFrames.set(database, counts);
    }
    counts[type] += count;
  }
}
