import * as fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type Database from "better-sqlite3";
import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster } from "../support/cluster.ts";
import type { TestNode } from "../support/test-node.ts";
import { startPython } from "../support/shell.ts";

cleanUpAfterEach();

const NAMES = ["one.db", "two.db", "three.db"] as const;
const TOTAL = 3000;

/** Three databases that share an amount; every transaction moves some of it between them. */
function create(cluster: Cluster, mode: string): void {
  for (const name of NAMES) {
    const db = cluster.connect(cluster.primary, name);
    db.pragma(`journal_mode=${mode}`);
    db.exec("CREATE TABLE t(amount INTEGER, n INTEGER, pad BLOB)");
    db.exec(`INSERT INTO t VALUES (${TOTAL / NAMES.length}, 0, randomblob(3000))`);
    db.close();
  }
}

function attached(cluster: Cluster, node: TestNode): Database.Database {
  const db = cluster.connect(node, NAMES[0]);
  db.exec(`ATTACH '${node.file(NAMES[1])}' AS two; ATTACH '${node.file(NAMES[2])}' AS three`);
  return db;
}

const MOVE = `
  BEGIN IMMEDIATE;
  UPDATE main.t SET amount = amount - 3, n = n + 1, pad = randomblob(3000);
  UPDATE two.t SET amount = amount + 1, n = n + 1, pad = randomblob(3000);
  UPDATE three.t SET amount = amount + 2, n = n + 1, pad = randomblob(3000);
  COMMIT`;

const mover = (node: TestNode): string => `
db.execute("ATTACH ? AS two", (${JSON.stringify(node.file(NAMES[1]))},))
db.execute("ATTACH ? AS three", (${JSON.stringify(node.file(NAMES[2]))},))
while True:
  for sql in ${JSON.stringify(MOVE)}.split(";"): db.execute(sql)
  open(${JSON.stringify(progressOf(node))}, "w").close()`;

/** Appears when the mover has committed once. */
const progressOf = (node: TestNode): string => `${node.options.directory}/moved`;

/** Lets a mover get going, and then for a moment more. */
async function letMove(node: TestNode, momentMs: number): Promise<void> {
  await expect.poll(() => fs.existsSync(progressOf(node)), { timeout: 30_000 }).toBe(true);
  await sleep(momentMs);
  fs.rmSync(progressOf(node), { force: true });
}

const SUM = `SELECT (SELECT sum(amount) FROM main.t) + (SELECT sum(amount) FROM two.t)
  + (SELECT sum(amount) FROM three.t) AS total,
  (SELECT n FROM main.t) = (SELECT n FROM two.t) AND (SELECT n FROM two.t) = (SELECT n FROM three.t)
  AS isTogether, (SELECT n FROM main.t) AS n`;

/** What SQLite leaves in the mount beside the databases. */
function leftovers(node: TestNode): string[] {
  return fs.readdirSync(node.mountPoint).filter((name) => /-mj|-journal/.test(name));
}

async function expectTogether(cluster: Cluster): Promise<number> {
  // Opening all of them plays back what is to be played back.
  const row = attached(cluster, cluster.primary).prepare(SUM).get();
  expect(row).toMatchObject({ total: TOTAL, isTogether: 1 });
  for (const name of NAMES) await cluster.waitForReplicas(name);
  for (const node of cluster.replicas) {
    expect(attached(cluster, node).prepare(SUM).get()).toEqual(row);
  }
  await cluster.verify();
  const n: unknown = typeof row === "object" && row !== null ? Reflect.get(row, "n") : undefined;
  return Number(n);
}

test.each(["DELETE", "TRUNCATE", "PERSIST", "WAL"])(
  "a transaction over three databases, %s",
  async (mode) => {
    const cluster = await Cluster.start({ replicas: 1 });
    create(cluster, mode);
    const db = attached(cluster, cluster.primary);
    for (let i = 0; i < 10; i++) db.exec(MOVE);
    db.exec("BEGIN; UPDATE main.t SET amount=0; UPDATE two.t SET amount=0; ROLLBACK");
    expect(await expectTogether(cluster)).toBe(10);
    if (mode === "DELETE" || mode === "TRUNCATE") {
      expect(leftovers(cluster.primary).filter((name) => name.includes("-mj"))).toEqual([]);
    }
  },
);

test.each(["DELETE", "TRUNCATE", "PERSIST"])(
  "the application is killed in a transaction over three databases, %s",
  async (mode) => {
    const cluster = await Cluster.start({ replicas: 1 });
    create(cluster, mode);
    let last = 0;
    for (let round = 0; round < 6; round++) {
      const stop = new AbortController();
      const run = startPython(cluster.primary.file(NAMES[0]), mover(cluster.primary), stop.signal);
      await letMove(cluster.primary, round * 17);
      stop.abort();
      await run;
      const n = await expectTogether(cluster);
      expect(n).toBeGreaterThanOrEqual(last);
      last = n;
    }
  },
);

test.each(["DELETE", "TRUNCATE", "PERSIST"])(
  "the primary is killed in a transaction over three databases, %s",
  async (mode) => {
    const cluster = await Cluster.start({ replicas: 1 });
    create(cluster, mode);
    let last = 0;
    for (let round = 0; round < 5; round++) {
      const run = startPython(cluster.primary.file(NAMES[0]), mover(cluster.primary));
      await letMove(cluster.primary, round * 13);
      const { primary } = cluster;
      primary.signal("SIGKILL");
      await primary.ended();
      const { code, stderr } = await run;
      // Only now: it would go on in the directory below the mount.
      primary.unmount();
      // Whatever the dead mount said to it: the process did not end by itself.
      expect(code, stderr).not.toBe(0);
      await cluster.primary.start();
      const n = await expectTogether(cluster);
      expect(n).toBeGreaterThanOrEqual(last);
      last = n;
    }
  },
);
