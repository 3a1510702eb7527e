import type { ConsulConfig, EtcdConfig } from "./config.ts";
import type { Environment } from "./expand-env.ts";

/** Where Consul is, as Fly.io and Consul's own tools are told; the file comes first. */
export function withConsulDefaults(consul: ConsulConfig, env: Environment): ConsulConfig {
  return {
    ...consul,
    url: consul.url || env["FLY_CONSUL_URL"] || consulAddress(env),
    key: consul.key || defaultKey(env),
  };
}

export function withEtcdDefaults(etcd: EtcdConfig, env: Environment): EtcdConfig {
  const fromEnv = (env["ETCDCTL_ENDPOINTS"] ?? "").split(",").filter((text) => text !== "");
  const endpoints = etcd.endpoints.length > 0 ? etcd.endpoints : fromEnv;
  return { ...etcd, endpoints: endpoints.map(withScheme), key: etcd.key || defaultKey(env) };
}

/** CONSUL_HTTP_ADDR may be without a scheme. */
function consulAddress(env: Environment): string {
  const address = env["CONSUL_HTTP_ADDR"] ?? "";
  if (address === "" || address.includes("://")) return address;
  const isTls = /^(?:1|t|true)$/i.test(env["CONSUL_HTTP_SSL"] ?? "");
  return `${isTls ? "https" : "http"}://${address}`;
}

function withScheme(endpoint: string): string {
  return endpoint.includes("://") ? endpoint : `http://${endpoint}`;
}

/** One for each cluster. Two applications with one Consul and no key would fight for the lease. */
function defaultKey(env: Environment): string {
  return `litefs/${env["FLY_APP_NAME"] || "primary"}`;
}
