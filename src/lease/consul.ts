import * as path from "node:path";
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
import { ConsulApi } from "./consul-api.ts";

/** Consul may end a session only after this. Longer: fewer renewals; shorter: fewer dead entries. */
const PRESENCE_TTL_MS = 20_000;
const WATCH_MS = 30_000;
/** Several calls must fit into the TTL. */
const MAX_DEADLINE_MS = 5_000;

export interface ConsulLeaseOptions {
  readonly hostname: string;
  readonly advertiseUrl: string;
  /** `lease.consul.url`: a password is the ACL token, a path the prefix of keys and node. */
  readonly url: string;
  readonly key: string;
  /** Where the URL has no password. */
  readonly token: string;
  readonly tls: TlsOptions;
  readonly ttlMs: number;
  readonly lockDelayMs: number;
  readonly clock: Clock;
}

/**
 * The lease as a lock on one key, laid out as LiteFS does it, so that both can compete for it:
 *
 *   <prefix>/<key>              {"hostname", "advertise-url"} of the primary, held by its session
 *   <prefix>/<key>/clusterid    the id of the cluster
 *   <prefix>/<key>/nodes/<id>   our own: {"id", "hostname", "advertise-url"} of a candidate
 */
export class ConsulLeaseProvider implements LeaseProvider {
  readonly kind = "consul";
  readonly hostname: string;
  readonly advertiseUrl: string;
  readonly #options: ConsulLeaseOptions;
  readonly #api: ConsulApi;
  readonly #key: string;
  readonly #node: string | undefined;
  /** The answer that `changed` waits for a successor of. */
  #index = "0";
  /** Made for an attempt that failed, and as good for the next one. */
  #spare: Session | undefined;
  #presence: { readonly session: string; readonly key: string } | undefined;
  #isNodeRegistered = false;

  constructor(options: ConsulLeaseOptions) {
    const url = new URL(options.url);
    const prefix = decodeURIComponent(url.pathname).replaceAll(/^\/+|\/+$/g, "");
    this.hostname = options.hostname;
    this.advertiseUrl = options.advertiseUrl;
    this.#options = options;
    this.#key = path.posix.join(prefix, options.key);
    this.#node = prefix === "" ? undefined : `${prefix}/litefs`;
    this.#api = new ConsulApi({
      origin: url.origin,
      token: url.password === "" ? options.token : decodeURIComponent(url.password),
      tls: options.tls,
      deadlineMs: Math.min(MAX_DEADLINE_MS, options.ttlMs / 4),
    });
  }

  async acquire(): Promise<Lease | undefined> {
    const session = await this.#session();
    this.#spare = session;
    const result = await this.#api.acquire(this.#key, encodePrimaryInfo(this), session.id);
    if (result === "held") return undefined;
    // Until then it stays the spare one: an attempt that fails here may be made again with it.
    const token = result === "ok" ? await this.#token(session.id) : undefined;
    this.#spare = undefined;
    // A session that ended while it lay idle: the next attempt makes a new one.
    if (token === undefined) return undefined;
    return this.#lease(session, token);
  }

  async adopt(leaseId: string): Promise<Lease> {
    const renewedAtMs = this.#options.clock.monotonicMs();
    if (!(await this.#api.renewSession(leaseId))) throw lost(this.#key);
    const result = await this.#api.acquire(this.#key, encodePrimaryInfo(this), leaseId);
    const token = result === "ok" ? await this.#token(leaseId) : undefined;
    if (token === undefined) throw lost(this.#key);
    return this.#lease({ id: leaseId, renewedAtMs }, token);
  }

  async primaryInfo(): Promise<PrimaryInfo | undefined> {
    const { entry, index } = await this.#api.get(this.#key);
    this.#index = index;
    // Without a session it is what somebody left there, not a lease that anybody holds.
    if (entry?.session === undefined) return undefined;
    const info = decodePrimaryInfo(entry.value, this.#key);
    return info === undefined ? undefined : { ...info, token: entry.modifyIndex };
  }

  async changed(signal: AbortSignal): Promise<void> {
    await this.#api.watch(this.#key, this.#index, WATCH_MS, signal);
  }

  async clusterId(): Promise<string | undefined> {
    const { entry } = await this.#api.get(`${this.#key}/clusterid`);
    const id = entry?.value.trim() ?? "";
    return id === "" ? undefined : id;
  }

  async claimClusterId(id: string): Promise<string> {
    await this.#api.create(`${this.#key}/clusterid`, id);
    return (await this.clusterId()) ?? id;
  }

  async announce(self: Peer): Promise<void> {
    if (this.#presence !== undefined) {
      if (await this.#api.renewSession(this.#presence.session)) return;
      this.#presence = undefined;
    }
    const session = await this.#createSession("litefs-node", PRESENCE_TTL_MS);
    const key = `${this.#key}/nodes/${self.nodeId}`;
    this.#presence = { session, key };
    await this.#api.acquire(key, encodePeer(self), session);
  }

  async peers(): Promise<readonly Peer[]> {
    const entries = await this.#api.list(`${this.#key}/nodes/`);
    return entries.map(({ value }) => decodePeer(value)).filter((peer) => peer !== undefined);
  }

  async close(): Promise<void> {
    const sessions = [this.#spare?.id, this.#presence?.session];
    this.#spare = undefined;
    this.#presence = undefined;
    try {
      for (const id of sessions) if (id !== undefined) await this.#api.destroySession(id);
    } finally {
      this.#api.close();
    }
  }

  async #session(): Promise<Session> {
    const { clock, ttlMs } = this.#options;
    const spare = this.#spare;
    if (spare !== undefined) {
      if (clock.monotonicMs() - spare.renewedAtMs < ttlMs / 2) return spare;
      const renewedAtMs = clock.monotonicMs();
      if (await this.#api.renewSession(spare.id)) return { id: spare.id, renewedAtMs };
      this.#spare = undefined;
    }
    const renewedAtMs = clock.monotonicMs();
    return { id: await this.#createSession("litefs", ttlMs), renewedAtMs };
  }

  async #createSession(name: string, ttlMs: number): Promise<string> {
    if (this.#node !== undefined && !this.#isNodeRegistered) {
      await this.#api.registerNode(this.#node);
      this.#isNodeRegistered = true;
    }
    const { lockDelayMs } = this.#options;
    return await this.#api.createSession({ name, ttlMs, lockDelayMs, node: this.#node });
  }

  /** Where the key got its holder, in Consul's log; undefined when it has another one by now. */
  async #token(session: string): Promise<number | undefined> {
    const { entry } = await this.#api.get(this.#key);
    return entry?.session === session ? entry.modifyIndex : undefined;
  }

  #lease({ id, renewedAtMs }: Session, token: number): Lease {
    const { clock, ttlMs } = this.#options;
    let sentAtMs = renewedAtMs;
    return {
      id,
      token,
      ttlMs,
      expiresAtMonotonicMs: () => sentAtMs + ttlMs,
      renew: async () => {
        const nowMs = clock.monotonicMs();
        if (!(await this.#api.renewSession(id))) throw lost(this.#key);
        // A lock is advisory: somebody may have deleted the key, and somebody else may have it now.
        const { entry } = await this.#api.get(this.#key);
        if (entry?.session !== id) throw lost(this.#key);
        sentAtMs = nowMs;
      },
      close: async () => {
        await this.#api.release(this.#key, id);
        await this.#api.destroySession(id);
      },
    };
  }
}

interface Session {
  readonly id: string;
  readonly renewedAtMs: number;
}

function lost(key: string): LeaseLostError {
  return new LeaseLostError(`the session that held the lease ${key} has ended`);
}
