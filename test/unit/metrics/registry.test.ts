import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";
import { ForwardingStatistics } from "../../../src/cluster/forwarding/statistics.ts";
import type { DatabaseState } from "../../../src/database/engine.ts";
import { createMetrics } from "../../../src/metrics/registry.ts";
import type { MetricsSources } from "../../../src/metrics/registry.ts";

function database(name: string, changes: Partial<DatabaseState> = {}): DatabaseState {
  return {
    name,
    status: "ok",
    reason: "",
    isDiskFailure: false,
    position: { txid: 42, checksum: 1n },
    pageSize: 4096,
    pageCount: 3,
    timestampMs: 0,
    counters: {
      databaseWrites: 1,
      journalWrites: 2,
      walWrites: 3,
      shmWrites: 4,
      commits: 5,
      ltxCount: 6,
      ltxBytes: 7,
      ltxReaped: 8,
      quarantines: 9,
      heals: 10,
      divergedHistories: 11,
    },
    ...changes,
  };
}

function sources(changes: Partial<MetricsSources> = {}): MetricsSources {
  return {
    databases: new Map([["app.db", database("app.db")]]),
    isPrimary: () => false,
    lagMs: () => 1500,
    streamCount: () => 2,
    subscriberCount: () => 3,
    sentFrames: () => new Map([["app.db", { ltx: 11, "ltx:snapshot": 1 }]]),
    roleCounters: () => ({
      attempts: 5,
      won: 2,
      deferred: 7,
      lost: 1,
      handedOver: 3,
      inherited: 4,
    }),
    leaseRemainingMs: () => 2500,
    forwarding: new ForwardingStatistics(),
    borrowerOf: () => "00000000000000B2",
    hasBorrowed: () => false,
    applyLatencyMs: () => new Map([["app.db", 3]]),
    syncStatus: () => ({ replicas: ["A", "B"], fenced: [], degraded: ["app.db"] }),
    ...changes,
  };
}

/** `name{labels} value` lines and `# TYPE` of the metrics that are ours. */
function ours(text: string): string[] {
  const isOurs = (line: string): boolean => /^litefs_(?!\w+_seconds_(bucket|sum|count))/.test(line);
  return text.split("\n").filter(isOurs);
}

test("every value is the one of its source", async () => {
  expect(ours(await createMetrics(sources()).text()).sort()).toEqual([
    'litefs_db_borrowed{db="app.db"} 0',
    'litefs_db_commit_count{db="app.db"} 5',
    "litefs_db_count 1",
    'litefs_db_database_write_count{db="app.db"} 1',
    'litefs_db_diverged_histories{db="app.db"} 11',
    'litefs_db_heals_total{db="app.db"} 10',
    'litefs_db_journal_write_count{db="app.db"} 2',
    'litefs_db_lag_seconds{db="app.db"} 0.003',
    'litefs_db_lent{db="app.db",node="00000000000000B2"} 1',
    'litefs_db_ltx_bytes{db="app.db"} 7',
    'litefs_db_ltx_count{db="app.db"} 6',
    'litefs_db_ltx_reap_count{db="app.db"} 8',
    'litefs_db_quarantined{db="app.db"} 0',
    'litefs_db_quarantines_total{db="app.db"} 9',
    'litefs_db_shm_write_count{db="app.db"} 4',
    'litefs_db_size_bytes{db="app.db"} 12288',
    'litefs_db_txid{db="app.db"} 42',
    'litefs_db_wal_write_count{db="app.db"} 3',
    'litefs_election_count{result="deferred"} 7',
    'litefs_election_count{result="missed"} 3',
    'litefs_election_count{result="won"} 2',
    'litefs_forward_count{outcome="committed"} 0',
    'litefs_forward_count{outcome="refused"} 0',
    'litefs_forward_count{outcome="unknown"} 0',
    "litefs_forward_denied_count 0",
    'litefs_http_frame_send_count{db="app.db",type="ltx"} 11',
    'litefs_http_frame_send_count{db="app.db",type="ltx:snapshot"} 1',
    "litefs_http_stream_count 2",
    "litefs_is_primary 0",
    "litefs_lag_seconds 1.5",
    'litefs_lease_change_count{kind="handed-over"} 3',
    'litefs_lease_change_count{kind="inherited"} 4',
    'litefs_lease_change_count{kind="lost"} 1',
    "litefs_lease_remaining_seconds 2.5",
    "litefs_subscriber_count 3",
    "litefs_sync_degraded_databases 1",
    "litefs_sync_fenced_databases 0",
    "litefs_sync_replicas 2",
    'litefs_tx_count{db="app.db"} 42',
  ]);
});

test("counts the commits that waited for replicas, by how that ended", async () => {
  const metrics = createMetrics(sources());
  metrics.syncWaited(4, "acknowledged");
  metrics.syncWaited(40, "acknowledged");
  metrics.syncWaited(3_000, "timed-out");
  const text = await metrics.text();
  expect(text).toContain('litefs_sync_wait_seconds_count{outcome="acknowledged"} 2');
  expect(text).toContain('litefs_sync_wait_seconds_bucket{le="0.005",outcome="acknowledged"} 1');
  expect(text).toContain('litefs_sync_wait_seconds_sum{outcome="timed-out"} 3');
});

