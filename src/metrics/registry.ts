import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from "prom-client";
import type { RoleCounters } from "../cluster/cluster-node.ts";
import type { SyncStatus, WaitOutcome } from "../cluster/sync/sync-desk.ts";
import type { DatabaseState } from "../database/engine.ts";
import type { ForwardingStatistics } from "../cluster/forwarding/statistics.ts";
import { histogramText } from "./histogram-text.ts";
import { databaseSeriesText } from "./database-series.ts";
import type { DatabaseMetric } from "./database-series.ts";

/** Where the numbers come from. They are read when somebody asks, never counted per commit. */
export interface MetricsSources {
  readonly databases: ReadonlyMap<string, DatabaseState>;
  isPrimary(): boolean;
  lagMs(): number;
  /** Connected replicas. */
  streamCount(): number;
  /** Everything that is told of changes: replicas and event feeds. */
  subscriberCount(): number;
  /** LTX frames sent, by database and type. */
  sentFrames(): ReadonlyMap<string, Readonly<Record<"ltx" | "ltx:snapshot", number>>>;
  /** What elections and handoffs have come to since the start. */
  roleCounters(): RoleCounters;
  /** On the primary: for how long its lease still covers commits; undefined without end or lease. */
  leaseRemainingMs(): number | undefined;
  readonly forwarding: ForwardingStatistics;
  /** On the primary: the node that has the right to write a database. */
  borrowerOf(database: string): string | undefined;
  /** On a replica: whether this node has it. */
  hasBorrowed(database: string): boolean;
  /** Between a transaction at its origin and its visibility here, by database. */
  applyLatencyMs(): ReadonlyMap<string, number>;
  /** Undefined when no commit ever waits for replicas. */
  syncStatus(): SyncStatus | undefined;
}

export interface MetricsRegistry {
  readonly contentType: string;
  /** A commit has waited for replicas. Such a commit can afford to be counted. */
  syncWaited(tookMs: number, outcome: WaitOutcome): void;
  text(): Promise<string>;
}

interface StateMetric extends Omit<DatabaseMetric, "series"> {
  readonly value: (state: DatabaseState) => number;
}

/** One value per database, straight from its state. Names of LiteFS first, then our own. */
const DATABASE_METRICS: readonly StateMetric[] = [
  {
    name: "litefs_db_txid",
    help: "Current transaction ID.",
    type: "gauge",
    value: ({ position }) => position.txid,
  },
  {
    name: "litefs_db_database_write_count",
    help: "Number of writes to the database file.",
    type: "counter",
    value: ({ counters }) => counters.databaseWrites,
  },
  {
    name: "litefs_db_journal_write_count",
    help: "Number of writes to the journal file.",
    type: "counter",
    value: ({ counters }) => counters.journalWrites,
  },
  {
    name: "litefs_db_wal_write_count",
    help: "Number of writes to the WAL file.",
    type: "counter",
    value: ({ counters }) => counters.walWrites,
  },
  {
    name: "litefs_db_shm_write_count",
    help: "Number of writes to the shared memory file.",
    type: "counter",
    value: ({ counters }) => counters.shmWrites,
  },
  {
    name: "litefs_db_commit_count",
    help: "Number of transactions committed on this node.",
    type: "counter",
    value: ({ counters }) => counters.commits,
  },
  {
    name: "litefs_db_ltx_count",
    help: "Number of transactions kept in the log.",
    type: "gauge",
    value: ({ counters }) => counters.ltxCount,
  },
  {
    name: "litefs_db_ltx_bytes",
    help: "Number of bytes used by the log on disk.",
    type: "gauge",
    value: ({ counters }) => counters.ltxBytes,
  },
  {
    name: "litefs_db_ltx_reap_count",
    help: "Number of transactions removed from the log by retention.",
    type: "gauge",
    value: ({ counters }) => counters.ltxReaped,
  },
  {
    name: "litefs_db_quarantined",
    help: "1 while the database is quarantined and does not serve, 0 otherwise.",
    type: "gauge",
    value: ({ status }) => Number(status === "quarantined"),
  },
  {
    name: "litefs_db_quarantines_total",
    help: "Number of times the database was quarantined since the start.",
    type: "counter",
    value: ({ counters }) => counters.quarantines,
  },
  {
    name: "litefs_db_heals_total",
    help: "Number of times the database served again after a quarantine since the start.",
    type: "counter",
    value: ({ counters }) => counters.heals,
  },
  {
    name: "litefs_db_diverged_histories",
    help: "Histories of this node that a snapshot of the primary has replaced, kept aside.",
    type: "gauge",
    value: ({ counters }) => counters.divergedHistories,
  },
  {
    name: "litefs_tx_count",
    help: "Number of transactions in the database's history, equal on all nodes that are in sync.",
    type: "counter",
    value: ({ position }) => position.txid,
  },
  {
    name: "litefs_db_size_bytes",
    help: "Size of the database in bytes.",
    type: "gauge",
    value: ({ pageSize, pageCount }) => pageSize * pageCount,
  },
];

