/**
 * Every key of litefs.yml, once. Parsing, defaults, the checks of litefs.yml.example and the
 * documentation come from this table. Keys, kinds and defaults are LiteFS 0.5's except where the
 * meaning says otherwise.
 */
export interface Option {
  /** Path in the file, with dots between the levels. */
  readonly key: string;
  readonly kind: OptionKind;
  /** As it would be written in the file; undefined for an empty string or list. */
  readonly default?: string | boolean | number;
  /** The only values allowed, for kind "choice". */
  readonly choices?: readonly string[];
  /** Appended to the property name in Config, for numbers whose key does not tell their unit. */
  readonly unit?: string;
  readonly meaning: string;
}

export type OptionKind =
  | "bool"
  | "string"
  | "choice"
  | "integer"
  | "duration"
  | "strings"
  | "exec"
  | "sync-rule"
  | "sync-rules";

const top: readonly Option[] = [
  {
    key: "exit-on-error",
    kind: "bool",
    default: true,
    meaning: "Exit when the start fails; false keeps the process alive so that it can be examined.",
  },
  {
    key: "skip-sync",
    kind: "bool",
    default: false,
    meaning: "Start the commands of exec without waiting for the connection to the cluster.",
  },
  {
    key: "strict-verify",
    kind: "bool",
    default: false,
    meaning: "Recompute the checksum of the whole database after each commit; for tests.",
  },
  {
    key: "exec",
    kind: "exec",
    meaning:
      "A command line, or a list of {cmd, if-candidate}: all but the last run to their end one after the other, the last stays.",
  },
];

const data: readonly Option[] = [
  {
    key: "data.dir",
    kind: "string",
    default: "/var/lib/litefs",
    meaning: "Where databases and transaction files are kept; not inside fuse.dir.",
  },
  {
    key: "data.compress",
    kind: "bool",
    default: true,
    meaning: "Compress transaction files with LZ4.",
  },
  {
    key: "data.retention",
    kind: "duration",
    default: "10m",
    meaning: "How long transaction files are kept for replicas that were away.",
  },
  {
    key: "data.retention-monitor-interval",
    kind: "duration",
    default: "1m",
    meaning: "How often old transaction files are looked for; 0 keeps them all.",
  },
  {
    key: "data.verify",
    kind: "choice",
    choices: ["unclean", "start", "never"],
    default: "unclean",
    meaning:
      "When all databases are read and verified in the background: after a start that follows no orderly stop, after each start, or never; not in LiteFS.",
  },
  {
    key: "data.verify-interval",
    kind: "duration",
    default: "0",
    meaning: "How often they are verified besides; 0 means not at all; not in LiteFS.",
  },
  {
    key: "data.verify-rate",
    kind: "integer",
    unit: "Megabytes",
    default: 16,
    meaning: "How many megabytes per second that may read at most; not in LiteFS.",
  },
  {
    key: "data.kept-copies",
    kind: "integer",
    default: 4,
    meaning:
      "How many copies of what was diverged or quarantined are kept beside each database; not in LiteFS.",
  },
  {
    key: "data.kept-copies-max-size",
    kind: "integer",
    unit: "Megabytes",
    default: 10240,
    meaning:
      "How many megabytes those copies of one database may take; the newest stays, 0 means no limit; not in LiteFS.",
  },
];

const fuse: readonly Option[] = [
  {
    key: "fuse.dir",
    kind: "string",
    default: "/litefs",
    meaning: "The mount directory, where applications open their databases.",
  },
  {
    key: "fuse.allow-other",
    kind: "bool",
    default: false,
    meaning: "Let users other than the one who runs litefs use the mount.",
  },
  { key: "fuse.debug", kind: "bool", default: false, meaning: "Log every request of the kernel." },
  {
    key: "fuse.locks",
    kind: "choice",
    choices: ["auto", "kernel", "daemon"],
    default: "daemon",
    meaning:
      "Who keeps SQLite's file locks: litefs itself, the kernel, which is faster, or the kernel where it can; not in LiteFS.",
  },
  {
    key: "fuse.spin",
    kind: "duration",
    default: "100us",
    meaning:
      "How long to look for the next request of the kernel before going to sleep, where all processors of the machine may be used, there are two or more, and some are idle; 0 turns it off. Not in LiteFS.",
  },
  {
    key: "fuse.idle-polling",
    kind: "choice",
    choices: ["auto", "on", "off"],
    default: "auto",
    meaning:
      "Whether to ask the kernel not to halt idle processors while there are a thousand requests a second or more; auto: on machines of up to eight processors, all of which may be used. Not in LiteFS.",
  },
];

