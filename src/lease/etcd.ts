import type { Lease, LeaseProvider, Peer, PrimaryInfo } from "../cluster/lease.ts";
import {
  decodePeer,
  decodePrimaryInfo,
  encodePeer,
  encodePrimaryInfo,
  LeaseLostError,
} from "../cluster/lease.ts";
import type { Clock } from "../lib/clock.ts";
import type { TlsOptions } from "./consul-api.ts";
import { EtcdApi } from "./etcd-api.ts";

const PRESENCE_TTL_MS = 20_000;
const WATCH_MS = 30_000;
/** Several calls must fit into the TTL. */
const MAX_DEADLINE_MS = 5_000;

export interface EtcdLeaseOptions {
  readonly hostname: string;
  readonly advertiseUrl: string;
  readonly endpoints: readonly string[];
  readonly key: string;
  readonly username: string;
  readonly password: string;
  readonly tls: TlsOptions;
  readonly ttlMs: number;
  readonly clock: Clock;
}

/**
 * The lease as one key that ends with an etcd lease:
 *
 *   <key>              {"hostname", "advertise-url"} of the primary
 *   <key>/clusterid    the id of the cluster
 *   <key>/nodes/<id>   {"id", "hostname", "advertise-url"} of a candidate
 */
export class EtcdLeaseProvider implements LeaseProvider {
  readonly kind = "etcd";
  readonly hostname: string;
  readonly advertiseUrl: string;
  readonly #options: EtcdLeaseOptions;
  readonly #api: EtcdApi;
  /** What `changed` waits for a change after. */
  #revision = "0";
  /** Made for an attempt that failed, and as good for the next one. */
  #spare: GrantedLease | undefined;
  #presence: string | undefined;

  constructor(options: EtcdLeaseOptions) {
    this.hostname = options.hostname;
    this.advertiseUrl = options.advertiseUrl;
    this.#options = options;
    const { endpoints, username, password, tls, ttlMs } = options;
    this.#api = new EtcdApi({
      endpoints,
      username,
      password,
      tls,
      deadlineMs: Math.min(MAX_DEADLINE_MS, ttlMs / 4),
    });
  }

  async acquire(): Promise<Lease | undefined> {
    const granted = await this.#granted();
    this.#spare = granted;
    const { key } = this.#options;
    const result = await this.#api.create(key, encodePrimaryInfo(this), granted.id);
    if (result === "held") {
      // By ourselves, if the answer to an attempt was lost: nobody else could have it then, for ever.
      const [entry] = (await this.#api.range(key)).entries;
      if (entry?.lease !== granted.id) return undefined;
      this.#spare = undefined;
      return this.#lease(granted, entry.modRevision);
    }
    this.#spare = undefined;
    // It ended while it lay idle: the next attempt makes a new one.
    if (result === "lost") return undefined;
    return this.#lease(granted, result.revision);
  }

  async adopt(leaseId: string): Promise<Lease> {
    const renewedAtMs = this.#options.clock.monotonicMs();
    const { key } = this.#options;
    if (!/^\d+$/.test(leaseId) || !(await this.#api.keepAlive(leaseId))) throw lost(key);
    const result = await this.#api.replace(key, encodePrimaryInfo(this), leaseId);
    if (result === "held" || result === "lost") throw lost(key);
    return this.#lease({ id: leaseId, renewedAtMs }, result.revision);
  }

  async primaryInfo(): Promise<PrimaryInfo | undefined> {
    const { key } = this.#options;
    const { entries, revision } = await this.#api.range(key);
    this.#revision = revision;
    const [entry] = entries;
    // Without a lease it is what somebody left there, not a lease that anybody holds.
    if (entry === undefined || entry.lease === "0") return undefined;
    const info = decodePrimaryInfo(entry.value, key);
    return info === undefined ? undefined : { ...info, token: Number(entry.modRevision) };
  }

  async changed(signal: AbortSignal): Promise<void> {
    await this.#api.watch(this.#options.key, this.#revision, WATCH_MS, signal);
  }

  async clusterId(): Promise<string | undefined> {
    const { entries } = await this.#api.range(`${this.#options.key}/clusterid`);
    const id = entries[0]?.value.trim() ?? "";
    return id === "" ? undefined : id;
  }

  async claimClusterId(id: string): Promise<string> {
    await this.#api.create(`${this.#options.key}/clusterid`, id);
    return (await this.clusterId()) ?? id;
  }

  async announce(self: Peer): Promise<void> {
    if (this.#presence !== undefined && (await this.#api.keepAlive(this.#presence))) return;
    this.#presence = undefined;
    const lease = await this.#api.grant(PRESENCE_TTL_MS);
    await this.#api.put(`${this.#options.key}/nodes/${self.nodeId}`, encodePeer(self), lease);
    this.#presence = lease;
  }

  async peers(): Promise<readonly Peer[]> {
    const { entries } = await this.#api.range(`${this.#options.key}/nodes/`, true);
    return entries.map(({ value }) => decodePeer(value)).filter((peer) => peer !== undefined);
  }

  async close(): Promise<void> {
    const leases = [this.#spare?.id, this.#presence];
    this.#spare = undefined;
    this.#presence = undefined;
    try {
      for (const id of leases) if (id !== undefined) await this.#api.revoke(id);
    } finally {
      await this.#api.close();
    }
  }

  async #granted(): Promise<GrantedLease> {
    const { clock, ttlMs } = this.#options;
    const spare = this.#spare;
    const renewedAtMs = clock.monotonicMs();
    if (spare !== undefined) {
      if (renewedAtMs - spare.renewedAtMs < ttlMs / 2) return spare;
      if (await this.#api.keepAlive(spare.id)) return { id: spare.id, renewedAtMs };
      this.#spare = undefined;
    }
    return { id: await this.#api.grant(ttlMs), renewedAtMs };
  }

  /** The revision at which the key got its holder is greater than that of any holder before. */
  #lease({ id, renewedAtMs }: GrantedLease, revision: string): Lease {
    const { clock, ttlMs, key } = this.#options;
    let sentAtMs = renewedAtMs;
    return {
      id,
      token: Number(revision),
      ttlMs,
      expiresAtMonotonicMs: () => sentAtMs + ttlMs,
      renew: async () => {
        const nowMs = clock.monotonicMs();
        if (!(await this.#api.keepAlive(id))) throw lost(key);
        // Somebody may have deleted the key, and somebody else may have it now.
        const { entries } = await this.#api.range(key);
        if (entries[0]?.lease !== id) throw lost(key);
        sentAtMs = nowMs;
      },
      close: () => this.#api.revoke(id),
    };
  }
}

interface GrantedLease {
  readonly id: string;
  readonly renewedAtMs: number;
}

function lost(key: string): LeaseLostError {
  return new LeaseLostError(`the etcd lease that held ${key} has ended`);
}
