import type { Lease, LeaseProvider, Peer, PrimaryInfo } from "../cluster/lease.ts";
import { LeaseLostError } from "../cluster/lease.ts";

export interface StaticLeaseOptions {
  /** True on the one node that is the primary for ever. */
  readonly candidate: boolean;
  /** Both describe the primary, on every node. */
  readonly hostname: string;
  readonly advertiseUrl: string;
}

/** The configuration decides once who the primary is. There is no failover and no handoff. */
export class StaticLeaseProvider implements LeaseProvider {
  readonly kind = "static";
  readonly hostname: string;
  readonly advertiseUrl: string;
  readonly #candidate: boolean;

  constructor(options: StaticLeaseOptions) {
    this.#candidate = options.candidate;
    this.hostname = options.hostname;
    this.advertiseUrl = options.advertiseUrl;
  }

  acquire(): Promise<Lease | undefined> {
    return Promise.resolve(this.#candidate ? staticLease : undefined);
  }

  adopt(): Promise<Lease> {
    return Promise.reject(new LeaseLostError("a static lease cannot be handed over"));
  }

  primaryInfo(): Promise<PrimaryInfo | undefined> {
    if (this.#candidate) return Promise.resolve(undefined);
    return Promise.resolve({ hostname: this.hostname, advertiseUrl: this.advertiseUrl });
  }

  /** Never: only the end of the wait ends it. */
  changed(signal: AbortSignal): Promise<void> {
    return new Promise((_resolve, reject) => {
      const onAbort = (): void => reject(new Error("aborted", { cause: signal.reason }));
      if (signal.aborted) onAbort();
      else signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Nothing is shared between the nodes, so nobody can know. */
  clusterId(): Promise<string | undefined> {
    return Promise.resolve(undefined);
  }

  claimClusterId(id: string): Promise<string> {
    return Promise.resolve(id);
  }

  announce(): Promise<void> {
    return Promise.resolve();
  }

  peers(): Promise<readonly Peer[]> {
    return Promise.resolve([]);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Nothing can take this lease away, so renewing and closing it have nothing to do. */
const staticLease: Lease = {
  id: "static",
  token: 0,
  ttlMs: Infinity,
  expiresAtMonotonicMs: () => Infinity,
  renew: () => Promise.resolve(),
  close: () => Promise.resolve(),
};
