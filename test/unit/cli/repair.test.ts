import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { checkDirectory } from "../../../src/cli/check-directory.ts";
import { dispatch } from "../../../src/cli/dispatch.ts";
import type { Database } from "../../../src/database/database.ts";
import { nodeFiles } from "../../../src/database/files.ts";
import { openDatabase } from "../../../src/database/recover.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import { Random } from "../database/support/fake-disk.ts";
import { FakeHost } from "../database/support/harness.ts";
import { MiniPager } from "../database/support/mini-pager.ts";
import { startFakeNode } from "./fake-node.ts";
import { recordedContext } from "./recorded-context.ts";

const NAME = "app.db";
let dataDirectory: string;
let directory: string;
beforeEach(() => {
  dataDirectory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-repair-"));
  directory = path.join(dataDirectory, "dbs", NAME);
  fs.mkdirSync(directory, { recursive: true });
});
afterEach(() => fs.rmSync(dataDirectory, { recursive: true }));

function open(): Database {
  return openDatabase(NAME, new FakeHost(), nodeFiles, directory);
}

async function repair(...args: string[]): Promise<{ code: number; said: string }> {
  const context = recordedContext();
  const flags = ["-data-dir", dataDirectory, "-name", NAME, ...args];
  const code = await dispatch(["repair", ...flags], context);
  return { code, said: context.output.stdout + context.output.stderr };
}

/** Every file of the database with the hash of its content. */
function fingerprint(): Record<string, string> {
  const files: Record<string, string> = {};
  for (const entry of fs.readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath, entry.name);
    const hash = createHash("sha256").update(fs.readFileSync(file)).digest("hex");
    files[path.relative(directory, file)] = hash;
  }
  return files;
}

function flip(name: string, offset: number): void {
  const file = path.join(directory, name);
  const bytes = fs.readFileSync(file);
  bytes[offset] = (bytes[offset] ?? 0) ^ 1;
  fs.writeFileSync(file, bytes);
}

async function problems(): Promise<readonly string[]> {
  const [result] = await checkDirectory({ dataDirectory, name: NAME });
  return result?.problems.filter((problem) => !problem.startsWith("integrity_check")) ?? [];
}

function kept(): string[] {
  return nodeFiles.list(path.join(directory, "quarantine"));
}

/** A database whose log goes back to its beginning; its pages are no real SQLite pages. */
function withWholeLog(): string {
  const db = open();
  const pager = new MiniPager(db, new Random(1), { pageSize: 512 });
  for (let i = 0; i < 5; i++) pager.transaction({ pgnos: [1, 2, 3, 4 + i], pageCount: 4 + i });
  const position = formatPosition(db.position);
  db.close();
  open().close();
  return position;
}

/** A real SQLite database whose log begins with it: nothing of it can be rebuilt. */
function withBase(): string {
  const sqlite = new Sqlite(path.join(directory, "database"));
  sqlite.exec("CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(20000)), ('a'), ('b')");
  sqlite.close();
  const db = open();
  const position = formatPosition(db.position);
  db.close();
  return position;
}

function rows(): number {
  const bytes = fs.readFileSync(path.join(directory, "database"));
  // There is no WAL in memory.
  bytes.fill(1, 18, 20);
  const sqlite = new Sqlite(bytes);
  try {
    return Number(sqlite.prepare("SELECT count(*) FROM t").pluck().get());
  } finally {
    sqlite.close();
  }
}

