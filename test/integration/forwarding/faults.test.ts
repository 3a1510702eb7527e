import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, test } from "vitest";
import { cleanUpAfterEach, Cluster, waitFor } from "../../support/cluster.ts";
import type { TestNode } from "../../support/test-node.ts";
import { startPython } from "../../support/shell.ts";

const MODES = ["WAL", "DELETE"];
const WAIT_MS = 30_000;
/** Longer than it takes to start the next writer. */
const LINGERS = "forward: {linger: 30s}";

cleanUpAfterEach();

/** A primary with one row in `app.db`, and a replica that has it and reaches it through a proxy. */
async function pair(mode: string, config = ""): Promise<Cluster> {
  const cluster = await Cluster.start({ replicas: 1, proxies: true, config });
  const db = cluster.connect(cluster.primary, "app.db");
  db.pragma(`journal_mode=${mode}`);
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x); INSERT INTO t(x) VALUES ('first')");
  db.close();
  await cluster.waitForReplicas("app.db");
  return cluster;
}

/** Inserts while the test goes on; says `ok` or what SQLite said. */
function startInsert(node: TestNode, text: string): Promise<string> {
  const source = `
try:
  db.execute("PRAGMA busy_timeout=20000")
  db.execute("INSERT INTO t(x) VALUES ('${text}')")
  print("ok")
except sqlite3.Error as error: print(type(error).__name__, error)`;
  return startPython(node.file("app.db"), source).then(({ stdout, stderr }) => stdout + stderr);
}

function rows(cluster: Cluster, node: TestNode): unknown[] {
  const db = cluster.connect(node, "app.db");
  const found = db.prepare("SELECT x FROM t ORDER BY id").pluck().all();
  db.close();
  return found;
}

async function untilPositionMoves(node: TestNode, from: string | undefined): Promise<void> {
  await waitFor("the primary to commit", WAIT_MS, () =>
    node.position("app.db") === from ? `still at ${from}` : undefined,
  );
}

describe.each(MODES)("%s", (mode) => {
  test("the connection is lost after the primary has the transaction: it succeeds, once", async () => {
    const cluster = await pair(mode, LINGERS);
    const { primary, replica } = cluster;
    expect(await startInsert(replica, "before")).toBe("ok");
    const position = primary.position("app.db");
    await cluster.proxy.set({ toClient: "drop" });
    // The right lingers from the insert before, so this one needs no answer until its commit.
    const insert = startInsert(replica, "lost");
    await untilPositionMoves(primary, position);
    await cluster.proxy.reset();
    await cluster.proxy.heal();
    expect(await insert).toBe("ok");
    expect(rows(cluster, replica)).toEqual(["first", "before", "lost"]);
    expect(rows(cluster, primary)).toEqual(["first", "before", "lost"]);
    await cluster.verify();
  });

  test("the connection is lost before the primary has it: it fails, and is nowhere", async () => {
    const cluster = await pair(mode, LINGERS);
    const { primary, replica } = cluster;
    expect(await startInsert(replica, "before")).toBe("ok");
    const position = primary.position("app.db");
    await cluster.proxy.set({ toServer: "drop" });
    const { fromClients } = await cluster.proxy.counts();
    const insert = startInsert(replica, "lost");
    await waitFor("the transaction to be sent", WAIT_MS, async () =>
      (await cluster.proxy.counts()).fromClients > fromClients + 4096 ? undefined : "not yet",
    );
    await cluster.proxy.reset();
    await cluster.proxy.heal();
    expect(await insert).toContain("disk I/O error");
    expect(primary.position("app.db")).toBe(position);
    expect(rows(cluster, replica)).toEqual(["first", "before"]);
    expect(await startInsert(replica, "again")).toBe("ok");
    expect(rows(cluster, replica)).toEqual(["first", "before", "again"]);
    await cluster.verify();
  });

  test("the primary is killed before it answers, and comes back: it succeeds, once", async () => {
    const cluster = await pair(mode, LINGERS);
    const { primary, replica } = cluster;
    expect(await startInsert(replica, "before")).toBe("ok");
    const position = primary.position("app.db");
    await cluster.proxy.set({ toClient: "drop" });
    const insert = startInsert(replica, "lost");
    await untilPositionMoves(primary, position);
    await primary.kill();
    await primary.start();
    await cluster.proxy.reset();
    await cluster.proxy.heal();
    const outcome = await insert;
    await cluster.waitForReplicas("app.db");
    // On a machine that is slow enough the outcome stays unknown for longer than anybody waits.
    expect(outcome).toMatch(/^ok$|disk I\/O error/);
    expect(rows(cluster, replica)).toEqual(["first", "before", "lost"]);
    await cluster.verify();
  });

  test("no primary: SQLITE_BUSY for writers, and readers go on", async () => {
    const cluster = await pair(mode, "forward: {timeout: 500ms}");
    await cluster.proxy.cut();
    const db = cluster.connect(cluster.replica, "app.db", { timeout: 100 });
    const insert = db.prepare("INSERT INTO t(x) VALUES ('nowhere')");
    for (let i = 0; i < 3; i++) {
      expect(() => insert.run()).toThrow(/database is locked/);
      expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(1);
    }
    await cluster.proxy.heal();
    await waitFor("writes to work again", WAIT_MS, () => {
      try {
        insert.run();
        return undefined;
      } catch (error) {
        return String(error);
      }
    });
    expect(rows(cluster, cluster.primary)).toEqual(["first", "nowhere"]);
    await cluster.verify();
  });

  test("an application that dies in the middle of a transaction leaves nothing behind", async () => {
    const cluster = await pair(mode);
    const { primary, replica } = cluster;
    const stop = new AbortController();
    const marker = path.join(cluster.directory, "marker");
    const source = `
db.execute("PRAGMA cache_size=5")
db.execute("BEGIN IMMEDIATE")
for i in range(300): db.execute("INSERT INTO t(x) VALUES (?)", ("half" + "x" * 1000,))
open("${marker}", "w").close()
time.sleep(60)`;
    const writer = startPython(replica.file("app.db"), source, stop.signal);
    await waitFor("the writer to be in its transaction", WAIT_MS, () =>
      fs.existsSync(marker) ? undefined : "no marker",
    );
    stop.abort();
    expect((await writer).code).not.toBe(0);
    expect(await startInsert(primary, "by the primary")).toBe("ok");
    await cluster.waitForReplicas("app.db");
    expect(rows(cluster, replica)).toEqual(["first", "by the primary"]);
    expect(await startInsert(replica, "by the replica")).toBe("ok");
    await cluster.verify();
  });

  test("a replica that is killed in the middle of a transaction gives the right back", async () => {
    const cluster = await pair(mode);
    const { primary, replica } = cluster;
    const marker = path.join(cluster.directory, "marker");
    const source = `
db.execute("BEGIN IMMEDIATE")
db.execute("INSERT INTO t(x) VALUES ('half')")
open("${marker}", "w").close()
time.sleep(30)
try: db.execute("COMMIT")
except sqlite3.Error as error: print(error)`;
    const stop = new AbortController();
    const writer = startPython(replica.file("app.db"), source, stop.signal);
    await waitFor("the replica to borrow the right", WAIT_MS, () =>
      fs.existsSync(marker) ? undefined : "no marker",
    );
    await replica.kill();
    stop.abort();
    await writer;
    expect(await startInsert(primary, "by the primary")).toBe("ok");
    await replica.start();
    await cluster.waitForReplicas("app.db");
    expect(rows(cluster, replica)).toEqual(["first", "by the primary"]);
    expect(await startInsert(replica, "by the replica")).toBe("ok");
    await cluster.verify();
  });
});
