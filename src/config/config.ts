import type { SyncRule } from "../cluster/sync/quorum.ts";

/**
 * A configuration file after parsing, defaults and validation. Property names are the keys of the
 * file in camel case, with the unit appended where there is one; schema.ts holds kinds, defaults
 * and meanings, and a test proves that the two agree.
 */
export interface Config {
  readonly exitOnError: boolean;
  readonly skipSync: boolean;
  readonly strictVerify: boolean;
  readonly exec: readonly ExecEntry[];
  readonly data: DataConfig;
  readonly fuse: FuseConfig;
  readonly http: HttpConfig;
  readonly proxy: ProxyConfig;
  readonly lease: LeaseConfig;
  readonly forward: ForwardConfig;
  readonly sync: SyncConfig;
  readonly backup: BackupConfig;
  readonly log: LogConfig;
  readonly tracing: TracingConfig;
}

/** One command of `exec`, split into words already. */
export interface ExecEntry {
  readonly argv: readonly string[];
  readonly ifCandidate: boolean;
}

export interface DataConfig {
  readonly dir: string;
  readonly compress: boolean;
  readonly retentionMs: number;
  readonly retentionMonitorIntervalMs: number;
  readonly verify: "unclean" | "start" | "never";
  readonly verifyIntervalMs: number;
  readonly verifyRateMegabytes: number;
  readonly keptCopies: number;
  readonly keptCopiesMaxSizeMegabytes: number;
}

export interface FuseConfig {
  readonly dir: string;
  readonly allowOther: boolean;
  readonly debug: boolean;
  readonly locks: "auto" | "kernel" | "daemon";
  readonly spinMs: number;
  readonly idlePolling: "auto" | "on" | "off";
}

export interface HttpConfig {
  readonly addr: string;
  readonly snapshotTimeoutMs: number;
}

export interface ProxyConfig {
  readonly addr: string;
  readonly target: string;
  readonly db: string;
  readonly maxLagMs: number;
  readonly debug: boolean;
  readonly passthrough: readonly string[];
  readonly alwaysForward: readonly string[];
  readonly primaryRedirectTimeoutMs: number;
  readonly readTimeoutMs: number;
  readonly readHeaderTimeoutMs: number;
  readonly writeTimeoutMs: number;
  readonly idleTimeoutMs: number;
}

export interface LeaseConfig {
  /** The empty string only before validation. */
  readonly type: "" | "static" | "consul" | "etcd";
  readonly hostname: string;
  readonly advertiseUrl: string;
  readonly candidate: boolean;
  readonly promote: boolean;
  readonly reconnectDelayMs: number;
  readonly demoteDelayMs: number;
  readonly databases: readonly string[];
  readonly consul: ConsulConfig;
  readonly etcd: EtcdConfig;
}

export interface ConsulConfig {
  readonly url: string;
  readonly key: string;
  readonly ttlMs: number;
  readonly lockDelayMs: number;
}

export interface EtcdConfig {
  readonly endpoints: readonly string[];
  readonly key: string;
  readonly ttlMs: number;
  readonly username: string;
  readonly password: string;
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

export interface ForwardConfig {
  readonly enabled: boolean;
  readonly lingerMs: number;
  readonly timeoutMs: number;
}

export interface SyncConfig {
  readonly replicas: SyncRule;
  readonly databases: Readonly<Record<string, SyncRule>>;
  readonly nodes: number;
  readonly timeoutMs: number;
  readonly onTimeout: "refuse" | "async";
}

export interface BackupConfig {
  readonly type: "" | "file" | "litefs-cloud";
  readonly path: string;
  readonly url: string;
  readonly cluster: string;
  readonly authToken: string;
}

export interface LogConfig {
  readonly format: "text" | "json";
  readonly timestamp: boolean;
  readonly debug: boolean;
}

export interface TracingConfig {
  readonly enabled: boolean;
  readonly path: string;
  readonly maxSizeMegabytes: number;
  readonly maxCount: number;
  readonly compress: boolean;
}
