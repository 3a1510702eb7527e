/**
 * Who is the primary: the port that every lease backend implements. The cluster layer drives it,
 * so a backend holds no policy; it only answers and acquires.
 */
export interface LeaseProvider {
  readonly kind: "static" | "consul" | "etcd";
  /** The name under which other nodes know the holder of this node's lease. */
  readonly hostname: string;
  /** Where other nodes reach the HTTP API of the holder of this node's lease. */
  readonly advertiseUrl: string;
  /** The lease, or undefined when another node has it or this one may never have it. */
  acquire(): Promise<Lease | undefined>;
  /** The primary as the backend knows it; undefined when there is none or it is this node. */
  primaryInfo(): Promise<PrimaryInfo | undefined>;
  /** Ends connections to the backend. Leases are closed on their own, and before this. */
  close(): Promise<void>;
}

export interface PrimaryInfo {
  readonly hostname: string;
  readonly advertiseUrl: string;
}

export interface Lease {
  /** What a handoff passes on to the next primary. */
  readonly id: string;
  /**
   * The last moment, on this node's monotonic clock, at which a commit is still covered: the
   * sending of the last successful renewal plus the TTL. Infinity when the lease never ends.
   */
  expiresAtMonotonicMs(): number;
  renew(): Promise<void>;
  /** Gives the lease up, so that another node need not wait for it to expire. */
  close(): Promise<void>;
}
