import * as fs from "node:fs";
import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster, waitFor } from "../support/cluster.ts";
import { startPython } from "../support/shell.ts";

cleanUpAfterEach();

/** A transaction in a rollback mode that does not fit into the cache: pages are in the file early. */
const LONG_TRANSACTION = `
db.execute("PRAGMA cache_size=5")
db.execute("BEGIN IMMEDIATE")
for i in range(200): db.execute("INSERT INTO t VALUES (randomblob(2000))")
print("open", flush=True)
open(sys.argv[1].replace("/mnt/", "/") + ".open", "w").close()
while not os.path.exists(sys.argv[1].replace("/mnt/", "/") + ".go"): time.sleep(0.005)
db.execute("COMMIT")
`;

async function prepare(): Promise<Cluster> {
  const cluster = await Cluster.create({ replicas: 1 });
  await cluster.primary.start();
  const db = cluster.connect(cluster.primary, "app.db");
  db.pragma("journal_mode = DELETE");
  db.exec("CREATE TABLE t(x); INSERT INTO t VALUES ('first')");
  cluster.closeConnections();
  return cluster;
}

async function waitUntilOpen(cluster: Cluster): Promise<void> {
  const { directory } = cluster.primary.options;
  await waitFor("the transaction to be open", 30_000, () =>
    fs.existsSync(`${directory}/app.db.open`) ? undefined : "not yet",
  );
}

test("a replica that joins in the middle of a transaction gets the database after it", async () => {
  const cluster = await prepare();
  const { primary, replica } = cluster;
  const writing = startPython(primary.file("app.db"), LONG_TRANSACTION);
  await waitUntilOpen(cluster);
  replica.launch();
  await replica.waitForLog("connected to primary");
  // A check cannot tell what the file will be: it says so, and does not call it damaged.
  const answer = await (await primary.get("/check?name=app.db")).text();
  expect(answer).not.toContain("mismatch");
  // It does not have all that the primary has, and must not count as one that has.
  expect((await replica.get("/readyz")).status).toBe(503);
  fs.writeFileSync(`${primary.options.directory}/app.db.go`, "");
  expect((await writing).code).toBe(0);
  await replica.waitForLog("connected to cluster, ready");
  await cluster.waitForReplicas("app.db");
  const local = cluster.connect(replica, "app.db");
  expect(local.prepare("SELECT count(*) FROM t").pluck().get()).toBe(201);
  expect(primary.log).not.toContain("damaged");
  await cluster.verify();
});

test("a replica joins after a writer died in the middle, and nobody has come since", async () => {
  const cluster = await prepare();
  const { primary, replica } = cluster;
  const stop = new AbortController();
  const writing = startPython(primary.file("app.db"), LONG_TRANSACTION, stop.signal);
  await waitUntilOpen(cluster);
  stop.abort();
  await writing;
  await replica.start();
  await cluster.waitForReplicas("app.db");
  const local = cluster.connect(replica, "app.db");
  expect(local.prepare("SELECT x FROM t").pluck().all()).toEqual(["first"]);
  await cluster.verify();
  const db = cluster.connect(primary, "app.db");
  expect(db.prepare("SELECT x FROM t").pluck().all()).toEqual(["first"]);
});