const http: readonly Option[] = [
  {
    key: "http.addr",
    kind: "string",
    default: ":20202",
    meaning: "Address of the HTTP API, through which nodes reach each other.",
  },
  {
    key: "http.snapshot-timeout",
    kind: "duration",
    default: "0",
    meaning: "The longest that sending a snapshot may take; 0 means data.retention.",
  },
];

const proxy: readonly Option[] = [
  { key: "proxy.addr", kind: "string", meaning: "Address of the HTTP proxy." },
  {
    key: "proxy.target",
    kind: "string",
    meaning: "The host:port of the application behind the proxy; without it there is no proxy.",
  },
  {
    key: "proxy.db",
    kind: "string",
    meaning: "The database whose position the proxy keeps in the cookie of a client.",
  },
  {
    key: "proxy.max-lag",
    kind: "duration",
    default: "10s",
    meaning: "The lag above which the health check of the proxy fails.",
  },
  { key: "proxy.debug", kind: "bool", default: false, meaning: "Log every request of the proxy." },
  {
    key: "proxy.passthrough",
    kind: "strings",
    meaning: "Path patterns that go to the application without a look at the method or the cookie.",
  },
  {
    key: "proxy.always-forward",
    kind: "strings",
    meaning: "Path patterns that always go to the primary, whatever their method.",
  },
  {
    key: "proxy.primary-redirect-timeout",
    kind: "duration",
    default: "5s",
    meaning: "How long a write waits for a primary to be known.",
  },
  {
    key: "proxy.read-timeout",
    kind: "duration",
    default: "0",
    meaning: "The longest that reading a request may take; 0 means no limit.",
  },
  {
    key: "proxy.read-header-timeout",
    kind: "duration",
    default: "10s",
    meaning: "The longest that reading the header of a request may take.",
  },
  {
    key: "proxy.write-timeout",
    kind: "duration",
    default: "0",
    meaning: "The longest that writing a response may take; 0 means no limit.",
  },
  {
    key: "proxy.idle-timeout",
    kind: "duration",
    default: "30s",
    meaning: "How long a connection without requests is kept.",
  },
];

const lease: readonly Option[] = [
  {
    key: "lease.type",
    kind: "choice",
    choices: ["static", "consul", "etcd"],
    meaning: "Required. How the primary is chosen: static (by this file), consul or etcd.",
  },
  {
    key: "lease.hostname",
    kind: "string",
    meaning:
      "Name of this node, or with a static lease of the primary; on candidates the name of the machine when absent.",
  },
  {
    key: "lease.advertise-url",
    kind: "string",
    meaning:
      "URL of the HTTP API of this node, or with a static lease of the primary; on candidates http://<hostname>:<http port> when absent.",
  },
  {
    key: "lease.candidate",
    kind: "bool",
    default: true,
    meaning: "Whether this node may be the primary; with a static lease, whether it is.",
  },
  {
    key: "lease.promote",
    kind: "bool",
    default: false,
    meaning: "Become the primary at each start, once connected and caught up.",
  },
  {
    key: "lease.reconnect-delay",
    kind: "duration",
    default: "1s",
    meaning: "How long to wait before the primary is looked for again.",
  },
  {
    key: "lease.demote-delay",
    kind: "duration",
    default: "10s",
    meaning: "How long a demoted node waits before it may be the primary again.",
  },
  {
    key: "lease.databases",
    kind: "strings",
    meaning: "Replicate only these databases; not for candidates, which need all of them.",
  },
  {
    key: "lease.consul.url",
    kind: "string",
    meaning:
      "URL of the Consul server; a password in it is the ACL token, a path the key prefix. When absent from FLY_CONSUL_URL or CONSUL_HTTP_ADDR.",
  },
  {
    key: "lease.consul.key",
    kind: "string",
    meaning:
      "The key that holds the lease; one for each cluster. When absent litefs/$FLY_APP_NAME, or litefs/primary.",
  },
  {
    key: "lease.consul.ttl",
    kind: "duration",
    default: "10s",
    meaning: "After this time without renewal the lease is free; at least 10s in Consul.",
  },
  {
    key: "lease.consul.lock-delay",
    kind: "duration",
    default: "1s",
    meaning: "How long nobody may take a lease that has expired.",
  },
  {
    key: "lease.etcd.endpoints",
    kind: "strings",
    meaning: "URLs of the servers of the etcd cluster. When absent from ETCDCTL_ENDPOINTS.",
  },
  {
    key: "lease.etcd.key",
    kind: "string",
    meaning:
      "The key that holds the lease; one for each cluster. When absent litefs/$FLY_APP_NAME, or litefs/primary.",
  },
  {
    key: "lease.etcd.ttl",
    kind: "duration",
    default: "10s",
    meaning: "After this time without renewal the lease is free; at least 2s in etcd.",
  },
  { key: "lease.etcd.username", kind: "string", meaning: "User of etcd; absent for none." },
  { key: "lease.etcd.password", kind: "string", meaning: "Password of the user." },
  {
    key: "lease.etcd.ca-file",
    kind: "string",
    meaning: "PEM file with the authority that has signed etcd's certificate.",
  },
  {
    key: "lease.etcd.cert-file",
    kind: "string",
    meaning: "PEM file with the certificate of this client.",
  },
  { key: "lease.etcd.key-file", kind: "string", meaning: "PEM file with the key to it." },
];

