import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Lease, LeaseProvider } from "../../src/cluster/lease.ts";
import { LeaseLostError } from "../../src/cluster/lease.ts";
import { ConsulLeaseProvider } from "../../src/lease/consul.ts";
import { EtcdLeaseProvider } from "../../src/lease/etcd.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { waitFor } from "../support/cluster.ts";
import { MemoryLeaseProvider, MemoryLeaseStore } from "../support/memory-lease.ts";
import type { ServerProcess } from "../support/servers/server-process.ts";
import { startConsul } from "../support/servers/consul.ts";
import { startEtcd } from "../support/servers/etcd.ts";

interface Backend {
  /** A provider for a node of this name; those with the same key compete. */
  provider(name: string, key: string): LeaseProvider;
  /** Ends a lease in the backend itself, as its expiry would. */
  expire(lease: Lease, key: string): Promise<void>;
  readonly server?: ServerProcess;
}

interface BackendKind {
  readonly name: string;
  start(): Promise<Backend | undefined>;
}

const NO_TLS = { verify: true };

function urlOf(name: string): string {
  return `http://${name}:20202`;
}

const kinds: readonly BackendKind[] = [
  {
    name: "memory",
    start: () => {
      const stores = new Map<string, MemoryLeaseStore>();
      const storeOf = (key: string): MemoryLeaseStore => {
        const store = stores.get(key) ?? new MemoryLeaseStore(systemClock);
        stores.set(key, store);
        return store;
      };
      return Promise.resolve({
        provider: (name, key) =>
          new MemoryLeaseProvider(storeOf(key), { hostname: name, advertiseUrl: urlOf(name) }),
        expire: (_lease, key) => Promise.resolve(storeOf(key).drop()),
      });
    },
  },
  {
    name: "consul",
    start: async () => {
      const server = await startConsul();
      if (server === undefined) return undefined;
      const url = `${server.url}/a/prefix`;
      return {
        server: server.process,
        provider: (name, key) =>
          new ConsulLeaseProvider({
            hostname: name,
            advertiseUrl: urlOf(name),
            url,
            key,
            token: "",
            tls: NO_TLS,
            ttlMs: 10_000,
            lockDelayMs: 100,
            clock: systemClock,
          }),
        expire: async (lease) => {
          await fetch(`${server.url}/v1/session/destroy/${lease.id}`, { method: "PUT" });
        },
      };
    },
  },
  {
    name: "etcd",
    start: async () => {
      const server = await startEtcd();
      if (server === undefined) return undefined;
      return {
        server: server.process,
        provider: (name, key) =>
          new EtcdLeaseProvider({
            hostname: name,
            advertiseUrl: urlOf(name),
            // A dead endpoint in front: the next one is asked.
            endpoints: ["http://127.0.0.1:1", server.url],
            key,
            username: "",
            password: "",
            tls: NO_TLS,
            ttlMs: 5_000,
            clock: systemClock,
          }),
        expire: async (lease) => {
          const body = JSON.stringify({ ID: lease.id });
          await fetch(`${server.url}/v3/lease/revoke`, { method: "POST", body });
        },
      };
    },
  },
];

