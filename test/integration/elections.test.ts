import { expect, test } from "vitest";
import { cleanUpElectedAfterEach, ElectedCluster } from "../support/elected-cluster.ts";
import type { ConsulServer } from "../support/servers/consul.ts";
import { startConsul } from "../support/servers/consul.ts";
import { useServer } from "../support/servers/use-server.ts";

/** Consul ends a session at twice its TTL at the latest; then comes the lock-delay. */
const CONSUL_BOUND_MS = 2 * 10_000 + 100;

const consulServer = useServer(startConsul);
cleanUpElectedAfterEach();

function lease(server: ConsulServer): string[] {
  return ["type: consul", `consul: {url: "${server.url}", key: KEY, ttl: 10s, lock-delay: 100ms}`];
}

test("a handoff moves the primary, and open connections write on through it", async ({ skip }) => {
  const consul = consulServer();
  if (consul === undefined) return skip();
  const cluster = await ElectedCluster.start({ lease: lease(consul) });
  const [n0, n1] = [cluster.node(0), cluster.node(1)];
  const first = cluster.connect(n0, "app.db");
  first.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (x INTEGER PRIMARY KEY)");
  await expect.poll(() => n1.position("app.db"), { timeout: 20_000 }).toBe(n0.position("app.db"));
  const second = cluster.connect(n1, "app.db");
  expect(second.prepare("SELECT count(*) AS n FROM t").get()).toEqual({ n: 0 });
  for (let i = 0; i < 20; i++) first.prepare("INSERT INTO t DEFAULT VALUES").run();

  const answer = await n1.post("/promote");
  expect(answer.status, await answer.text()).toBe(200);
  expect(n1.role()).toBe("primary");
  expect(await cluster.waitForPrimary()).toBe(n1);
  // Opened while this node was a replica.
  second.prepare("INSERT INTO t DEFAULT VALUES").run();
  expect(second.prepare("SELECT count(*) AS n FROM t").get()).toEqual({ n: 21 });
  expect(n0.role()).toBe("replica");
  await expect
    .poll(() => first.prepare("SELECT count(*) AS n FROM t").get(), { timeout: 20_000 })
    .toEqual({ n: 21 });

  expect((await n0.post("/promote")).status).toBe(200);
  expect(await cluster.waitForPrimary()).toBe(n0);
  // Opened while it was the primary, and a replica in between.
  first.prepare("INSERT INTO t DEFAULT VALUES").run();
  await expect
    .poll(() => second.prepare("SELECT count(*) AS n FROM t").get(), { timeout: 20_000 })
    .toEqual({ n: 22 });
  await cluster.verify();
});

test("after kill -9 of the primary another node takes over, and the old one follows it", async ({
  skip,
}) => {
  const consul = consulServer();
  if (consul === undefined) return skip();
  const cluster = await ElectedCluster.start({ lease: lease(consul) });
  const [n0, n1, n2] = [cluster.node(0), cluster.node(1), cluster.node(2)];
  const db = cluster.connect(n0, "app.db");
  db.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (x INTEGER PRIMARY KEY)");
  for (let i = 0; i < 50; i++) db.prepare("INSERT INTO t DEFAULT VALUES").run();
  for (const node of [n1, n2]) {
    await expect
      .poll(() => node.position("app.db"), { timeout: 20_000 })
      .toBe(n0.position("app.db"));
  }
  await n0.kill();
  const killedAt = Date.now();
  const next = await cluster.waitForPrimary([n1, n2]);
  // A machine that is busy with other tests may be late by far more than a quiet one.
  expect(Date.now() - killedAt).toBeLessThan(CONSUL_BOUND_MS + 10_000);
  const after = cluster.connect(next, "app.db");
  after.prepare("INSERT INTO t DEFAULT VALUES").run();
  expect(after.prepare("SELECT count(*) AS n FROM t").get()).toEqual({ n: 51 });
  await n0.start();
  expect(await cluster.waitForPrimary()).toBe(next);
  await cluster.verify();
});
