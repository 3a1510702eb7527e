import type { Engine } from "../../database/engine.ts";
import type { Clock } from "../../lib/clock.ts";
import type { Logger } from "../../lib/log.ts";
import type { Position } from "../../lib/position.ts";
import { LitefsError } from "../../lib/errors.ts";
import type { FrameSink } from "./frame-sink.ts";
import { StreamSession } from "./stream-session.ts";
import type { ReplicaDescription } from "./stream-transport.ts";

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
  /** 16 upper-case hex digits; zeros when the replica does not say. */
  readonly clientNodeId: string;
  /** Undefined for a LiteFS, which says nothing of itself. */
  readonly replica: ReplicaDescription | undefined;
  readonly positions: ReadonlyMap<string, Position>;
  /** Only these databases; all when undefined. */
  readonly filter: ReadonlySet<string> | undefined;
  /** It wants what this node has beyond it, and no more than that. */
  readonly isCatchUp?: boolean;
}

/** A replica with an open stream. */
export interface ConnectedReplica {
  readonly nodeId: string;
  readonly description: ReplicaDescription | undefined;
  /** Only these databases; all when undefined. */
  readonly filter: ReadonlySet<string> | undefined;
  readonly connectedAtMs: number;
  /** What it has been sent of a database. */
  sentPosition(database: string): Position;
}

interface OpenSession {
  readonly stop: AbortController;
  readonly session: StreamSession;
  readonly request: StreamRequest;
  readonly connectedAtMs: number;
}

export type SentFrameType = "ltx" | "ltx:snapshot";

/** The sending side of replication: one session for each connected replica. */
export class StreamServer {
  readonly #options: StreamServerOptions;
  readonly #sessions = new Set<OpenSession>();
  /** Positions at which the pages of a database contradicted their checksum. */
  readonly #damagedAt = new Map<string, Position>();
  readonly #sentFrames = new Map<string, Record<SentFrameType, number>>();

  constructor(options: StreamServerOptions) {
    this.#options = options;
  }

  /** Replicas connected at this moment. */
  get sessionCount(): number {
    return this.#following.length;
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
    const session = new StreamSession(this.#options, request, sink, {
      stop: stop.signal,
      replicaGone,
      damagedAt: this.#damagedAt,
      onFramesSent: (database, type, count) => this.#countFrames(database, type, count),
    });
    const connectedAtMs = this.#options.clock.nowMs();
    const open: OpenSession = { stop, session, request, connectedAtMs };
    this.#sessions.add(open);
    try {
      await session.run();
    } finally {
      this.#sessions.delete(open);
    }
  }

  /** Ends every stream cleanly: at shutdown, and when this node is no longer the primary. */
  endAll(): void {
    for (const { stop } of this.#sessions) stop.abort();
  }

  get replicas(): ConnectedReplica[] {
    return this.#following.map(({ request, session, connectedAtMs }) => ({
      nodeId: request.clientNodeId,
      description: request.replica,
      filter: request.filter,
      connectedAtMs,
      sentPosition: (database) => session.sentPosition(database),
    }));
  }

  /** Who only catches up has this node for no primary. */
  get #following(): OpenSession[] {
    return [...this.#sessions].filter(({ request }) => request.isCatchUp !== true);
  }

  /** Throws when the replica cannot take over. */
  requireHeir(nodeId: string): StreamSession {
    for (const { session, request } of this.#following) {
      if (request.clientNodeId !== nodeId) continue;
      if (request.filter === undefined && request.replica?.isCandidate !== false) return session;
      throw new LitefsError("HANDOFF_REFUSED", `node ${nodeId} is not a candidate`);
    }
    throw new LitefsError("HANDOFF_REFUSED", `node ${nodeId} has no stream from this node`);
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
