import * as path from "node:path";
import type { SyncRule } from "../cluster/sync/quorum.ts";
import { isDatabaseName } from "../wire/database-name.ts";
import type { Config, ConsulConfig, EtcdConfig, LeaseConfig } from "./config.ts";
import { ConfigError } from "./config-error.ts";
import type { Environment } from "./expand-env.ts";
import { withConsulDefaults, withEtcdDefaults } from "./lease-defaults.ts";
import type { ParsedConfig } from "./parse.ts";

/** What the checks need to know of the machine. */
export interface Machine {
  readonly hostname: string;
  readonly currentDirectory: string;
}

const CONSUL_TTL_MIN_MS = 10_000;
const ETCD_TTL_MIN_MS = 2_000;

/**
 * Checks what no single key can tell, and fills in the defaults that depend on other keys.
 * Directories become absolute, so that nothing later depends on the current directory.
 */
export function validateConfig(
  parsed: ParsedConfig,
  machine: Machine,
  env: Environment = {},
): Config {
  const check = new Check(parsed);
  const { config } = parsed;
  const dataDir = check.directory("data.dir", config.data.dir, machine);
  const fuseDir = check.directory("fuse.dir", config.fuse.dir, machine);
  check.directoriesApart(dataDir, fuseDir);
  const port = check.port("http.addr", config.http.addr);
  check.proxy();
  check.backup();
  check.sync();
  return {
    ...config,
    data: { ...config.data, dir: dataDir },
    fuse: { ...config.fuse, dir: fuseDir },
    lease: check.lease(port, machine, env),
  };
}

class Check {
  readonly #parsed: ParsedConfig;
  readonly #config: Config;

  constructor(parsed: ParsedConfig) {
    this.#parsed = parsed;
    this.#config = parsed.config;
  }

  directory(key: string, directory: string, machine: Machine): string {
    if (directory === "") throw this.#error(key, `${key} must not be empty`);
    return path.resolve(machine.currentDirectory, directory);
  }

  /** The mount hides what is under it, so the data would vanish behind itself, or recurse. */
  directoriesApart(dataDir: string, fuseDir: string): void {
    const key = this.#parsed.lines.has("data.dir") ? "data.dir" : "fuse.dir";
    if (dataDir === fuseDir) {
      throw this.#error(key, `data.dir and fuse.dir must differ, both are ${dataDir}`);
    }
    if (isInside(dataDir, fuseDir)) {
      throw this.#error(key, `data.dir ${dataDir} must not be inside fuse.dir ${fuseDir}`);
    }
    if (isInside(fuseDir, dataDir)) {
      throw this.#error(key, `fuse.dir ${fuseDir} must not be inside data.dir ${dataDir}`);
    }
  }

