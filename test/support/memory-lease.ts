import type { Lease, LeaseProvider, Peer, PrimaryInfo } from "../../src/cluster/lease.ts";
import { LeaseLostError } from "../../src/cluster/lease.ts";
import type { Clock } from "../../src/lib/clock.ts";

interface Held {
  readonly id: string;
  readonly ttlMs: number;
  token: number;
  holder: PrimaryInfo;
  expiresAtMs: number;
}

/** What Consul or etcd would keep, in memory: one lease, the cluster's id, the candidates. */
export class MemoryLeaseStore {
  readonly clock: Clock;
  clusterId: string | undefined;
  readonly peers: Map<string, Peer> = new Map<string, Peer>();
  #held: Held | undefined;
  #nextId = 1;
  #lastToken = 0;
  readonly #watchers = new Set<() => void>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  get held(): Held | undefined {
    if (this.#held !== undefined && this.clock.monotonicMs() >= this.#held.expiresAtMs) {
      this.#held = undefined;
    }
    return this.#held;
  }

  take(holder: PrimaryInfo, ttlMs: number): Held | undefined {
    if (this.held !== undefined) return undefined;
    const expiresAtMs = this.clock.monotonicMs() + ttlMs;
    const token = this.nextToken();
    this.#held = { id: `lease-${this.#nextId++}`, token, ttlMs, holder, expiresAtMs };
    this.notify();
    return this.#held;
  }

  nextToken(): number {
    this.#lastToken += 10;
    return this.#lastToken;
  }

  /** Ends the lease as an operator or an expiry does it. */
  drop(): void {
    this.#held = undefined;
    this.notify();
  }

  notify(): void {
    for (const watcher of this.#watchers) watcher();
    this.#watchers.clear();
  }

  watch(signal: AbortSignal): Promise<void> {
    const changed = new Promise<void>((resolve, reject) => {
      if (signal.aborted) return reject(new Error("aborted"));
      this.#watchers.add(resolve);
      signal.addEventListener("abort", () => reject(new Error("aborted")), { once: true });
    });
    const { held, clock } = this;
    if (held === undefined) return changed;
    const expired = clock.sleep(held.expiresAtMs - clock.monotonicMs(), signal);
    return Promise.race([changed, expired]);
  }
}

/** A lease provider over the memory of one process, which a test can make unreachable. */
export class MemoryLeaseProvider implements LeaseProvider {
  readonly kind = "memory";
  readonly hostname: string;
  readonly advertiseUrl: string;
  readonly store: MemoryLeaseStore;
  readonly ttlMs: number;
  /** Every call fails while this is set. */
  isUnreachable = false;
  /** The calls made, in order. */
  readonly calls: string[] = [];

  constructor(store: MemoryLeaseStore, self: PrimaryInfo, ttlMs = 10_000) {
    this.store = store;
    this.hostname = self.hostname;
    this.advertiseUrl = self.advertiseUrl;
    this.ttlMs = ttlMs;
  }

  async acquire(): Promise<Lease | undefined> {
    await this.#call("acquire");
    const held = this.store.take(this, this.ttlMs);
    return held === undefined ? undefined : this.#lease(held, this.store.clock.monotonicMs());
  }

  async adopt(leaseId: string): Promise<Lease> {
    await this.#call("adopt");
    const { held, clock } = this.store;
    if (held?.id !== leaseId) throw new LeaseLostError("the lease is gone");
    held.holder = { hostname: this.hostname, advertiseUrl: this.advertiseUrl };
    held.expiresAtMs = clock.monotonicMs() + held.ttlMs;
    held.token = this.store.nextToken();
    this.store.notify();
    return this.#lease(held, clock.monotonicMs());
  }

  async primaryInfo(): Promise<PrimaryInfo | undefined> {
    await this.#call("primaryInfo");
    const { held } = this.store;
    if (held === undefined) return undefined;
    const { hostname, advertiseUrl } = held.holder;
    return { hostname, advertiseUrl, token: held.token };
  }

  changed(signal: AbortSignal): Promise<void> {
    if (this.isUnreachable) return Promise.reject(new Error("the backend is unreachable"));
    return this.store.watch(signal);
  }

  async clusterId(): Promise<string | undefined> {
    await this.#call("clusterId");
    return this.store.clusterId;
  }

  async claimClusterId(id: string): Promise<string> {
    await this.#call("claimClusterId");
    this.store.clusterId ??= id;
    return this.store.clusterId;
  }

  async announce(self: Peer): Promise<void> {
    await this.#call("announce");
    this.store.peers.set(self.nodeId, self);
  }

  async peers(): Promise<readonly Peer[]> {
    await this.#call("peers");
    return [...this.store.peers.values()];
  }

  close(): Promise<void> {
    this.calls.push("close");
    return Promise.resolve();
  }

  async #call(name: string): Promise<void> {
    this.calls.push(name);
    await new Promise((resolve) => setImmediate(resolve));
    if (this.isUnreachable) throw new Error("the backend is unreachable");
  }

  #lease({ id, token }: Held, renewedAtMs: number): Lease {
    const { store } = this;
    let sentAtMs = renewedAtMs;
    return {
      id,
      token,
      ttlMs: this.ttlMs,
      expiresAtMonotonicMs: () => sentAtMs + this.ttlMs,
      renew: async () => {
        const nowMs = store.clock.monotonicMs();
        await this.#call("renew");
        if (store.held?.id !== id) throw new LeaseLostError("the lease is gone");
        store.held.expiresAtMs = store.clock.monotonicMs() + this.ttlMs;
        sentAtMs = nowMs;
      },
      close: async () => {
        await this.#call("release");
        if (store.held?.id === id) store.drop();
      },
    };
  }
}
