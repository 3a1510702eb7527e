import * as fs from "node:fs";
import type { LeaseProvider } from "../cluster/lease.ts";
import type { LeaseConfig } from "../config/config.ts";
import { consulEnvironment } from "../config/consul-environment.ts";
import type { Environment } from "../config/expand-env.ts";
import type { TlsOptions } from "../lease/consul-api.ts";
import { StaticLeaseProvider } from "../lease/static.ts";
import type { Clock } from "../lib/clock.ts";
import { LitefsError } from "../lib/errors.ts";

/** The lease backend of the configuration. What is not used is not loaded. */
export async function createLeaseProvider(
  config: LeaseConfig,
  env: Environment,
  clock: Clock,
): Promise<LeaseProvider> {
  const { hostname, advertiseUrl } = config;
  if (config.type === "consul") {
    const { ConsulLeaseProvider } = await import("../lease/consul.ts");
    const { url, key, ttlMs, lockDelayMs } = config.consul;
    const from = consulEnvironment(env);
    const { verify, serverName } = from;
    const tls: TlsOptions = {
      verify,
      ...pemFiles(from.caFile, from.certFile, from.keyFile),
      ...(serverName === "" ? {} : { serverName }),
    };
    const isInFile = from.token === "" && from.tokenFile !== "";
    const token = isInFile ? readText(from.tokenFile).trim() : from.token;
    return new ConsulLeaseProvider({
      hostname,
      advertiseUrl,
      url,
      key,
      token,
      tls,
      ttlMs,
      lockDelayMs,
      clock,
    });
  }
  if (config.type === "etcd") {
    const { EtcdLeaseProvider } = await import("../lease/etcd.ts");
    const { endpoints, key, username, password, ttlMs, caFile, certFile, keyFile } = config.etcd;
    const tls: TlsOptions = { verify: true, ...pemFiles(caFile, certFile, keyFile) };
    return new EtcdLeaseProvider({
      hostname,
      advertiseUrl,
      endpoints,
      key,
      username,
      password,
      tls,
      ttlMs,
      clock,
    });
  }
  return new StaticLeaseProvider({ candidate: config.candidate, hostname, advertiseUrl });
}

function pemFiles(ca: string, cert: string, key: string): Partial<TlsOptions> {
  return {
    ...(ca === "" ? {} : { ca: readText(ca) }),
    ...(cert === "" ? {} : { cert: readText(cert) }),
    ...(key === "" ? {} : { key: readText(key) }),
  };
}

function readText(file: string): string {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (cause) {
    throw new LitefsError("LEASE_FILE_UNREADABLE", `cannot read ${file} for the lease`, { cause });
  }
}
