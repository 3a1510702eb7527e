import { assert } from "../../src/lib/assert.ts";
import * as fs from "node:fs";
import type Database from "better-sqlite3";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { Cluster } from "../support/cluster.ts";
import { startPython } from "../support/shell.ts";

const MEGABYTE = 1024 * 1024;

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start();
});
afterAll(() => cluster.dispose());

/** A database of its own for one test, with a table of blobs. */
function create(name: string, mode: string, pageSize = 4096): Database.Database {
  const db = cluster.connect(cluster.primary, name);
  db.pragma(`page_size=${pageSize}`);
  db.pragma(`journal_mode=${mode}`);
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
  return db;
}

function fill(db: Database.Database, rows: number, bytes: number): void {
  const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(?))");
  db.transaction(() => {
    for (let i = 0; i < rows; i++) insert.run(bytes);
  })();
}

function countOn(node: number, name: string): unknown {
  const db = cluster.connect(cluster.node(node), name);
  const count = db.prepare("SELECT count(*) FROM t").pluck().get();
  db.close();
  return count;
}

async function expectEverywhere(name: string, count: number): Promise<void> {
  await cluster.waitForReplicas(name);
  for (const i of cluster.nodes.keys()) expect(countOn(i, name), `node ${i}`).toBe(count);
  await cluster.verify();
}

describe.each(["WAL", "DELETE", "TRUNCATE", "PERSIST"])("%s", (mode) => {
  const file = (what: string): string => `${mode.toLowerCase()}-${what}.db`;

  test("a transaction larger than the cache, committed and rolled back", async () => {
    const name = file("spill");
    const db = create(name, mode);
    db.pragma("cache_size=5");
    fill(db, 300, 3000);
    db.exec("BEGIN; UPDATE t SET x=randomblob(3000); UPDATE t SET x=randomblob(2000); ROLLBACK");
    db.exec("BEGIN; UPDATE t SET x=randomblob(3000); UPDATE t SET x=randomblob(2000); COMMIT");
    db.exec("BEGIN; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; RELEASE s");
    db.exec("INSERT INTO t(x) VALUES (1); COMMIT");
    await expectEverywhere(name, 301);
  });

  test("VACUUM shrinks the database", async () => {
    const name = file("vacuum");
    const db = create(name, mode);
    fill(db, 500, 3000);
    db.exec("DELETE FROM t WHERE id > 20");
    const before = cluster.primary.position(name);
    db.exec("VACUUM");
    expect(cluster.primary.position(name)).not.toBe(before);
    await expectEverywhere(name, 20);
    expect((await cluster.replica.exportBytes(name)).length).toBeLessThan(40 * 4096);
  });

  test("auto_vacuum shrinks the database at each commit", async () => {
    const name = file("autovacuum");
    const db = cluster.connect(cluster.primary, name);
    db.pragma("auto_vacuum=FULL");
    db.pragma(`journal_mode=${mode}`);
    db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
    fill(db, 300, 3000);
    for (let left = 200; left >= 0; left -= 50) db.exec(`DELETE FROM t WHERE id > ${left + 10}`);
    await expectEverywhere(name, 10);
  });

  test("removed and created again, with another page size", async () => {
    const name = file("recreated");
    fill(create(name, mode), 50, 500);
    cluster.closeConnections();
    await cluster.waitForReplicas(name);
    fs.rmSync(cluster.primary.file(name));
    expect(fs.existsSync(cluster.primary.file(name))).toBe(false);
    fill(create(name, mode, 1024), 7, 500);
    await expectEverywhere(name, 7);
    const db = cluster.connect(cluster.replica, name);
    expect(db.pragma("page_size", { simple: true })).toBe(1024);
  });

  test("two writers take turns", async () => {
    const name = file("writers");
    create(name, mode);
    cluster.closeConnections();
    const insert = `
for i in range(150):
  db.execute('BEGIN IMMEDIATE')
  db.execute('INSERT INTO t(x) VALUES (?)', (os.urandom(100),))
  db.execute('COMMIT')`;
    const path = cluster.primary.file(name);
    const results = await Promise.all([startPython(path, insert), startPython(path, insert)]);
    expect(results.map(({ code, stderr }) => ({ code, stderr }))).toEqual([
      { code: 0, stderr: "" },
      { code: 0, stderr: "" },
    ]);
    await expectEverywhere(name, 300);
  });
});

