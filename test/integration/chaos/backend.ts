import { startConsul } from "../../support/servers/consul.ts";
import { startEtcd } from "../../support/servers/etcd.ts";
import type { ServerProcess } from "../../support/servers/server-process.ts";

export type BackendName = "etcd" | "consul";

/** The real server that holds the lease. */
export interface Backend {
  readonly port: number;
  readonly process: ServerProcess;
  /** Of the `lease` section of a node. */
  readonly lease: readonly string[];
  readonly ttlMs: number;
  /** Who has the lease, as a text that is another one in each term; undefined for nobody. */
  readonly holder: (key: string, signal: AbortSignal) => Promise<string | undefined>;
}

/** Undefined, after saying so, where there is none to be had. */
export async function startBackend(name: BackendName): Promise<Backend | undefined> {
  if (name === "etcd") {
    const etcd = await startEtcd();
    if (etcd === undefined) return undefined;
    const { url, process } = etcd;
    const lease = ["type: etcd", `etcd: {endpoints: ["${url}"], key: KEY, ttl: 2s}`];
    const holder: Backend["holder"] = async (key, signal) => {
      const body = JSON.stringify({ key: Buffer.from(key).toString("base64") });
      const answer = await fetch(`${url}/v3/kv/range`, { method: "POST", body, signal });
      const { kvs } = (await answer.json()) as { kvs?: { lease?: string; mod_revision: string }[] };
      const [entry] = kvs ?? [];
      return entry?.lease === undefined ? undefined : `${entry.lease}/${entry.mod_revision}`;
    };
    return { port: Number(new URL(url).port), process, lease, ttlMs: 2_000, holder };
  }
  const consul = await startConsul();
  if (consul === undefined) return undefined;
  const { url, process } = consul;
  const lease = ["type: consul", `consul: {url: "${url}", key: KEY, ttl: 10s, lock-delay: 100ms}`];
  const holder: Backend["holder"] = async (key, signal) => {
    const answer = await fetch(`${url}/v1/kv/${key}`, { signal });
    if (answer.status === 404) return undefined;
    const [entry] = (await answer.json()) as { Session?: string; LockIndex: number }[];
    return entry?.Session === undefined ? undefined : `${entry.Session}/${entry.LockIndex}`;
  };
  return { port: Number(new URL(url).port), process, lease, ttlMs: 10_000, holder };
}
