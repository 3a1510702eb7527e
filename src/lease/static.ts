import type { Lease, LeaseProvider, PrimaryInfo } from "../cluster/lease.ts";

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

  primaryInfo(): Promise<PrimaryInfo | undefined> {
    if (this.#candidate) return Promise.resolve(undefined);
    return Promise.resolve({ hostname: this.hostname, advertiseUrl: this.advertiseUrl });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Nothing can take this lease away, so renewing and closing it have nothing to do. */
const staticLease: Lease = {
  id: "static",
  expiresAtMonotonicMs: () => Infinity,
  renew: () => Promise.resolve(),
  close: () => Promise.resolve(),
};