  /** The port of `host:port` or `:port`. */
  port(key: string, address: string): number {
    const match = /^(?:\[[^\]]*\]|[^:[\]]*):(\d{1,5})$/.exec(address);
    const port = Number(match?.[1] ?? NaN);
    if (port <= 65535) return port;
    throw this.#error(key, `${key} must have the form host:port or :port, not "${address}"`);
  }

  proxy(): void {
    const { target, addr, db } = this.#config.proxy;
    if (target === "") return;
    this.port("proxy.target", target);
    if (addr === "") throw this.#error("proxy.addr", "proxy.addr is required with proxy.target");
    if (db === "") throw this.#error("proxy.db", "proxy.db is required with proxy.target");
    this.port("proxy.addr", addr);
  }

  backup(): void {
    const { type, path: directory } = this.#config.backup;
    if (type === "file" && directory === "") {
      throw this.#error("backup.path", "backup.path is required with backup.type file");
    }
  }

  sync(): void {
    const { replicas, databases, nodes, timeoutMs } = this.#config.sync;
    const rules: [string, SyncRule][] = [["sync.replicas", replicas]];
    for (const [name, rule] of Object.entries(databases)) {
      if (!isDatabaseName(name)) {
        throw this.#error("sync.databases", `sync.databases: "${name}" is no name of a database`);
      }
      rules.push([`sync.databases: ${name}`, rule]);
    }
    for (const [key, rule] of rules) {
      const line = key.split(":", 1)[0] ?? key;
      if (typeof rule === "string" && nodes < 2) {
        throw this.#error(line, `${key}: ${rule} needs sync.nodes, the number of nodes, 2 or more`);
      }
      if (typeof rule === "number" && nodes > 0 && rule > nodes - 1) {
        const problem = `${key}: ${rule} replicas are more than a cluster with sync.nodes ${nodes} has`;
        throw this.#error(line, problem);
      }
    }
    if (timeoutMs <= 0) throw this.#error("sync.timeout", "sync.timeout must be more than 0");
  }

  lease(port: number, machine: Machine, env: Environment): LeaseConfig {
    const { lease } = this.#config;
    if (lease.type === "") {
      throw this.#error("lease.type", "lease.type is required: static, consul or etcd");
    }
    if (lease.candidate && lease.databases.length > 0) {
      const problem =
        "lease.databases is not for candidates, which must hold every database: set lease.candidate to false or remove it";
      throw this.#error("lease.databases", problem);
    }
    if (lease.type === "static" && !lease.candidate) this.#replicaOfStatic(lease);
    const consul = lease.type === "consul" ? this.#consul(lease, env) : lease.consul;
    const etcd = lease.type === "etcd" ? this.#etcd(lease, env) : lease.etcd;
    const hostname = lease.hostname === "" ? machine.hostname : lease.hostname;
    const advertiseUrl =
      lease.advertiseUrl === "" ? `http://${hostname}:${port}` : lease.advertiseUrl;
    this.#httpUrl("lease.advertise-url", advertiseUrl);
    return { ...lease, hostname, advertiseUrl, consul, etcd };
  }

  #consul(lease: LeaseConfig, env: Environment): ConsulConfig {
    const consul = withConsulDefaults(lease.consul, env);
    const source =
      "with lease.type consul, where neither FLY_CONSUL_URL nor CONSUL_HTTP_ADDR is set";
    this.#required("lease.consul.url", consul.url, source);
    this.#httpUrl("lease.consul.url", consul.url);
    this.#atLeast("lease.consul.ttl", consul.ttlMs, CONSUL_TTL_MIN_MS, "Consul's minimum");
    return consul;
  }

  #etcd(lease: LeaseConfig, env: Environment): EtcdConfig {
    const etcd = withEtcdDefaults(lease.etcd, env);
    const source = "with lease.type etcd, where ETCDCTL_ENDPOINTS is not set";
    this.#required("lease.etcd.endpoints", etcd.endpoints.join(), source);
    for (const endpoint of etcd.endpoints) this.#httpUrl("lease.etcd.endpoints", endpoint);
    this.#atLeast("lease.etcd.ttl", etcd.ttlMs, ETCD_TTL_MIN_MS, "etcd's minimum");
    return etcd;
  }

  #atLeast(key: string, valueMs: number, leastMs: number, what: string): void {
    if (valueMs >= leastMs) return;
    throw this.#error(key, `${key} must be at least ${leastMs / 1000}s, ${what}`);
  }

  /** Nothing but the file can tell a static replica where its primary is. */
  #replicaOfStatic(lease: LeaseConfig): void {
    const reason = "on a static replica, it names the primary";
    this.#required("lease.hostname", lease.hostname, reason);
    this.#required("lease.advertise-url", lease.advertiseUrl, reason);
  }

  #required(key: string, value: string, reason: string): void {
    if (value === "") throw this.#error(key, `${key} is required ${reason}`);
  }

  #httpUrl(key: string, text: string): void {
    const url = URL.canParse(text) ? new URL(text) : undefined;
    if (url?.protocol === "http:" || url?.protocol === "https:") return;
    throw this.#error(key, `${key} must be an http:// or https:// URL, not "${text}"`);
  }

  #error(key: string, problem: string): ConfigError {
    return new ConfigError(this.#parsed.file, this.#parsed.lines.get(key), problem);
  }
}

function isInside(directory: string, parent: string): boolean {
  const relative = path.relative(parent, directory);
  return relative !== "" && relative !== ".." && !relative.startsWith("../");
}
