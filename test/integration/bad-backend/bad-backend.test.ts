import * as fs from "node:fs";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import * as path from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { waitFor } from "../../support/cluster.ts";
import { freePorts } from "../../support/free-ports.ts";
import type { TestNode } from "../../support/test-node.ts";
import { consul, etcd, Stage } from "./backends.ts";

const WAIT_MS = 60_000;

const stage = new Stage();

function changeLease(node: TestNode, line: RegExp, by: string): void {
  const changed = (node.options.lease ?? []).map((old) => (line.test(old) ? by : old));
  Object.assign(node.options, { lease: changed });
}

describe.each([consul, etcd])("$name", (backend) => {
  test("is down at the start, and later: the node waits, serves reads, and writes again", async ({
    skip,
  }) => {
    const server = await stage.server(backend.start());
    if (server === undefined) return skip();
    await server.process.kill();
    const cluster = await stage.cluster({ nodes: 1, lease: backend.lease(server.url) });
    const node = cluster.node(0);
    node.launch();
    await node.waitForLog(backend.remedy);
    server.process.start();
    await node.waitForLog("primary lease acquired", WAIT_MS);
    const db = cluster.connect(node, "app.db", { timeout: 100 });
    db.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (x INTEGER PRIMARY KEY)");
    db.exec("INSERT INTO t DEFAULT VALUES");
    await server.process.kill();
    await waitFor("writes to be refused", WAIT_MS, () => {
      try {
        db.exec("INSERT INTO t DEFAULT VALUES");
        return "written";
      } catch {
        return undefined;
      }
    });
    const written = db.prepare("SELECT count(*) FROM t").pluck().get();
    server.process.start();
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
    const server = await stage.server(backend.start());
    if (server === undefined) return skip();
    const cluster = await stage.cluster({ nodes: 2, lease: backend.lease(server.url) });
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

  test.each([
    ["a proxy's page", 200, "<html>Welcome!</html>"],
    ["its own trouble", 503, "no healthy upstream"],
    ["JSON of something else", 200, '{"hello": ["world"]}'],
  ])("answers %s: the node says so, goes on asking, and is no primary", async (_, status, text) => {
    let asked = 0;
    const other = http.createServer((_request, response) => {
      asked++;
      response.writeHead(status, { "content-type": "text/plain" }).end(text);
    });
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => {
      other.closeAllConnections();
      other.close();
    });
    const { port } = other.address() as AddressInfo;
    const cluster = await stage.cluster({
      nodes: 1,
      lease: backend.lease(`http://127.0.0.1:${port}`),
    });
    const node = cluster.node(0);
    node.launch();
    await node.waitForLog(new RegExp(`${backend.name}.*`, "i"));
    const before = asked;
    await waitFor("it to ask again", WAIT_MS, () =>
      asked > before + 3 ? undefined : `asked ${asked} times`,
    );
    expect(node.isRunning).toBe(true);
    expect((await node.status()).isPrimary).toBe(false);
    expect(node.log).toMatch(new RegExp(`level=(?:WARN|ERROR) .*${backend.name}`, "i"));
    // Not thousands of times a second.
    expect(asked).toBeLessThan(200);
  });
});

test("an advertise-url where nobody answers: the replica says so, and elects nobody else", async ({
  skip,
}) => {
  const server = await stage.server(consul.start());
  if (server === undefined) return skip();
  const [dead = 0] = await freePorts(1);
  const cluster = await stage.cluster({ nodes: 2, lease: consul.lease(server.url) });
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
  const server = await stage.server(consul.start());
  if (server === undefined) return skip();
  const cluster = await stage.cluster({ nodes: 2, lease: consul.lease(server.url) });
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
