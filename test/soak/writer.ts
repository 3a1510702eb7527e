import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Database from "better-sqlite3";
import {
  DELETE_DATABASES,
  isExpected,
  LASTING_DATABASES,
  prepare,
  tell,
  transact,
} from "./workload.ts";

/*
 * node writer.ts MOUNT MILLISECONDS: writes to every lasting database in turn, with a pause between
 * transactions, and now and then does what applications do more rarely. Ends when it is killed, or
 * by itself when its mount is gone.
 */
const [mount = "", pause = "10"] = process.argv.slice(2);
const pauseMs = Number(pause);
const open = (name: string): Database.Database =>
  new Database(path.join(mount, name), { timeout: 20_000 });

const RARE: readonly (() => void | Promise<void>)[] = [
  () => withDatabase(anyOf(LASTING_DATABASES), (db) => db.exec("VACUUM")),
  () => withDatabase(anyOf(LASTING_DATABASES), (db) => void db.pragma("wal_checkpoint(TRUNCATE)")),
  () =>
    withDatabase(anyOf(LASTING_DATABASES), (db) => {
      db.exec("CREATE INDEX IF NOT EXISTS event_body ON event (body)");
      db.exec("DROP INDEX event_body");
    }),
  () =>
    withDatabase(anyOf(LASTING_DATABASES), (db) => {
      const table = `extra_${Math.floor(Math.random() * 5)}`;
      db.exec(`DROP TABLE IF EXISTS ${table}; CREATE TABLE ${table} (a, b, c)`);
      db.exec(`ALTER TABLE ${table} ADD COLUMN d`);
    }),
  comeAndGo,
  changeMode,
  backUp,
  largeTransaction,
];

function anyOf(names: readonly string[]): string {
  return names[Math.floor(Math.random() * names.length)] ?? "wal-0.db";
}

function withDatabase(name: string, work: (db: Database.Database) => void): void {
  const db = open(name);
  try {
    work(db);
  } finally {
    db.close();
  }
}

/** A database is made, used and dropped; the same few names again and again. */
function comeAndGo(): void {
  const name = `guest-${Math.floor(Math.random() * 10)}.db`;
  withDatabase(name, (db) => {
    prepare(db, Math.random() < 0.5 ? "WAL" : "DELETE");
    for (let i = 0; i < 20; i++) transact(db, 200);
  });
  if (Math.random() < 0.7) fs.rmSync(path.join(mount, name), { force: true });
}

function changeMode(): void {
  withDatabase("delete-1.db", (db) => {
    db.pragma("journal_mode = WAL");
    transact(db, 100);
    db.pragma("journal_mode = DELETE");
  });
}

/** With SQLite's online backup, into the mount and out of it. */
async function backUp(): Promise<void> {
  const source = open(anyOf(LASTING_DATABASES));
  try {
    await source.backup(path.join(mount, "backup.db"));
    const outside = `${mount}.backup`;
    await source.backup(outside);
    fs.rmSync(outside);
  } finally {
    source.close();
  }
}

function largeTransaction(): void {
  withDatabase(anyOf(LASTING_DATABASES), (db) => {
    db.transaction(() => {
      db.exec("CREATE TABLE IF NOT EXISTS large (body BLOB)");
      const add = db.prepare("INSERT INTO large VALUES (randomblob(10000))");
      for (let i = 0; i < 500; i++) add.run();
    })();
    db.exec("DROP TABLE large");
  });
}

const connections = new Map<string, Database.Database>();
for (const name of LASTING_DATABASES) {
  const db = open(name);
  prepare(db, DELETE_DATABASES.includes(name) ? "DELETE" : "WAL");
  connections.set(name, db);
}
let transactions = 0;
for (let round = 1; ; round++) {
  try {
    const db = connections.get(anyOf(LASTING_DATABASES));
    if (db !== undefined) transact(db, 20 + Math.floor(Math.random() * 2000));
    transactions++;
    if (round % 200 === 0) await RARE[Math.floor(Math.random() * RARE.length)]?.();
  } catch (error) {
    if (!isExpected(error)) tell({ type: "problem", text: `writer: ${String(error)}` });
    // The mount may be gone for good: whoever started this starts it anew.
    if (!fs.existsSync(path.join(mount, LASTING_DATABASES[0] ?? ""))) process.exit(1);
  }
  if (round % 100 === 0) tell({ type: "count", transactions });
  await sleep(pauseMs);
}
