import { afterEach, expect, test } from "vitest";
import { waitFor } from "../support/cluster.ts";
import { cleanUpElectedAfterEach, ElectedCluster } from "../support/elected-cluster.ts";
import { etcdLease, startEtcd } from "../support/servers/etcd.ts";
import { useServer } from "../support/servers/use-server.ts";
import { SqliteProcess } from "../support/sqlite-process.ts";
import type { TestNode } from "../support/test-node.ts";

const ROWS = "SELECT row FROM t ORDER BY rowid";

const etcdServer = useServer(startEtcd);
cleanUpElectedAfterEach();
let open: SqliteProcess | undefined;
afterEach(async () => await open?.dispose());

function rowsOf(at: ElectedCluster, node: TestNode): unknown[] {
  const db = at.connect(node, "app.db", { readonly: true });
  return db.prepare(ROWS).pluck().all();
}

/**
 * A primary is deposed with transactions that nobody else has, and its successor makes as many, so
 * that SQLite's change counter is the same in both histories. A connection that has been open at the
 * deposed one all the time takes its cache for good by that counter alone, in rollback modes.
 */
async function depose(
  at: ElectedCluster,
  journalMode: string,
  counts: { readonly own: number; readonly successor: number },
): Promise<SqliteProcess> {
  const [n0, n1] = [at.node(0), at.node(1)];
  const connection = new SqliteProcess(n0.file("app.db"));
  open = connection;
  await connection.run(`PRAGMA journal_mode = ${journalMode}`);
  await connection.run("CREATE TABLE t (row TEXT)");
  await connection.run("INSERT INTO t VALUES ('common')");
  await at.waitForSame("app.db", n0, [n1]);
  await n1.kill();
  for (let i = 0; i < counts.own; i++) {
    await connection.run(`INSERT INTO t VALUES ('own ${i}')`);
  }
  await n0.freeze();
  await n1.start();
  expect(await at.waitForPrimary([n1])).toBe(n1);
  const other = at.connect(n1, "app.db");
  const insert = other.prepare("INSERT INTO t VALUES (?)");
  for (let i = 0; i < counts.successor; i++) insert.run(`successor ${i}`);
  n0.signal("SIGCONT");
  await waitFor("the deposed primary to follow", 60_000, () => {
    const isThere = n0.role() === "replica" && n0.position("app.db") === n1.position("app.db");
    return isThere ? undefined : `${n0.role()} ${n0.position("app.db")}`;
  });
  return connection;
}

const HISTORIES = [
  { own: 1, successor: 1 },
  { own: 3, successor: 3 },
] as const;
const CASES = ["wal", "delete", "truncate", "persist"].flatMap((mode) =>
  HISTORIES.map((counts) => ({ mode, ...counts })),
);

test.each(CASES)(
  "what a connection has cached at a deposed primary is not taken for the history of its successor ($mode, $own)",
  async ({ mode, own, successor }) => {
    const etcd = etcdServer();
    if (etcd === undefined) return;
    const cluster = await ElectedCluster.start({ lease: etcdLease(etcd), nodes: 2 });
    const connection = await depose(cluster, mode, { own, successor });
    const agreed = ["common", ...Array.from({ length: successor }, (_, i) => `successor ${i}`)];
    const seen = async (): Promise<unknown[]> => (await connection.run(ROWS)).flat();
    if (own === 1) expect(await seen()).toEqual(agreed);
    // Its cached pages would go over those of the successor.
    await connection.run("INSERT INTO t VALUES ('more')");
    expect(await seen()).toEqual([...agreed, "more"]);
    await cluster.verify();
    for (const node of cluster.nodes) expect(rowsOf(cluster, node)).toEqual([...agreed, "more"]);
  },
);
