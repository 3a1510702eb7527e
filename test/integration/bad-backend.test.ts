import * as fs from "node:fs";
import * as path from "node:path";
import { afterEach, expect, test } from "vitest";
import { waitFor } from "../support/cluster.ts";
import { ElectedCluster } from "../support/elected-cluster.ts";
import { freePorts } from "../support/free-ports.ts";
import type { ConsulServer } from "../support/servers/consul.ts";
import { startConsul } from "../support/servers/consul.ts";
import type { TestNode } from "../support/test-node.ts";

const WAIT_MS = 60_000;

let consul: ConsulServer | undefined;
let cluster: ElectedCluster | undefined;

afterEach(async ({ task }) => {
  if (task.result?.state === "fail") cluster?.printLogs();
  await cluster?.dispose();
  await consul?.process.dispose();
  cluster = undefined;
  consul = undefined;
});

/** With a token, if given, as it stands in the URL. */
function lease(url: string, token = ""): string[] {
  const withToken = url.replace("//", token === "" ? "//" : `//:${token}@`);
  return ["type: consul", `consul: {url: "${withToken}", key: KEY, ttl: 10s, lock-delay: 100ms}`];
}

function changeLease(node: TestNode, line: RegExp, by: string): void {
  const changed = (node.options.lease ?? []).map((old) => (line.test(old) ? by : old));
  Object.assign(node.options, { lease: changed });
}

test("a token that Consul refuses: the log says which rights it needs, and a new policy is enough", async ({
  skip,
}) => {
  const acl = `acl { enabled = true default_policy = "deny" tokens { master = "root-secret" } }`;
  consul = await startConsul([`-hcl=${acl}`]);
  if (consul === undefined) return skip();
  cluster = await ElectedCluster.create({ nodes: 1, lease: lease(consul.url, "wrong-secret") });
  const node = cluster.node(0);
  node.launch();
  await node.waitForLog("give a token with session:write and key:write");
  // The secret itself belongs into no log.
  expect(node.log).not.toContain("wrong-secret");
  expect(node.isRunning).toBe(true);
  expect((await node.status()).isPrimary).toBe(false);
  await node.stop();
  await cluster.dispose();
  cluster = await ElectedCluster.create({ nodes: 1, lease: lease(consul.url, "root-secret") });
  await cluster.node(0).start();
  expect((await cluster.node(0).status()).isPrimary).toBe(true);
});

test("Consul is down at the start, and later: the node waits, serves reads, and writes again", async ({
  skip,
}) => {
  consul = await startConsul();
  if (consul === undefined) return skip();
  await consul.process.kill();
  cluster = await ElectedCluster.create({ nodes: 1, lease: lease(consul.url) });
  const node = cluster.node(0);
  node.launch();
  await node.waitForLog("check lease.consul.url and the network");
  consul.process.start();
  await node.waitForLog("primary lease acquired", WAIT_MS);
  const db = cluster.connect(node, "app.db", { timeout: 100 });
  db.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (x INTEGER PRIMARY KEY)");
  db.exec("INSERT INTO t DEFAULT VALUES");
  await consul.process.kill();
  await waitFor("writes to be refused", WAIT_MS, () => {
    try {
      db.exec("INSERT INTO t DEFAULT VALUES");
      return "written";
    } catch {
      return undefined;
    }
  });
  const written = db.prepare("SELECT count(*) FROM t").pluck().get();
  consul.process.start();
  await waitFor("writes to work again", WAIT_MS, () => {
    try {
      db.exec("INSERT INTO t DEFAULT VALUES");
      return undefined;
    } catch (error) {
      return String(error);
    }
  });
  expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(Number(written) + 1);
  await cluster.verify();
});

test("a node of another cluster takes no part, and its data stays as it is", async ({ skip }) => {
  consul = await startConsul();
  if (consul === undefined) return skip();
  cluster = await ElectedCluster.create({ nodes: 2, lease: lease(consul.url) });
  const [ours, foreign] = [cluster.node(0), cluster.node(1)];
  await ours.start();
  const id = "LFSC0123456789ABCDEF";
  fs.mkdirSync(foreign.dataDirectory, { recursive: true });
  fs.writeFileSync(path.join(foreign.dataDirectory, "clusterid"), `${id}\n`);
  foreign.launch();
  await foreign.waitForLog(/cluster/i);
  await foreign.waitForLog(new RegExp(id));
  expect((await foreign.status()).isPrimary).toBe(false);
  const file = path.join(foreign.dataDirectory, "clusterid");
  expect(fs.readFileSync(file, "utf8")).toBe(`${id}\n`);
  await ours.stop();
  // Nor when nobody else is left.
  await waitFor("the lease to be free", WAIT_MS, async () => {
    const { isPrimary } = await foreign.status();
    if (isPrimary) throw new Error("it is the primary of a cluster that is not its own");
    return foreign.log.split(id).length > 3 ? undefined : "not asked again yet";
  });
});

test("an advertise-url where nobody answers: the replica says so, and elects nobody else", async ({
  skip,
}) => {
  consul = await startConsul();
  if (consul === undefined) return skip();
  const [dead = 0] = await freePorts(1);
  cluster = await ElectedCluster.create({ nodes: 2, lease: lease(consul.url) });
  const [primary, replica] = [cluster.node(0), cluster.node(1)];
  const advertised = `advertise-url: "http://127.0.0.1:${dead}"`;
  changeLease(primary, /^advertise-url:/, advertised);
  await primary.start();
  replica.launch();
  await replica.waitForLog(`cannot reach the primary at http://127.0.0.1:${dead}`);
  expect((await replica.status()).isPrimary).toBe(false);
  expect((await replica.get("/readyz")).status).toBe(503);
});

test("two nodes with one hostname are two nodes", async ({ skip }) => {
  consul = await startConsul();
  if (consul === undefined) return skip();
  cluster = await ElectedCluster.create({ nodes: 2, lease: lease(consul.url) });
  const [n0, n1] = [cluster.node(0), cluster.node(1)];
  changeLease(n1, /^hostname:/, "hostname: n0");
  await n0.start();
  await n1.start();
  const db = cluster.connect(n1, "app.db", { timeout: 10_000 });
  const first = cluster.connect(n0, "app.db");
  first.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (x)");
  await expect.poll(() => n1.position("app.db"), { timeout: WAIT_MS }).toBe(n0.position("app.db"));
  db.exec("INSERT INTO t VALUES ('by the other')");
  // The answer to a commit waits for the log of the primary, not for its readers.
  const read = first.prepare("SELECT x FROM t").pluck();
  await expect.poll(() => read.get(), { timeout: WAIT_MS }).toBe("by the other");
  await cluster.verify();
});
