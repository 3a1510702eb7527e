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
}

/** Undefined, after saying so, where there is none to be had. */
export async function startBackend(name: BackendName): Promise<Backend | undefined> {
  if (name === "etcd") {
    const etcd = await startEtcd();
    if (etcd === undefined) return undefined;
    const { url, process } = etcd;
    const lease = ["type: etcd", `etcd: {endpoints: ["${url}"], key: KEY, ttl: 2s}`];
    return { port: Number(new URL(url).port), process, lease, ttlMs: 2_000 };
  }
  const consul = await startConsul();
  if (consul === undefined) return undefined;
  const { url, process } = consul;
  const lease = ["type: consul", `consul: {url: "${url}", key: KEY, ttl: 10s, lock-delay: 100ms}`];
  return { port: Number(new URL(url).port), process, lease, ttlMs: 10_000 };
}
