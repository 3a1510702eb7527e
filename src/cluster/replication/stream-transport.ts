import type { AckChannel } from "../sync/ack-sender.ts";

/** In the answer to POST /stream: the number of the primary's term, decimal. Ours. */
export const TERM_HEADER = "litefs-term";

/**
 * In POST /stream: "true" asks whoever is asked, not only a primary, for what it has beyond the position
 * map of the databases in it, and for the end of the stream after that. Ours.
 */
export const CATCH_UP_HEADER = "litefs-catch-up";

/** The network as the stream client sees it: one request, one endless answer. */
export type OpenStream = (request: OpenStreamRequest, signal: AbortSignal) => Promise<OpenedStream>;

export interface OpenStreamRequest {
  /** The advertise URL of the primary; only scheme, host and port count. */
  readonly primaryUrl: string;
  /** 16 upper-case hex digits. */
  readonly nodeId: string;
  /** The position map. */
  readonly body: Uint8Array;
  /** Only these databases; all when undefined. */
  readonly filter: ReadonlySet<string> | undefined;
  readonly self: ReplicaDescription;
  /** See CATCH_UP_HEADER. */
  readonly isCatchUp: boolean;
}

/** What a replica says of itself, beyond what LiteFS does. */
export interface ReplicaDescription {
  readonly hostname: string;
  readonly advertiseUrl: string;
  /** Whether the lease may be handed to it. */
  readonly isCandidate: boolean;
}

export interface OpenedStream {
  readonly status: number;
  readonly clusterId: string | undefined;
  /** The term in which the primary streams; undefined with a static lease, and from LiteFS. */
  readonly term?: number | undefined;
  /** For which databases commits of the primary wait for this node, see announced-databases. */
  readonly sync?: string | undefined;
  /** Begins to tell the primary what is on the disk here. When that breaks, so does the stream. */
  readonly openAcks?: () => AckChannel;
  /** Ends at a clean close; throws when the connection breaks or was destroyed. */
  readonly body: AsyncIterable<Uint8Array>;
  destroy(reason?: Error): void;
}