/** Sampling the event loop ten times a second keeps an idle node idle. */
const EVENT_LOOP_SAMPLE_MS = 100;

/** Every metric of a node, in a registry of its own. */
export function createMetrics(sources: MetricsSources): MetricsRegistry {
  const registry = new Registry();
  collectDefaultMetrics({
    register: registry,
    eventLoopMonitoringPrecision: EVENT_LOOP_SAMPLE_MS,
  });
  registerNodeMetrics(registry, sources);
  registerElections(registry, sources);
  const syncWaits = registerSync(registry, sources);
  registerForwarding(registry, sources);
  const series: readonly DatabaseMetric[] = [
    ...DATABASE_METRICS.map((metric) => ({ ...metric, series: metric.value })),
    latencies(sources),
    sentFrames(sources),
    ...loans(sources),
  ];
  return {
    contentType: registry.contentType,
    syncWaited: (tookMs, outcome) => syncWaits.observe({ outcome }, tookMs / 1000),
    text: async () => {
      const node = (await registry.metrics()) + histograms(sources);
      return node + (await databaseSeriesText(series, sources.databases));
    },
  };
}

function registerNodeMetrics(registry: Registry, sources: MetricsSources): void {
  const gauges: readonly (readonly [name: string, help: string, value: () => number])[] = [
    ["litefs_db_count", "Number of managed databases.", () => sources.databases.size],
    ["litefs_is_primary", "Primary status of the node.", () => Number(sources.isPrimary())],
    [
      "litefs_subscriber_count",
      "Number of connected subscribers.",
      () => sources.subscriberCount(),
    ],
    [
      "litefs_lag_seconds",
      "Time since this node was known to be in sync with the primary; 0 while it is.",
      () => sources.lagMs() / 1000,
    ],
    [
      "litefs_http_stream_count",
      "Number of streams currently connected.",
      () => sources.streamCount(),
    ],
  ];
  for (const [name, help, value] of gauges) {
    const gauge: Gauge = new Gauge({
      name,
      help,
      registers: [registry],
      collect: () => gauge.set(value()),
    });
  }
}

function registerElections(registry: Registry, sources: MetricsSources): void {
  const election: Counter<"result"> = new Counter({
    name: "litefs_election_count",
    help: "Times without a primary in which this candidate tried to become it, by result.",
    labelNames: ["result"],
    registers: [registry],
    collect: () => {
      const { attempts, won, deferred } = sources.roleCounters();
      election.reset();
      election.inc({ result: "won" }, won);
      election.inc({ result: "missed" }, attempts - won);
      election.inc({ result: "deferred" }, deferred);
    },
  });
  const changes: Counter<"kind"> = new Counter({
    name: "litefs_lease_change_count",
    help: "Leases lost, handed over and inherited by this node.",
    labelNames: ["kind"],
    registers: [registry],
    collect: () => {
      const { lost, handedOver, inherited } = sources.roleCounters();
      changes.reset();
      changes.inc({ kind: "lost" }, lost);
      changes.inc({ kind: "handed-over" }, handedOver);
      changes.inc({ kind: "inherited" }, inherited);
    },
  });
  const remaining: Gauge = new Gauge({
    name: "litefs_lease_remaining_seconds",
    help: "For how long the lease of the primary covers commits without a renewal; else 0.",
    registers: [registry],
    collect: () => remaining.set((sources.leaseRemainingMs() ?? 0) / 1000),
  });
}

