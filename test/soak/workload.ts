import type Database from "better-sqlite3";

/** Databases that stay; others come and go. */
export const WAL_DATABASES: readonly string[] = ["wal-0.db", "wal-1.db", "wal-2.db"];
export const DELETE_DATABASES: readonly string[] = ["delete-0.db", "delete-1.db"];
export const LASTING_DATABASES: readonly string[] = [...WAL_DATABASES, ...DELETE_DATABASES];

export const ACCOUNT_COUNT = 50;
const MAX_ROWS = 2000;

/** What a child tells the program that started it. */
export type ChildMessage =
  | { readonly type: "count"; readonly transactions: number }
  | { readonly type: "problem"; readonly text: string };

export function tell(message: ChildMessage): void {
  process.send?.(message);
}

/** The schema of a lasting database: in every snapshot of it the balances add up to 0. */
export function prepare(db: Database.Database, journalMode: string): void {
  setJournalMode(db, journalMode);
  // All or nothing: readers look at any time.
  db.transaction(() => {
    db.exec(`
      CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
      CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
      CREATE TABLE IF NOT EXISTS counter (n INTEGER NOT NULL);
      INSERT INTO counter SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM counter);
    `);
    const add = db.prepare("INSERT OR IGNORE INTO account VALUES (?, 0)");
    for (let id = 1; id <= ACCOUNT_COUNT; id++) add.run(id);
  }).immediate();
}

/**
 * A writer that is killed may leave a database in WAL mode, and then nobody takes it out of it while
 * a reader has it open: SQLite says so at once, whatever the timeout.
 */
function setJournalMode(db: Database.Database, journalMode: string): void {
  try {
    db.pragma(`journal_mode = ${journalMode}`);
  } catch (error) {
    if (!isExpected(error)) throw error;
  }
}

/** One transfer, one event and one count, all or nothing. */
export function transact(db: Database.Database, bodyBytes: number): void {
  const from = 1 + Math.floor(Math.random() * ACCOUNT_COUNT);
  const to = 1 + Math.floor(Math.random() * ACCOUNT_COUNT);
  const amount = Math.floor(Math.random() * 100);
  db.transaction(() => {
    db.prepare("UPDATE account SET balance = balance - ? WHERE id = ?").run(amount, from);
    db.prepare("UPDATE account SET balance = balance + ? WHERE id = ?").run(amount, to);
    db.prepare("INSERT INTO event (body) VALUES (hex(randomblob(?)))").run(bodyBytes);
    db.prepare("DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?").run(MAX_ROWS);
    db.prepare("UPDATE counter SET n = n + 1").run();
  }).immediate();
}

/** What is wrong with a snapshot, or undefined. */
export function inspect(db: Database.Database): string | undefined {
  const read = db.transaction(() => {
    const sum = db.prepare("SELECT sum(balance) AS sum, count(*) AS count FROM account").get();
    return { sum, n: db.prepare("SELECT n FROM counter").pluck().get() };
  });
  const { sum } = read() as { sum: { sum: number; count: number } };
  if (sum.count !== ACCOUNT_COUNT) return `${sum.count} accounts instead of ${ACCOUNT_COUNT}`;
  return sum.sum === 0 ? undefined : `the balances add up to ${sum.sum}`;
}

/** Errors that an application must expect when its node, or its writer, is killed or busy. */
export function isExpected(error: unknown): boolean {
  // What better-sqlite3 says of a mount whose node was killed.
  if (String(error).includes("the directory does not exist")) return true;
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return /^SQLITE_(?:BUSY|IOERR|CANTOPEN|READONLY|LOCKED|SCHEMA)|^(?:ENOTCONN|ECONNABORTED|EIO|ENOENT|EACCES)$/.test(
    code,
  );
}