describe("litefs repair", () => {
  test("finds a sound database well, and forgets what an earlier run has found", async () => {
    withWholeLog();
    fs.writeFileSync(path.join(directory, "quarantined"), "a page was wrong\n");
    expect(open().reason).toBe("a page was wrong");
    const { code, said } = await repair();
    expect(said).toMatch(/^app\.db: is well, at 0+5\/[0-9a-f]{16}; nothing was replaced\n$/);
    expect(code).toBe(0);
    expect(open().status).toBe("ok");
    expect(kept()).toEqual([]);
  });

  test.each(["a flipped bit", "a cut file", "no file at all", "a directory"])(
    "rebuilds the database file from its log: %s",
    async (damage) => {
      const position = withWholeLog();
      const file = path.join(directory, "database");
      // In page 4, which the last transaction has not written.
      if (damage === "a flipped bit") flip("database", 1700);
      if (damage === "a cut file") fs.truncateSync(file, 700);
      if (damage !== "a flipped bit" && damage !== "a cut file") fs.rmSync(file);
      if (damage === "a directory") fs.mkdirSync(file);
      if (damage === "no file at all") return expect((await repair()).code).toBe(0);
      const before = fingerprint();
      expect((await problems()).length).toBeGreaterThan(0);

      const shelf = path.join(dataDirectory, "shelf");
      fs.writeFileSync(shelf, "");
      const dry = await repair("-dry-run");
      expect(fs.existsSync(shelf)).toBe(true);
      expect(dry.said).toContain(`rebuilt from 5 transactions of its log, at ${position}`);
      expect(dry.said).toContain("dry run: nothing was changed");
      expect(dry.code).toBe(0);
      expect(fingerprint()).toEqual(before);

      const { code, said } = await repair();
      // It says where the database stood before.
      expect(fs.existsSync(shelf)).toBe(false);
      expect(said).toContain("mended; what was there is kept in ");
      expect(code).toBe(0);
      expect(await problems()).toEqual([]);
      const db = open();
      expect(formatPosition(db.position)).toBe(position);
      db.close();
      const [copy] = kept();
      const old = `quarantine/${copy}/database`;
      if (damage !== "a directory") expect(fingerprint()[old]).toBe(before["database"]);
    },
  );

  test("says what else there is when the log does not have what is damaged", async () => {
    withBase();
    flip("database", 9000);
    const before = fingerprint();
    const { code, said } = await repair();
    expect(said).toContain("and not all that is damaged is in them");
    expect(said).toContain('"litefs repair -name app.db -from URL" takes it from another node');
    expect(said).toContain('"litefs repair -name app.db -accept" goes on with what SQLite finds');
    expect(code).toBe(1);
    expect(fingerprint()).toEqual(before);
  });

  test("accepts the content of the file as a new history", async () => {
    const before = withBase();
    flip("database", 9000);
    const { code, said } = await repair("-accept");
    expect(said).toContain("a new history begins at 0000000000000002/");
    expect(said).toContain("replicas get it as a snapshot");
    expect(said).toContain(`what the log says of ${before} and is not in the copy is lost`);
    expect(code).toBe(0);
    expect(await problems()).toEqual([]);
    expect(rows()).toBe(3);
    expect(kept()).toHaveLength(1);
  });

  test("goes on at the same position when only the log is damaged", async () => {
    withBase();
    flip("log/0000000000000002.seg", 45);
    expect(open().status).toBe("quarantined");
    const rebuild = await repair();
    expect(rebuild.said).toContain("cannot be rebuilt from its log: ");
    expect(rebuild.code).toBe(1);
    const { code, said } = await repair("-accept");
    expect(said).toContain(
      "its log cannot be read to the end; the last transaction that it tells of is 1",
    );
    expect(code).toBe(0);
    expect(await problems()).toEqual([]);
    expect(open().position.txid).toBe(2);
  });

  test("takes what only the WAL has, as SQLite would", async () => {
    withBase();
    const work = path.join(dataDirectory, "work");
    fs.copyFileSync(path.join(directory, "database"), work);
    const sqlite = new Sqlite(work);
    sqlite.pragma("journal_mode=WAL");
    sqlite.exec("INSERT INTO t VALUES ('c')");
    fs.copyFileSync(work, path.join(directory, "database"));
    fs.copyFileSync(`${work}-wal`, path.join(directory, "wal"));
    sqlite.close();
    expect((await repair("-accept")).code).toBe(0);
    expect(rows()).toBe(4);
    expect(fs.existsSync(path.join(directory, "wal"))).toBe(false);
    expect(await problems()).toEqual([]);
  });

  test("does not accept what SQLite finds damaged, unless it is told to", async () => {
    withBase();
    const file = path.join(directory, "database");
    const bytes = fs.readFileSync(file);
    bytes.fill(0xff, 4096, 4196);
    fs.writeFileSync(file, bytes);
    const refused = await repair("-accept");
    expect(refused.said).toContain("integrity_check: ");
    expect(refused.said).toContain("SQLite itself finds damage in the file");
    expect(refused.code).toBe(1);
    const { code } = await repair("-accept", "-force");
    expect(code).toBe(0);
    expect(await problems()).toEqual([]);
  });

  test("takes the database from another node, at its position", async () => {
    const position = withBase();
    const sound = fs.readFileSync(path.join(directory, "database"));
    flip("database", 9000);
    const node = await startFakeNode((_request, response) => {
      response.setHeader("litefs-position", position);
      response.end(sound);
    });
    try {
      const { code, said } = await repair("-from", node.url);
      expect(said).toContain(
        `taken from ${node.url} at ${position}; replicas at that position go on`,
      );
      expect(said).not.toContain("lost");
      expect(code).toBe(0);
      expect(node.requests).toEqual(["GET /export?name=app.db"]);
    } finally {
      node.close();
    }
    expect(formatPosition(open().position)).toBe(position);
    expect(await problems()).toEqual([]);
    expect(fs.readFileSync(path.join(directory, "database"))).toEqual(sound);
  });

  test("tells which transactions are lost when the other node is behind", async () => {
    const older = withBase();
    const old = fs.readFileSync(path.join(directory, "database"));
    fs.rmSync(directory, { recursive: true });
    fs.mkdirSync(directory);
    withWholeLog();
    flip("database", 1700);
    const node = await startFakeNode((_request, response) => {
      response.setHeader("litefs-position", older);
      response.end(old);
    });
    try {
      const { code, said } = await repair("-from", node.url);
      expect(said).toContain("transactions 2 to 5 are lost, and stay in what is kept");
      expect(code).toBe(0);
    } finally {
      node.close();
    }
  });

  test("changes nothing when the other node breaks off or does not have it", async () => {
    withBase();
    flip("database", 9000);
    const before = fingerprint();
    for (const answer of [200, 404]) {
      const node = await startFakeNode((_request, response) => {
        response.statusCode = answer;
        response.end("no database");
      });
      const { code, said } = await repair("-from", node.url);
      node.close();
      expect(said).toMatch(/which is not a whole database|refused: no database/);
      expect(code).toBe(1);
      expect(fingerprint()).toEqual(before);
    }
  });

  test("wants to be told what to do, in words that it knows", async () => {
    expect((await repair("-accept", "-from", "http://localhost:1")).code).toBe(2);
    expect((await repair("-force")).code).toBe(2);
    expect((await repair("-name", "other.db")).said).toContain('no database "other.db"');
    const context = recordedContext();
    expect(await dispatch(["repair", "-data-dir", dataDirectory], context)).toBe(2);
  });
});