test("has every LiteFS metric with its type", async () => {
  const fixture = path.join(
    import.meta.dirname,
    "../../fixtures/litefs-0.5.14/http/metrics-primary.txt",
  );
  const typesOf = (text: string): string[] => text.match(/^# TYPE litefs_.*$/gm) ?? [];
  const mine = typesOf(await createMetrics(sources()).text());
  const theirs = typesOf(fs.readFileSync(fixture, "utf8"));
  expect(theirs.length).toBeGreaterThan(8);
  expect(mine).toEqual(expect.arrayContaining(theirs));
});

test("asks again at every scrape, and forgets databases that are gone", async () => {
  const databases = new Map([["old.db", database("old.db")]]);
  const metrics = createMetrics(sources({ databases, sentFrames: () => new Map() }));
  await metrics.text();
  databases.clear();
  databases.set("new.db", database("new.db"));
  const text = await metrics.text();
  expect(text).not.toContain("old.db");
  expect(text).toContain('litefs_tx_count{db="new.db"} 42');
  expect(await metrics.text()).toContain('litefs_tx_count{db="new.db"} 42');
});

test("a primary has no lag, whatever it applied before", async () => {
  const text = await createMetrics(sources({ isPrimary: () => true, lagMs: () => 0 })).text();
  expect(text).toContain('litefs_db_lag_seconds{db="app.db"} 0\n');
  expect(text).toContain("litefs_is_primary 1\n");
});

test("names are escaped", async () => {
  const name = 'odd"\\\nname';
  const databases = new Map([[name, database(name)]]);
  const text = await createMetrics(sources({ databases })).text();
  expect(text).toContain(String.raw`litefs_db_txid{db="odd\"\\\nname"} 42`);
});

function many(count: number): Map<string, DatabaseState> {
  const databases = new Map<string, DatabaseState>();
  for (let i = 0; i < count; i++) {
    const name = `tenant-${i}.db`;
    databases.set(name, database(name, { timestampMs: i }));
  }
  return databases;
}

test("thousands of databases are read once per metric, and other work goes on meanwhile", async () => {
  let reads = 0;
  const databases = many(4000);
  for (const [name, state] of databases) {
    databases.set(name, {
      ...state,
      get position() {
        reads += 1;
        return state.position;
      },
    });
  }
  let turns = 0;
  const ticking = setInterval(() => turns++, 0);
  const text = await createMetrics(sources({ databases })).text();
  clearInterval(ticking);
  expect(ours(text).length).toBeGreaterThan(50_000);
  // Two of the metrics show the position.
  expect(reads).toBe(8000);
  expect(turns).toBeGreaterThan(0);
});

test("of very many databases those that changed last are listed", async () => {
  const text = await createMetrics(sources({ databases: many(20_000) })).text();
  expect(text).toContain("litefs_db_count 20000");
  const listed = ours(text).filter((line) => line.startsWith("litefs_db_txid"));
  expect(listed).toHaveLength(5000);
  expect(text).toContain('litefs_db_txid{db="tenant-19999.db"}');
  expect(text).not.toContain('litefs_db_txid{db="tenant-14999.db"}');
});

test("a scrape leaves nothing behind", async () => {
  const metrics = createMetrics(sources({ databases: many(5000) }));
  await metrics.text();
  const text = await createMetrics(sources({ databases: many(1) })).text();
  expect(ours(text).some((line) => line.includes("tenant-1.db"))).toBe(false);
});

test("a name may have any character", async () => {
  const name = 'a"b\\c\nd';
  const text = await createMetrics(
    sources({ databases: new Map([[name, database(name)]]), sentFrames: () => new Map() }),
  ).text();
  expect(text).toContain('litefs_db_txid{db="a\\"b\\\\c\\nd"} 42');
});

test("includes the process itself", async () => {
  expect(await createMetrics(sources()).text()).toContain("process_resident_memory_bytes");
});

test("forwarding: how long commits and waits took, and what came of them", async () => {
  const forwarding = new ForwardingStatistics();
  forwarding.forwarded(0.4, "committed");
  forwarding.forwarded(2, "committed");
  forwarding.forwarded(7_000, "unknown");
  forwarding.waitMs.add(30);
  forwarding.denied = 3;
  const text = await createMetrics(sources({ forwarding, hasBorrowed: () => true })).text();
  for (const line of [
    "# TYPE litefs_forward_commit_seconds histogram",
    'litefs_forward_commit_seconds_bucket{le="0.0005"} 1',
    'litefs_forward_commit_seconds_bucket{le="0.002"} 2',
    'litefs_forward_commit_seconds_bucket{le="5"} 2',
    'litefs_forward_commit_seconds_bucket{le="+Inf"} 3',
    "litefs_forward_commit_seconds_sum 7.0024",
    "litefs_forward_commit_seconds_count 3",
    'litefs_forward_wait_seconds_bucket{le="0.02"} 0',
    'litefs_forward_wait_seconds_bucket{le="0.05"} 1',
    'litefs_forward_count{outcome="committed"} 2',
    'litefs_forward_count{outcome="unknown"} 1',
    "litefs_forward_denied_count 3",
    'litefs_db_borrowed{db="app.db"} 1',
  ]) {
    expect(text.split("\n")).toContain(line);
  }
});
