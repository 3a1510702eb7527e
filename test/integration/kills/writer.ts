import * as fs from "node:fs";
import Database from "better-sqlite3";

// As writer.py, with better-sqlite3.

const [file = "", acknowledgements = "", writer = "", rows = "", synchronous = ""] =
  process.argv.slice(2);
const batch = Number(rows);
const ack = fs.openSync(acknowledgements, fs.constants.O_RDWR | fs.constants.O_CREAT);

function acknowledge(last: number): void {
  fs.writeSync(ack, String(last).padStart(12, "0"), 0);
}

try {
  const db = new Database(file, { timeout: 20_000 });
  db.pragma(`synchronous = ${synchronous}`);
  if (batch > 20) db.pragma("cache_size = 5");
  const newest = db.prepare("SELECT coalesce(max(n), 0) FROM t WHERE writer = ?").pluck();
  const insert = db.prepare("INSERT INTO t VALUES (?, ?, randomblob(300))");
  let last = Number(newest.get(Number(writer)));
  acknowledge(last);
  const insertAll = db.transaction((isRolledBack: boolean) => {
    for (let n = last + 1; n <= last + batch; n++) insert.run(Number(writer), n);
    if (isRolledBack) throw new RangeError("rolled back");
  });
  for (let turn = 1; ; turn++) {
    try {
      if (batch === 1) insert.run(Number(writer), last + 1);
      else insertAll.immediate(turn % 7 === 0);
    } catch (error) {
      if (error instanceof RangeError) continue;
      throw error;
    }
    last += batch;
    acknowledge(last);
  }
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 3;
}
