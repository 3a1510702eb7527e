import * as fs from "node:fs";
import * as http from "node:http";
import * as path from "node:path";
import Database from "better-sqlite3";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { DatabaseImporter } from "../../../src/http/database-import.ts";
import { serveNode } from "../cluster/node-harness.ts";
import type { ServedNode, ServedNodeOptions } from "../cluster/node-harness.ts";
import { newEngine, temporaryDirectory } from "../cluster/stand-ins.ts";

/** Stands for the mount: SQLite does not see the difference. */
let mount: string;
let data: string;

beforeEach(() => {
  mount = temporaryDirectory();
  data = temporaryDirectory();
});

async function start(options: ServedNodeOptions = {}): Promise<ServedNode> {
  const importer = new DatabaseImporter({ dataDirectory: data, mountPoint: mount });
  return await serveNode(newEngine(), { importer, ...options });
}

async function send(node: ServedNode, query: string, body: Uint8Array): Promise<[number, string]> {
  const answer = await fetch(`${node.url}/import${query}`, {
    method: "POST",
    body: new Uint8Array(body),
  });
  return [answer.status, await answer.text()];
}

/** The bytes of a database with one table of some rows. */
function databaseBytes(rows: number, pragmas: readonly string[] = []): Buffer {
  const file = path.join(temporaryDirectory(), "source.db");
  const db = new Database(file);
  for (const pragma of pragmas) db.pragma(pragma);
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE INDEX i ON t(x)");
  const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(900))");
  db.transaction(() => {
    for (let i = 0; i < rows; i++) insert.run();
  })();
  db.close();
  return fs.readFileSync(file);
}

function open(name: string): Database.Database {
  const db = new Database(path.join(mount, name));
  onTestFinished(() => void db.close());
  return db;
}

function rowCount(db: Database.Database): unknown {
  return db.prepare("SELECT count(*) FROM t").pluck().get();
}

describe("POST /import", () => {
  test("makes a new database, in the journal mode of the file", async () => {
    const node = await start();
    const bytes = databaseBytes(100, ["page_size=1024", "journal_mode=WAL"]);
    expect(await send(node, "?name=new.db", bytes)).toEqual([200, ""]);
    const db = open("new.db");
    expect(rowCount(db)).toBe(100);
    expect(db.pragma("page_size", { simple: true })).toBe(1024);
    expect(db.pragma("journal_mode", { simple: true })).toBe("wal");
    expect(fs.readdirSync(path.join(data, "import"))).toEqual([]);
  });

  test.each(["WAL", "DELETE"])("replaces a %s database under open connections", async (mode) => {
    const node = await start();
    const db = open("app.db");
    db.exec(`PRAGMA journal_mode=${mode}; CREATE TABLE t(x); INSERT INTO t VALUES (1)`);
    expect(rowCount(db)).toBe(1);
    expect(await send(node, "?name=app.db", databaseBytes(500))).toEqual([200, ""]);
    expect(rowCount(db)).toBe(500);
    expect(db.pragma("integrity_check", { simple: true })).toBe("ok");
    expect(db.pragma("journal_mode", { simple: true })).toBe(mode.toLowerCase());
    // A smaller file makes the database smaller.
    expect(await send(node, "?name=app.db", databaseBytes(3))).toEqual([200, ""]);
    expect(rowCount(db)).toBe(3);
  });

  test("waits for a writer, and for a user of another page size", async () => {
    const node = await start();
    const db = open("app.db");
    db.exec("PRAGMA journal_mode=WAL; CREATE TABLE t(x); BEGIN IMMEDIATE");
    let answered = false;
    const answer = send(node, "?name=app.db", databaseBytes(20, ["page_size=512"])).then((a) => {
      answered = true;
      return a;
    });
    const spooled = path.join(data, "import");
    await expect.poll(() => fs.existsSync(spooled)).toBe(true);
    expect(answered).toBe(false);
    db.exec("COMMIT");
    db.close();
    expect(await answer).toEqual([200, ""]);
    expect(open("app.db").pragma("page_size", { simple: true })).toBe(512);
  });

  test("refuses what is no complete, sound database, and changes nothing", async () => {
    const node = await start();
    const db = open("app.db");
    db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    const good = databaseBytes(200);
    const cut = good.subarray(0, good.length - 4096);
    const damaged = Buffer.from(good);
    damaged.fill(0xff, 4096 * 3, 4096 * 4);
    for (const [bytes, reason] of [
      [Buffer.alloc(0), /"app\.db": it is empty/],
      [Buffer.from("hello"), /"app\.db": a SQLite database starts with 100 header bytes/],
      [Buffer.alloc(8192, "x"), /not a SQLite database/],
      [cut, /it was cut off: \d+ of \d+ bytes/],
      [damaged, /it is damaged: /],
    ] as const) {
      const [status, text] = await send(node, "?name=app.db", bytes);
      expect(text).toMatch(reason);
      expect(status).toBe(400);
      const [newStatus] = await send(node, "?name=new.db", bytes);
      expect(newStatus).toBe(400);
    }
    expect(rowCount(db)).toBe(1);
    expect(fs.readdirSync(mount)).toEqual(["app.db"]);
    expect(fs.readdirSync(path.join(data, "import"))).toEqual([]);
  });

  test.each([
    ["", "name required\n"],
    ["?name=", "name required\n"],
    ["?name=..", "not a name of a database\n"],
    ["?name=a%2Fb", "not a name of a database\n"],
  ])("400 for %j", async (query, text) => {
    const node = await start();
    expect(await send(node, query, databaseBytes(1))).toEqual([400, text]);
  });

  test("503 on a replica", async () => {
    const node = await start({
      role: { isPrimary: false, primaryHostname: "n0", phase: "replica" },
    });
    expect(await send(node, "?name=a.db", databaseBytes(1))).toEqual([
      503,
      "lease expired: this node is not the primary; the primary is n0\n",
    ]);
  });

  test("an upload that breaks leaves nothing", async () => {
    const node = await start();
    const bytes = databaseBytes(50);
    const headers = { "content-length": bytes.length };
    const url = `${node.url}/import?name=a.db`;
    const upload = http.request(url, { method: "POST", headers });
    upload.on("error", () => undefined);
    upload.write(bytes.subarray(0, 5000));
    const spool = path.join(data, "import");
    await expect.poll(() => fs.existsSync(spool) && fs.readdirSync(spool).length).toBe(1);
    upload.destroy();
    await expect.poll(() => fs.readdirSync(spool)).toEqual([]);
    expect(fs.readdirSync(mount)).toEqual([]);
  });

  test("a disk that fails is an error that says so", async () => {
    fs.writeFileSync(path.join(data, "import"), "in the way");
    const node = await start();
    const [status, text] = await send(node, "?name=a.db", databaseBytes(1));
    expect(status).toBe(500);
    expect(text).toMatch(/cannot import "a\.db"; nothing has changed: /);
  });

  test("what a predecessor left is removed", () => {
    fs.mkdirSync(path.join(data, "import/x"), { recursive: true });
    new DatabaseImporter({ dataDirectory: data, mountPoint: mount }).removeLeftovers();
    expect(fs.readdirSync(data)).toEqual([]);
  });
});
