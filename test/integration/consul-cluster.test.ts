import { afterAll, beforeAll, expect, test } from "vitest";
import { waitFor } from "../support/cluster.ts";
import { cleanUpElectedAfterEach, ElectedCluster } from "../support/elected-cluster.ts";
import type { ConsulServer } from "../support/servers/consul.ts";
import { consulLeader, startConsulCluster } from "../support/servers/consul.ts";

let servers: readonly ConsulServer[] | undefined;
cleanUpElectedAfterEach();

beforeAll(async () => {
  servers = await startConsulCluster();
}, 240_000);
afterAll(async () => {
  for (const server of servers ?? []) await server.process.dispose();
});

test("when Consul's own leader dies, the primary stays or comes back, and nothing forks", async ({
  skip,
}) => {
  if (servers === undefined) return skip();
  const leader = await consulLeader(servers);
  const [near] = servers.filter((server) => server !== leader);
  const cluster = await ElectedCluster.start({
    nodes: 2,
    lease: ["type: consul", `consul: {url: "${near?.url}", key: KEY, ttl: 10s, lock-delay: 1s}`],
  });
  const [n0, n1] = [cluster.node(0), cluster.node(1)];
  const db = cluster.connect(n0, "app.db");
  db.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (x INTEGER PRIMARY KEY)");
  await leader.process.kill();

  // Without a leader Consul renews nothing, for 10 to 20 seconds: writes may be refused meanwhile.
  let written = 0;
  const started = Date.now();
  await waitFor("writes to work again after the election in Consul", 90_000, () => {
    try {
      db.prepare("INSERT INTO t DEFAULT VALUES").run();
      written += 1;
    } catch {
      // Refused, and not there.
    }
    return Date.now() - started > 25_000 && n0.role() === "primary" ? undefined : n0.role();
  });
  expect(await cluster.waitForPrimary()).toBe(n0);
  db.prepare("INSERT INTO t DEFAULT VALUES").run();
  expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(written + 1);
  await cluster.verify();
  const [database] = (await n1.status()).databases;
  expect(database?.divergedHistories).toBe(0);
});
