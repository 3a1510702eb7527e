import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Cluster } from "../support/cluster.ts";
import { isInstalled, python, sqliteCli } from "../support/shell.ts";

const JOURNAL_MODES = ["WAL", "DELETE", "TRUNCATE", "PERSIST"] as const;
const PAGE_SIZES = [512, 4096, 65536] as const;
const hasCli = isInstalled("sqlite3");
const hasPython = isInstalled("python3");
if (!hasCli) process.stderr.write("SKIPPED: there is no sqlite3 program in PATH\n");
if (!hasPython) process.stderr.write("SKIPPED: there is no python3 in PATH\n");

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start();
});
afterAll(() => cluster.dispose());

const CASES = JOURNAL_MODES.flatMap((mode) =>
  PAGE_SIZES.map((pageSize) => ({ mode, pageSize, name: `${mode}-${pageSize}.db`.toLowerCase() })),
);

describe("what each driver writes in each mode is on every node", () => {
  test.each(CASES)("better-sqlite3, $mode, $pageSize", async ({ mode, pageSize, name }) => {
    const db = cluster.connect(cluster.primary, name);
    db.pragma(`page_size=${pageSize}`);
    expect(db.pragma(`journal_mode=${mode}`, { simple: true })).toBe(mode.toLowerCase());
    db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
    const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(?))");
    for (let i = 1; i <= 10; i++) insert.run(i * 300);
    db.transaction(() => {
      for (let i = 0; i < 50; i++) insert.run(700);
    })();
    db.exec("BEGIN; DELETE FROM t; ROLLBACK");
    db.exec("BEGIN; SAVEPOINT a; UPDATE t SET x='gone'; ROLLBACK TO a; DELETE FROM t WHERE id=3");
    db.exec("RELEASE a; COMMIT");
    expect(db.pragma("page_size", { simple: true })).toBe(pageSize);
    await cluster.waitForReplicas(name);
    for (const node of cluster.nodes) {
      const other = cluster.connect(node, name);
      const row = other.prepare("SELECT count(*) n, sum(id) s, max(length(x)) l FROM t").get();
      expect(row).toEqual({ n: 59, s: 60 * 30.5 - 3, l: 3000 });
    }
    cluster.closeConnections();
  });

  test.runIf(hasPython).each(CASES)(
    "Python, $mode, $pageSize",
    async ({ mode, pageSize, name }) => {
      const file = `py-${name}`;
      const source = [
        `db.execute("PRAGMA page_size=${pageSize}")`,
        `assert db.execute("PRAGMA journal_mode=${mode}").fetchone()[0] == "${mode.toLowerCase()}"`,
        'db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")',
        "for i in range(20): db.execute('INSERT INTO t(x) VALUES (?)', ('x' * i * 100,))",
        "db.execute('BEGIN'); db.execute('DELETE FROM t WHERE id > 10'); db.execute('COMMIT')",
        "db.execute('BEGIN'); db.execute('DELETE FROM t'); db.execute('ROLLBACK')",
        "print(db.execute('SELECT count(*) FROM t').fetchone()[0])",
      ].join("\n");
      expect(python(cluster.primary.file(file), source)).toBe("10");
      await cluster.waitForReplicas(file);
      for (const node of cluster.replicas) {
        const print = "print(db.execute('SELECT count(*), max(length(x)) FROM t').fetchone())";
        expect(python(node.file(file), print)).toBe("(10, 900)");
      }
    },
  );

  test.runIf(hasCli).each(CASES)("sqlite3, $mode, $pageSize", async ({ mode, pageSize, name }) => {
    const file = `cli-${name}`;
    const sql = `
      PRAGMA page_size=${pageSize}; PRAGMA journal_mode=${mode};
      CREATE TABLE t(id INTEGER PRIMARY KEY, x);
      INSERT INTO t(x) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c LIMIT 200)
        SELECT hex(randomblob(20)) FROM c;
      BEGIN; DELETE FROM t WHERE id % 2; COMMIT;
      BEGIN; DELETE FROM t; ROLLBACK;`;
    expect(sqliteCli(cluster.primary.file(file), sql)).toBe(mode.toLowerCase());
    await cluster.waitForReplicas(file);
    for (const node of cluster.replicas) {
      expect(sqliteCli(node.file(file), "SELECT count(*) FROM t")).toBe("100");
    }
  });

  test("all of it is sound", async () => {
    const positions = await cluster.verify();
    expect(Object.keys(positions).length).toBeGreaterThanOrEqual(CASES.length);
  });
});