describe.each(kinds)("a lease of $name", (kind) => {
  let backend: Backend | undefined;
  const providers: LeaseProvider[] = [];

  beforeAll(async () => {
    backend = await kind.start();
  }, 180_000);

  afterAll(async () => {
    for (const provider of providers) await provider.close();
    await backend?.server?.dispose();
  });

  /** Two nodes that compete for a key of their own. */
  function competitors(): { a: LeaseProvider; b: LeaseProvider; key: string; at: Backend } {
    if (backend === undefined) throw new Error("the backend is missing");
    const key = `litefs/${randomBytes(4).toString("hex")}`;
    const pair = { a: backend.provider("a", key), b: backend.provider("b", key) };
    providers.push(pair.a, pair.b);
    return { ...pair, key, at: backend };
  }

  /** Expired leases may be held back for a moment by a lock-delay. */
  async function acquireEventually(provider: LeaseProvider): Promise<Lease> {
    for (let attempt = 0; attempt < 500; attempt++) {
      const lease = await provider.acquire();
      if (lease !== undefined) return lease;
      await sleep(20);
    }
    throw new Error("the lease never became free");
  }

  test("has one holder, whom everybody sees", async ({ skip }) => {
    if (backend === undefined) return skip();
    const { a, b } = competitors();
    expect(await a.primaryInfo()).toBeUndefined();
    const [one, two] = await Promise.all([a.acquire(), b.acquire()]);
    const lease = one ?? two;
    expect([one, two].filter((held) => held !== undefined)).toHaveLength(1);
    const holder = one === undefined ? "b" : "a";
    for (const provider of [a, b]) {
      expect(await provider.primaryInfo()).toEqual({
        hostname: holder,
        advertiseUrl: urlOf(holder),
        token: lease?.token,
      });
    }
    await lease?.close();
    expect(await a.primaryInfo()).toBeUndefined();
  });

  test("covers commits for one TTL from the sending of a renewal", async ({ skip }) => {
    if (backend === undefined) return skip();
    const { a } = competitors();
    const before = systemClock.monotonicMs();
    const lease = await acquireEventually(a);
    const first = lease.expiresAtMonotonicMs();
    expect(first).toBeGreaterThanOrEqual(before + lease.ttlMs);
    expect(first).toBeLessThanOrEqual(systemClock.monotonicMs() + lease.ttlMs);
    const renewedAt = systemClock.monotonicMs();
    await lease.renew();
    expect(lease.expiresAtMonotonicMs()).toBeGreaterThanOrEqual(renewedAt + lease.ttlMs);
    expect(lease.expiresAtMonotonicMs()).toBeLessThanOrEqual(
      systemClock.monotonicMs() + lease.ttlMs,
    );
    await lease.close();
  });

  test("given up, it is free at once", async ({ skip }) => {
    if (backend === undefined) return skip();
    const { a, b } = competitors();
    const lease = await acquireEventually(a);
    expect(await b.acquire()).toBeUndefined();
    await lease.close();
    const next = await b.acquire();
    expect(next).toBeDefined();
    expect((await a.primaryInfo())?.hostname).toBe("b");
    await next?.close();
  });

  test("every holder has a greater token than the one before", async ({ skip }) => {
    if (backend === undefined) return skip();
    const { a, b, key, at } = competitors();
    const first = await acquireEventually(a);
    expect(Number.isSafeInteger(first.token)).toBe(true);
    expect(first.token).toBeGreaterThan(0);
    const { token } = first;
    await first.renew();
    expect(first.token).toBe(token);
    await first.close();
    const second = await acquireEventually(b);
    expect(second.token).toBeGreaterThan(first.token);
    const third = await a.adopt(second.id);
    expect(third.token).toBeGreaterThan(second.token);
    expect((await b.primaryInfo())?.token).toBe(third.token);
    await at.expire(third, key);
    const fourth = await acquireEventually(b);
    expect(fourth.token).toBeGreaterThan(third.token);
    await fourth.close();
  });

  test("once ended, it is lost to its holder and free for others", async ({ skip }) => {
    if (backend === undefined) return skip();
    const { a, b, key, at } = competitors();
    const lease = await acquireEventually(a);
    const expiry = lease.expiresAtMonotonicMs();
    await at.expire(lease, key);
    await expect(lease.renew()).rejects.toBeInstanceOf(LeaseLostError);
    // A renewal that failed covers nothing.
    expect(lease.expiresAtMonotonicMs()).toBe(expiry);
    const next = await acquireEventually(b);
    await expect(lease.renew()).rejects.toBeInstanceOf(LeaseLostError);
    await next.renew();
    await next.close();
  });

  test("passes to another node, and its first holder cannot tell it from a loss", async ({
    skip,
  }) => {
    if (backend === undefined) return skip();
    const { a, b } = competitors();
    const lease = await acquireEventually(a);
    const adopted = await b.adopt(lease.id);
    expect(await a.primaryInfo()).toMatchObject({ hostname: "b", advertiseUrl: urlOf("b") });
    await adopted.renew();
    expect(await a.acquire()).toBeUndefined();
    await adopted.close();
  });

  test("that is gone cannot be adopted", async ({ skip }) => {
    if (backend === undefined) return skip();
    const { a, b, key, at } = competitors();
    const lease = await acquireEventually(a);
    await at.expire(lease, key);
    await expect(b.adopt(lease.id)).rejects.toBeInstanceOf(LeaseLostError);
    const next = await acquireEventually(a);
    await expect(b.adopt(lease.id)).rejects.toBeInstanceOf(LeaseLostError);
    await next.close();
  });

  test("tells watchers of a change", async ({ skip }) => {
    if (backend === undefined) return skip();
    const { a, b } = competitors();
    const lease = await acquireEventually(a);
    await b.primaryInfo();
    const changed = b.changed(new AbortController().signal);
    await lease.close();
    await changed;
    await waitFor("the primary to be gone", 10_000, async () =>
      (await b.primaryInfo()) === undefined ? undefined : "still there",
    );
    const stop = new AbortController();
    const stopped = b.changed(stop.signal);
    stop.abort();
    await expect(stopped).rejects.toThrow();
  });

  test("keeps the first cluster id", async ({ skip }) => {
    if (backend === undefined) return skip();
    const { a, b } = competitors();
    expect(await a.clusterId()).toBeUndefined();
    expect(await a.claimClusterId("LFSC0000000000000001")).toBe("LFSC0000000000000001");
    expect(await b.claimClusterId("LFSC0000000000000002")).toBe("LFSC0000000000000001");
    expect(await b.clusterId()).toBe("LFSC0000000000000001");
  });

  test("knows the candidates", async ({ skip }) => {
    if (backend === undefined) return skip();
    const { a, b } = competitors();
    const peerOf = ({ hostname, advertiseUrl }: LeaseProvider, nodeId: string) => ({
      nodeId,
      hostname,
      advertiseUrl,
    });
    expect(await a.peers()).toEqual([]);
    const [one, two] = [peerOf(a, "00000000000000A1"), peerOf(b, "00000000000000B2")];
    await a.announce(one);
    await b.announce(two);
    await a.announce(one);
    const byId = [...(await a.peers())].sort((x, y) => x.nodeId.localeCompare(y.nodeId));
    expect(byId).toEqual([one, two]);
  });
});

test("every backend fails within its deadline when nobody answers", async () => {
  const common = { hostname: "a", advertiseUrl: urlOf("a"), key: "k", tls: NO_TLS };
  const lease = { ttlMs: 10_000, clock: systemClock };
  const providers = [
    new ConsulLeaseProvider({
      ...common,
      ...lease,
      url: "http://127.0.0.1:1",
      token: "",
      lockDelayMs: 0,
    }),
    new EtcdLeaseProvider({
      ...common,
      ...lease,
      endpoints: ["http://127.0.0.1:1"],
      username: "",
      password: "",
    }),
  ];
  for (const provider of providers) {
    for (const call of [
      () => provider.acquire(),
      () => provider.primaryInfo(),
      () => provider.clusterId(),
      () => provider.changed(new AbortController().signal),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: "LEASE_BACKEND_UNREACHABLE" });
    }
    await provider.close();
  }
});
