import { LitefsError } from "../lib/errors.ts";

/**
 * Who is the primary: the port that every lease backend implements. The cluster layer drives it,
 * so a backend holds no policy; it only answers and acquires. No call takes longer than the
 * backend's own deadline for it: an unreachable backend is an error, never a call that hangs.
 */
export interface LeaseProvider {
  readonly kind: "static" | "memory" | "consul" | "etcd";
  /** The name under which other nodes know the holder of this node's lease. */
  readonly hostname: string;
  /** Where other nodes reach the HTTP API of the holder of this node's lease. */
  readonly advertiseUrl: string;
  /** The lease, or undefined when another node has it or this one may never have it. */
  acquire(): Promise<Lease | undefined>;
  /** Goes on with the lease that its holder handed to this node; LeaseLostError if it is gone. */
  adopt(leaseId: string): Promise<Lease>;
  /** The primary as the backend knows it, which may be this node in an earlier life. */
  primaryInfo(): Promise<PrimaryInfo | undefined>;
  /**
   * Resolves when the answer of primaryInfo may have changed since it was last given. It may
   * resolve without reason, rejects when the backend cannot be watched, and when aborted.
   */
  changed(signal: AbortSignal): Promise<void>;
  /** The id of the cluster that has data under this backend's key; undefined when there is none. */
  clusterId(): Promise<string | undefined>;
  /** Records the id unless there is one already; resolves to the one that is there now. */
  claimClusterId(id: string): Promise<string>;
  /** Lets other candidates find this node, for as long as it calls again within the TTL. */
  announce(self: Peer): Promise<void>;
  /** The candidates that have announced themselves lately, this node among them. */
  peers(): Promise<readonly Peer[]>;
  /** Ends connections to the backend. Leases are closed on their own, and before this. */
  close(): Promise<void>;
}

export interface PrimaryInfo {
  readonly hostname: string;
  readonly advertiseUrl: string;
  /** The token of its lease, where the backend has one. */
  readonly token?: number;
}

/** A node that may become the primary. */
export interface Peer extends PrimaryInfo {
  /** 16 upper-case hex digits. */
  readonly nodeId: string;
}

export interface Lease {
  /** What a handoff passes on to the next primary. */
  readonly id: string;
  /**
   * Greater than that of every holder before, a handoff included: what is known as a fencing token.
   * 0 where there is only ever one holder.
   */
  readonly token: number;
  /** Infinity when the lease never ends. */
  readonly ttlMs: number;
  /**
   * The last moment, on this node's monotonic clock, at which a commit is still covered: the
   * sending of the last successful renewal plus the TTL. Infinity when the lease never ends.
   */
  expiresAtMonotonicMs(): number;
  /** Rejects with LeaseLostError when the backend says that it is gone; else nobody knows. */
  renew(): Promise<void>;
  /** Gives the lease up, so that another node need not wait for it to expire. */
  close(): Promise<void>;
}

/** The backend says that the lease is not ours any more. No other error means that. */
export class LeaseLostError extends LitefsError {
  override readonly name = "LeaseLostError";

  constructor(message: string, options?: ErrorOptions) {
    super("LEASE_LOST", message, options);
  }
}

/** The value of the lease key, in LiteFS's spelling. */
export function encodePrimaryInfo({ hostname, advertiseUrl }: PrimaryInfo): string {
  return JSON.stringify({ hostname, "advertise-url": advertiseUrl });
}

/** An empty value is a lease that was just given up. */
export function decodePrimaryInfo(text: string, key: string): PrimaryInfo | undefined {
  if (text === "") return undefined;
  const hostname = textMember(text, "hostname");
  const advertiseUrl = textMember(text, "advertise-url");
  if (hostname === undefined || advertiseUrl === undefined) {
    throw new LitefsError(
      "LEASE_VALUE_INVALID",
      `the key ${key} does not hold a lease of litefs (found ${JSON.stringify(text.slice(0, 60))}): choose another key`,
    );
  }
  return { hostname, advertiseUrl };
}

export function encodePeer(peer: Peer): string {
  const { nodeId, hostname, advertiseUrl } = peer;
  return JSON.stringify({ id: nodeId, hostname, "advertise-url": advertiseUrl });
}

/** Undefined for what is no peer: others may write there, and one bad entry must stop nobody. */
export function decodePeer(text: string): Peer | undefined {
  const nodeId = textMember(text, "id");
  const hostname = textMember(text, "hostname");
  const advertiseUrl = textMember(text, "advertise-url");
  if (nodeId === undefined || hostname === undefined || advertiseUrl === undefined) {
    return undefined;
  }
  return { nodeId, hostname, advertiseUrl };
}

function textMember(json: string, name: string): string | undefined {
  try {
    const value: unknown = JSON.parse(json);
    const member: unknown =
      typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
    return typeof member === "string" ? member : undefined;
  } catch {
    return undefined;
  }
}
