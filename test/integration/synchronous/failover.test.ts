import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { waitFor } from "../../support/cluster.ts";
import { cleanUpElectedAfterEach, ElectedCluster } from "../../support/elected-cluster.ts";
import type { EtcdServer } from "../../support/servers/etcd.ts";
import { etcdLease, startEtcd } from "../../support/servers/etcd.ts";
import { useServer } from "../../support/servers/use-server.ts";
import { python, startPython } from "../../support/shell.ts";

const TTL_SECONDS = 2;
const WAIT_MS = 60_000;
/** Three nodes start, one of them twice, on a machine that may be busy. */
const TEST_MS = 300_000;

const etcdServer = useServer(startEtcd);
cleanUpElectedAfterEach();

async function started(server: EtcdServer): Promise<ElectedCluster> {
  const made = await ElectedCluster.start({
    lease: etcdLease(server, `${TTL_SECONDS}s`),
    config: "sync: {replicas: majority, nodes: 3, timeout: 20s}",
  });
  const n0 = made.node(0);
  expect((await made.waitForPrimary()).name).toBe("n0");
  await waitFor("both replicas to acknowledge", WAIT_MS, async () => {
    const { sync } = (await (await n0.get("/status")).json()) as { sync?: { replicas: number } };
    return sync?.replicas === 2 ? undefined : JSON.stringify(sync);
  });
  const setUp = "db.execute('PRAGMA journal_mode=WAL'); db.execute('CREATE TABLE t(x)')";
  python(n0.file("app.db"), setUp);
  return made;
}

test(
  "the primary dies under load: its successor has every row that was acknowledged, once",
  { timeout: TEST_MS },
  async ({ skip }) => {
    const etcd = etcdServer();
    if (etcd === undefined) return skip();
    const made = await started(etcd);
    const [n0, n1, n2] = [made.node(0), made.node(1), made.node(2)];
    const said = path.join(made.directory, "acknowledged");
    const source = `
out = open(${JSON.stringify(said)}, "w")
for i in range(100000):
  db.execute("INSERT INTO t VALUES (?)", (i,))
  print(i, file=out, flush=True)`;
    const writer = startPython(n0.file("app.db"), source);
    const acknowledged = (): string[] =>
      fs.existsSync(said) ? fs.readFileSync(said, "utf8").trim().split("\n") : [];
    await waitFor("some rows", WAIT_MS, () =>
      acknowledged().length > 50 ? undefined : String(acknowledged().length),
    );
    await n0.kill();
    expect((await writer).code).not.toBe(0);
    const next = await made.waitForPrimary([n1, n2]);
    const select = "print(*[x for x, in db.execute('SELECT x FROM t ORDER BY rowid')], sep='\\n')";
    const rows = python(next.file("app.db"), select).split("\n");
    // One more may be there: the one that was under way.
    const expected = acknowledged();
    expect(rows.slice(0, expected.length)).toEqual(expected);
    expect(rows.length).toBeLessThanOrEqual(expected.length + 1);
    await n0.start();
    expect(await made.waitForPrimary()).toBe(next);
    await made.verify();
  },
);

test(
  "what a majority has acknowledged survives, although the only other one that has it is away",
  { timeout: TEST_MS },
  async ({ skip }) => {
    const etcd = etcdServer();
    if (etcd === undefined) return skip();
    const made = await started(etcd);
    const [n0, n1, n2] = [made.node(0), made.node(1), made.node(2)];
    await waitFor("n2 to have the database", WAIT_MS, () =>
      n2.position("app.db") ? undefined : "no",
    );

    // From here on only n1 hears of anything.
    await n2.kill();
    python(n0.file("app.db"), "for i in range(20): db.execute('INSERT INTO t VALUES (?)', (i,))");
    n1.signal("SIGSTOP");
    await n0.kill();
    n2.launch();
    await waitFor("n2 to miss n1", WAIT_MS, () =>
      n2.log.includes("only 1 of the 2 candidates answer") ? undefined : n2.log.slice(-300),
    );
    // By now it would have taken the lease, which is free.
    await sleep(2 * TTL_SECONDS * 1_000);
    expect((await n2.status()).isPrimary).toBe(false);

    n1.signal("SIGCONT");
    expect(await made.waitForPrimary([n1, n2])).toBe(n1);
    const count = "print(db.execute('SELECT count(*) FROM t').fetchone()[0])";
    expect(python(n1.file("app.db"), count)).toBe("20");
    // With two of three there is a majority again.
    const insert =
      "db.execute('PRAGMA busy_timeout=30000'); db.execute('INSERT INTO t VALUES (20)')";
    python(n1.file("app.db"), insert);
    expect(python(n1.file("app.db"), count)).toBe("21");
    await n0.start();
    expect(await made.waitForPrimary()).toBe(n1);
    await made.verify();
  },
);