describe("WAL", () => {
  test.each(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])(
    "checkpoint %s between writes",
    async (kind) => {
      const name = `checkpoint-${kind.toLowerCase()}.db`;
      const db = create(name, "WAL");
      for (let i = 0; i < 5; i++) {
        fill(db, 20, 2000);
        expect(db.pragma(`wal_checkpoint(${kind})`)).toMatchObject([{ busy: 0 }]);
        fill(db, 1, 10);
      }
      await expectEverywhere(name, 105);
    },
  );

  test("automatic checkpoints and restarts under many writes", async () => {
    const name = "autocheckpoint.db";
    const db = create(name, "WAL");
    db.pragma("wal_autocheckpoint=10");
    const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(1000))");
    for (let i = 0; i < 400; i++) insert.run();
    await expectEverywhere(name, 400);
  });

  test("an open reader keeps its snapshot over checkpoints", async () => {
    const name = "long-reader.db";
    const db = create(name, "WAL");
    fill(db, 10, 1000);
    const reader = cluster.connect(cluster.primary, name);
    reader.exec("BEGIN");
    const count = reader.prepare("SELECT count(*) FROM t").pluck();
    expect(count.get()).toBe(10);
    for (let i = 0; i < 5; i++) {
      fill(db, 10, 1000);
      db.pragma("wal_checkpoint(PASSIVE)");
    }
    expect(count.get()).toBe(10);
    reader.exec("COMMIT");
    expect(count.get()).toBe(60);
    await expectEverywhere(name, 60);
  });

  test("to DELETE and back, while replicas have it open", async () => {
    const name = "switch.db";
    const db = create(name, "WAL");
    fill(db, 10, 1000);
    await cluster.waitForReplicas(name);
    for (const mode of ["DELETE", "WAL", "TRUNCATE", "WAL", "PERSIST", "WAL"]) {
      expect(db.pragma(`journal_mode=${mode}`, { simple: true })).toBe(mode.toLowerCase());
      fill(db, 3, 1000);
      await cluster.waitForReplicas(name);
      const reader = cluster.connect(cluster.replica, name);
      const count = reader.prepare("SELECT count(*) FROM t").pluck().get();
      expect(count).toBe(db.prepare("SELECT count(*) FROM t").pluck().get());
      reader.close();
    }
    await expectEverywhere(name, 28);
  });

  test("to DELETE, while an idle connection on a replica keeps it open", async () => {
    const name = "switch-idle.db";
    const db = create(name, "WAL");
    fill(db, 10, 1000);
    await cluster.waitForReplicas(name);
    const idle = cluster.connect(cluster.replica, name);
    const count = idle.prepare("SELECT count(*) FROM t").pluck();
    expect(count.get()).toBe(10);
    db.pragma("journal_mode=DELETE");
    // More than one local WAL holds, so that it starts over in between.
    for (let i = 1; i <= 5; i++) {
      fill(db, 200, 3900);
      await cluster.waitForReplicas(name);
      expect(count.get()).toBe(10 + 200 * i);
    }
    await expectEverywhere(name, 1010);
  });
});

// better-sqlite3 refuses OFF.
test.each(["MEMORY", "OFF"])(
  "journal_mode=%s is captured when the lock is given up",
  async (mode) => {
    const name = `${mode.toLowerCase()}.db`;
    const source = `
assert db.execute("PRAGMA journal_mode=${mode}").fetchone()[0] == "${mode.toLowerCase()}"
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
for i in range(30): db.execute("INSERT INTO t(x) VALUES (?)", (os.urandom(1000),))
db.execute("BEGIN")
for i in range(30): db.execute("INSERT INTO t(x) VALUES (?)", (os.urandom(1000),))
db.execute("DELETE FROM t WHERE id <= 20")
db.execute("COMMIT")`;
    const { code, stderr } = await startPython(cluster.primary.file(name), source);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    await expectEverywhere(name, 40);
  },
);

test.each(["WAL", "DELETE"])(
  "a %s transaction of 128 MB reaches a replica, and no node holds it in memory",
  async (mode) => {
    const pair = await Cluster.start({ replicas: 1 });
    onTestFinished(() => pair.dispose());
    const db = pair.connect(pair.primary, "large.db");
    db.pragma(`journal_mode=${mode}`);
    db.pragma("cache_size=-4000");
    db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
    await pair.waitForReplicas("large.db");
    const [replica] = pair.replicas;
    assert(replica !== undefined, "a replica");
    const reader = pair.connect(replica, "large.db").prepare("SELECT count(*) AS n FROM t");
    expect(reader.get()).toEqual({ n: 0 });
    // A smaller one first: what any load makes of a fresh process is not what this is about.
    db.exec("CREATE TABLE warm(x BLOB)");
    const warm = db.prepare("INSERT INTO warm VALUES (randomblob(?))");
    db.transaction(() => {
      for (let i = 0; i < 32; i++) warm.run(MEGABYTE);
    })();
    await pair.waitForReplicas("large.db");
    const before = pair.nodes.map((node) => node.residentBytes());
    const peak = [...before];
    const sample = (): void => {
      for (const [i, node] of pair.nodes.entries()) {
        peak[i] = Math.max(peak[i] ?? 0, node.residentBytes());
      }
    };
    const sampler = setInterval(sample, 5);
    const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(?))");
    db.transaction(() => {
      for (let i = 0; i < 128; i++) insert.run(MEGABYTE);
    })();
    await pair.waitForReplicas("large.db");
    expect(reader.get()).toEqual({ n: 128 });
    clearInterval(sampler);
    sample();
    for (const [i, bytes] of peak.entries()) {
      expect(bytes - (before[i] ?? 0)).toBeLessThan(100 * MEGABYTE);
    }
    await pair.verify();
  },
);

test.each(["WAL", "DELETE"])(
  "capturing 96 MB in one %s transaction takes bounded memory",
  async (mode) => {
    const alone = await Cluster.start({ replicas: 0 });
    onTestFinished(() => alone.dispose());
    const db = alone.connect(alone.primary, "large.db");
    db.pragma(`journal_mode=${mode}`);
    db.pragma("cache_size=-4000");
    db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x BLOB)");
    const before = alone.primary.residentBytes();
    let peak = before;
    const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(?))");
    db.transaction(() => {
      for (let i = 0; i < 96; i++) {
        insert.run(MEGABYTE);
        peak = Math.max(peak, alone.primary.residentBytes());
      }
    })();
    peak = Math.max(peak, alone.primary.residentBytes());
    expect(peak - before).toBeLessThan(64 * MEGABYTE);
    await alone.verify();
  },
);
