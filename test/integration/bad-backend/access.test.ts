import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { waitFor } from "../../support/cluster.ts";
import type { ElectedCluster } from "../../support/elected-cluster.ts";
import { startConsul } from "../../support/servers/consul.ts";
import { startEtcd } from "../../support/servers/etcd.ts";
import { Stage } from "./backends.ts";
import type { Server } from "./backends.ts";

const WAIT_MS = 60_000;
const ETCD_TTL_MS = 3_000;

const stage = new Stage();

function create(lease: readonly string[]): Promise<ElectedCluster> {
  return stage.cluster({ nodes: 1, lease });
}

/** The token stands in the URL. */
function consulLease(url: string, token: string): string[] {
  const withToken = url.replace("//", `//:${token}@`);
  return ["type: consul", `consul: {url: "${withToken}", key: KEY, ttl: 10s, lock-delay: 100ms}`];
}

function etcdLease(url: string, username: string, password: string): string[] {
  const user = `username: "${username}", password: "${password}"`;
  return ["type: etcd", `etcd: {endpoints: ["${url}"], key: KEY, ttl: ${ETCD_TTL_MS}ms, ${user}}`];
}

test("a token that Consul refuses: the log says which rights it needs, and one that has them is enough", async ({
  skip,
}) => {
  const acl = `acl { enabled = true default_policy = "deny" tokens { master = "root-secret" } }`;
  const server = await stage.server(startConsul([`-hcl=${acl}`]));
  if (server === undefined) return skip();
  const node = (await create(consulLease(server.url, "wrong-secret"))).node(0);
  node.launch();
  await node.waitForLog("give a token with session:write and key:write");
  // The secret itself belongs into no log.
  expect(node.log).not.toContain("wrong-secret");
  expect(node.isRunning).toBe(true);
  expect((await node.status()).isPrimary).toBe(false);
  const other = (await create(consulLease(server.url, "root-secret"))).node(0);
  await other.start();
  expect((await other.status()).isPrimary).toBe(true);
});

/** An etcd that lets only users in: `litefs` may use what begins with `litefs/`, `stranger` nothing. */
async function startGuardedEtcd(): Promise<Server | undefined> {
  const started = await startEtcd();
  if (started === undefined) return undefined;
  const base64 = (text: string): string => Buffer.from(text).toString("base64");
  const call = async (method: string, body: object): Promise<void> => {
    const url = `${started.url}/v3/auth/${method}`;
    const answer = await fetch(url, { method: "POST", body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${method}: ${await answer.text()}`);
  };
  await call("role/add", { name: "root" });
  await call("role/add", { name: "litefs" });
  const perm = { permType: "READWRITE", key: base64("litefs/"), range_end: base64("litefs0") };
  await call("role/grant", { name: "litefs", perm });
  for (const name of ["root", "litefs", "stranger"]) {
    await call("user/add", { name, password: `${name}-secret` });
    if (name !== "stranger") await call("user/grant", { user: name, role: name });
  }
  await call("enable", {});
  return started;
}

test.each([
  ["a wrong password", "litefs", "wrong-secret"],
  ["a user without the right to the key", "stranger", "stranger-secret"],
  ["no user", "", ""],
])("%s in etcd: the log says what to check, and nothing is written", async (_, user, password) => {
  const server = await stage.server(startGuardedEtcd());
  if (server === undefined) return;
  const node = (await create(etcdLease(server.url, user, password))).node(0);
  node.launch();
  await node.waitForLog("check lease.etcd.username and password, and the role's permission");
  if (password !== "") expect(node.log).not.toContain(password);
  expect(node.isRunning).toBe(true);
  expect((await node.status()).isPrimary).toBe(false);
});

test("a user of etcd with no more than the key: elected, also after etcd has forgotten its token", async ({
  skip,
}) => {
  const server = await stage.server(startGuardedEtcd());
  if (server === undefined) return skip();
  const made = await create(etcdLease(server.url, "litefs", "litefs-secret"));
  const node = made.node(0);
  await node.start();
  expect((await node.status()).isPrimary).toBe(true);
  const db = made.connect(node, "app.db");
  db.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (x)");
  await server.process.kill();
  server.process.start();
  // The lease of before the restart has ended by then, if it was not renewed.
  await sleep(2 * ETCD_TTL_MS);
  await waitFor("writes", WAIT_MS, () => {
    try {
      db.exec("INSERT INTO t VALUES (1)");
      return undefined;
    } catch (error) {
      return String(error);
    }
  });
  await made.verify();
});