/** From a fast network and disk to the default of `sync.timeout`, and beyond. */
const SYNC_WAIT_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 3, 10];

function registerSync(registry: Registry, sources: MetricsSources): Histogram<"outcome"> {
  const gauges: readonly (readonly [
    name: string,
    help: string,
    value: (s: SyncStatus) => number,
  ])[] = [
    [
      "litefs_sync_replicas",
      "Replicas that tell the primary what they have on their disks.",
      ({ replicas }) => replicas.length,
    ],
    [
      "litefs_sync_fenced_databases",
      "Databases that nobody may write, because too few replicas would have it.",
      ({ fenced }) => fenced.length,
    ],
    [
      "litefs_sync_degraded_databases",
      "Databases whose commits go on without the replicas they should wait for.",
      ({ degraded }) => degraded.length,
    ],
  ];
  for (const [name, help, value] of gauges) {
    const gauge: Gauge = new Gauge({
      name,
      help,
      registers: [registry],
      collect: () => {
        const status = sources.syncStatus();
        gauge.set(status === undefined ? 0 : value(status));
      },
    });
  }
  return new Histogram({
    name: "litefs_sync_wait_seconds",
    help: "Time that commits have waited for replicas, by how the wait ended.",
    labelNames: ["outcome"],
    buckets: SYNC_WAIT_BUCKETS,
    registers: [registry],
  });
}

function registerForwarding(registry: Registry, { forwarding }: MetricsSources): void {
  const outcomes: Counter<"outcome"> = new Counter({
    name: "litefs_forward_count",
    help: "Transactions of this replica's applications sent to the primary, by outcome.",
    labelNames: ["outcome"],
    registers: [registry],
    collect: () => {
      outcomes.reset();
      for (const outcome of ["committed", "refused", "unknown"] as const) {
        outcomes.inc({ outcome }, forwarding.outcomes[outcome]);
      }
    },
  });
  const denied: Counter = new Counter({
    name: "litefs_forward_denied_count",
    help: "Times this replica asked the primary for the right to write in vain.",
    registers: [registry],
    collect: () => {
      denied.reset();
      denied.inc(forwarding.denied);
    },
  });
}

function histograms({ forwarding }: MetricsSources): string {
  return (
    histogramText(
      "litefs_forward_commit_seconds",
      "Time from an application's commit on this replica to the primary's word on it.",
      forwarding.commitMs,
    ) +
    histogramText(
      "litefs_forward_wait_seconds",
      "Time from asking the primary for the right to write until it was lent.",
      forwarding.waitMs,
    )
  );
}

/** LiteFS calls them halt locks, and has no metric for them. */
function loans(sources: MetricsSources): DatabaseMetric[] {
  return [
    {
      name: "litefs_db_lent",
      help: "1 for the node that has the right to write, its halt lock; only on the primary.",
      type: "gauge",
      series: ({ name }) => {
        const borrower = sources.borrowerOf(name);
        return borrower === undefined ? undefined : [{ label: `node="${borrower}"`, value: 1 }];
      },
    },
    {
      name: "litefs_db_borrowed",
      help: "1 while this replica has the right to write the database, 0 otherwise.",
      type: "gauge",
      series: ({ name }) => Number(sources.hasBorrowed(name)),
    },
  ];
}

function latencies(sources: MetricsSources): DatabaseMetric {
  return {
    name: "litefs_db_lag_seconds",
    help: "Latency between generating a transaction and applying it here; 0 on the primary.",
    type: "gauge",
    series: ({ name }) =>
      sources.isPrimary() ? 0 : (sources.applyLatencyMs().get(name) ?? 0) / 1000,
  };
}

function sentFrames(sources: MetricsSources): DatabaseMetric {
  return {
    name: "litefs_http_frame_send_count",
    help: "Number of LTX frames sent to replicas.",
    type: "counter",
    series: ({ name }) => {
      const counts = sources.sentFrames().get(name);
      if (counts === undefined) return undefined;
      const types = ["ltx", "ltx:snapshot"] as const;
      return types.map((type) => ({ label: `type="${type}"`, value: counts[type] }));
    },
  };
}
