import * as fs from "node:fs";
import * as readline from "node:readline";
import Database from "better-sqlite3";
import type { AppReport } from "./report.ts";

/*
 * The application of the demo: an ordinary program that opens an ordinary SQLite file. Nothing in
 * it knows of litefs, except that it looks at `<database>-pos` to show how far the node is.
 *
 *   node app.ts writer|reader PATH
 *
 * The writer inserts rows; a reader looks for new ones. Both tell what they see on standard output,
 * one JSON object per line. A line on standard input ends the writing, the end of the input, which
 * also comes when the demo was killed, ends the program.
 */

const INSERT_EVERY_MS = 20;
const POLL_EVERY_MS = 1;
const REPORT_EVERY_MS = 100;

const [role = "", path = ""] = process.argv.slice(2);
let isWriting = true;

const input = readline.createInterface({ input: process.stdin });
input.on("line", () => {
  isWriting = false;
});
input.on("close", () => process.exit(0));
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(0));
// Whoever listened to the reports is gone; the end of the input tells the same.
process.stdout.on("error", () => process.exit(0));

if (role === "writer") write(new Database(path));
else void openWhenThere().then(read);

/** The monotonic clock is the same in all processes of the machine. */
function nowUs(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

function report(message: AppReport): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

function position(): string {
  return fs.readFileSync(`${path}-pos`, "utf8").trim();
}

function write(db: Database.Database): void {
  db.pragma("journal_mode = WAL");
  db.pragma("synchronous = NORMAL");
  db.exec("CREATE TABLE log (id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, text TEXT NOT NULL)");
  const insert = db.prepare("INSERT INTO log (at_us, text) VALUES (?, ?)");
  const insertMs: number[] = [];
  let rows = 0;
  let isDone = false;
  setInterval(() => {
    if (isWriting) {
      const startUs = nowUs();
      insert.run(startUs, `greeting ${rows + 1}`);
      insertMs.push((nowUs() - startUs) / 1000);
      rows++;
    } else if (!isDone) {
      isDone = true;
      report({ rows, position: position(), latenciesMs: insertMs.splice(0), isDone });
    }
  }, INSERT_EVERY_MS);
  setInterval(() => {
    if (!isDone) report({ rows, position: position(), latenciesMs: insertMs.splice(0) });
  }, REPORT_EVERY_MS);
}

/** On a replica the database appears when the primary has made it. */
async function openWhenThere(): Promise<Database.Database> {
  while (!fs.existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 20));
  return new Database(path, { fileMustExist: true, timeout: 100 });
}

function read(db: Database.Database): void {
  const hasTable = db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'log'");
  let select: Database.Statement<[number], { id: number; at_us: number }> | undefined;
  const lagsMs: number[] = [];
  let rows = 0;
  setInterval(() => {
    if (select === undefined) {
      if (hasTable.get() === undefined) return;
      select = db.prepare("SELECT id, at_us FROM log WHERE id > ?");
    }
    for (const row of select.iterate(rows)) {
      lagsMs.push((nowUs() - row.at_us) / 1000);
      rows = row.id;
    }
  }, POLL_EVERY_MS);
  const refusal = tryToWrite(db);
  setInterval(() => {
    report({ rows, position: position(), latenciesMs: lagsMs.splice(0), refusal });
  }, REPORT_EVERY_MS);
}

/** What an application is told that writes on a replica. */
function tryToWrite(db: Database.Database): string {
  try {
    db.exec("BEGIN IMMEDIATE");
    db.exec("ROLLBACK");
    return "nothing: the write lock was granted";
  } catch (error) {
    return error instanceof Database.SqliteError ? error.code : String(error);
  }
}