const forward: readonly Option[] = [
  {
    key: "forward.enabled",
    kind: "bool",
    default: true,
    meaning: "Whether applications on a replica may write, through the primary; not in LiteFS.",
  },
  {
    key: "forward.linger",
    kind: "duration",
    default: "1s",
    meaning:
      "How long a replica keeps the right to write after its last transaction, if nobody else wants it.",
  },
  {
    key: "forward.timeout",
    kind: "duration",
    default: "5s",
    meaning:
      "How long a write waits for its turn before the application gets SQLITE_BUSY, and a commit for its outcome. A process that uses the database from several threads gets SQLITE_BUSY after 0.5 s, because they cannot read while one waits; its busy_timeout does the rest.",
  },
];

const sync: readonly Option[] = [
  {
    key: "sync.replicas",
    kind: "sync-rule",
    default: 0,
    meaning:
      "How many replicas must have a transaction on their disks before its COMMIT returns: a number, majority or all; 0 waits for none. Not in LiteFS.",
  },
  {
    key: "sync.databases",
    kind: "sync-rules",
    meaning: "The same for single databases, by their names.",
  },
  {
    key: "sync.nodes",
    kind: "integer",
    default: 0,
    meaning:
      "How many nodes the cluster has that may be counted, the primary included; required for majority and all.",
  },
  {
    key: "sync.timeout",
    kind: "duration",
    default: "3s",
    meaning: "How long a commit waits for the replicas.",
  },
  {
    key: "sync.on-timeout",
    kind: "choice",
    choices: ["refuse", "async"],
    default: "refuse",
    meaning:
      "Without enough replicas, refuse: nobody writes, and a commit that was sent already ends in an I/O error; or async: commits do not wait until they are back.",
  },
];

const backup: readonly Option[] = [
  {
    key: "backup.type",
    kind: "choice",
    choices: ["file", "litefs-cloud"],
    meaning: "Where the primary sends backups; absent for none.",
  },
  { key: "backup.path", kind: "string", meaning: "The directory, for type file." },
  {
    key: "backup.url",
    kind: "string",
    default: "https://litefs.fly.io",
    meaning: "The service, for type litefs-cloud.",
  },
  { key: "backup.cluster", kind: "string", meaning: "The cluster's name, for type litefs-cloud." },
  {
    key: "backup.auth-token",
    kind: "string",
    meaning: "The token, for type litefs-cloud.",
  },
];

const log: readonly Option[] = [
  {
    key: "log.format",
    kind: "choice",
    choices: ["text", "json"],
    default: "text",
    meaning: "How the lines on standard error look.",
  },
  { key: "log.timestamp", kind: "bool", default: false, meaning: "Begin each line with the time." },
  { key: "log.debug", kind: "bool", default: false, meaning: "Log more." },
];

const tracing: readonly Option[] = [
  {
    key: "tracing.enabled",
    kind: "bool",
    default: true,
    meaning: "Trace every operation on databases; only if tracing.path is set.",
  },
  { key: "tracing.path", kind: "string", meaning: "The trace file." },
  {
    key: "tracing.max-size",
    kind: "integer",
    unit: "Megabytes",
    default: 64,
    meaning: "The size in megabytes at which a new trace file is begun.",
  },
  {
    key: "tracing.max-count",
    kind: "integer",
    default: 8,
    meaning: "How many trace files are kept.",
  },
  { key: "tracing.compress", kind: "bool", default: true, meaning: "Compress old trace files." },
];

export const OPTIONS: readonly Option[] = [
  ...top,
  ...data,
  ...fuse,
  ...http,
  ...proxy,
  ...lease,
  ...forward,
  ...sync,
  ...backup,
  ...log,
  ...tracing,
];

/** The properties that lead to an option's value in Config: `data.retention` → data, retentionMs. */
export function propertyPath(option: Option): string[] {
  const names = option.key.split(".").map((name) => camelCase(name));
  const unit = option.kind === "duration" ? "Ms" : (option.unit ?? "");
  return [...names.slice(0, -1), `${names.at(-1)}${unit}`];
}

function camelCase(name: string): string {
  return name.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}
