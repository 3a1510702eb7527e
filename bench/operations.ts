import * as fs from "node:fs";
import * as path from "node:path";
import Database from "better-sqlite3";

/** One kind of work, ready to be repeated. */
export interface Prepared {
  /** Does a number of operations between two looks at the clock, and returns how many. */
  batch(): number;
  /** Does exactly one. */
  single(): void;
  close(): void;
}

/** `fuse.locks` of the nodes. */
export type Locks = "daemon" | "kernel";

export interface Target {
  /** What the ratio to the native directory should be at least. */
  readonly ratio?: number;
  /** How many requests to the mount one operation should cost at most. */
  readonly roundTrips?: number;
}

export interface Operation {
  readonly name: string;
  readonly title: string;
  /** By who keeps the locks. */
  readonly targets?: Readonly<Partial<Record<Locks, Target>>>;
  prepare(directory: string): Prepared;
}

const ROWS = 10_000;
const BODY = "x".repeat(100);
const PAGE_BYTES = 4096;

function open(directory: string, name: string, pragmas: readonly string[]): Database.Database {
  const db = new Database(path.join(directory, `${name}.db`));
  for (const pragma of pragmas) db.pragma(pragma);
  db.exec("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body TEXT)");
  return db;
}

function fill(db: Database.Database): void {
  const insert = db.prepare("INSERT INTO t (body) VALUES (?)");
  db.transaction(() => {
    for (let i = 0; i < ROWS; i++) insert.run(BODY);
  })();
}

function repeat(count: number, single: () => void, close: () => void): Prepared {
  const batch = (): number => {
    for (let i = 0; i < count; i++) single();
    return count;
  };
  return { batch, single, close };
}

function pointSelect(directory: string, name: string, pragmas: readonly string[]): Prepared {
  const db = open(directory, name, pragmas);
  fill(db);
  const select = db.prepare("SELECT body FROM t WHERE id = ?");
  let id = 0;
  const single = (): void => {
    // A step that shares no factor with ROWS visits all rows in a scattered order.
    id = (id + 4_007) % ROWS;
    if (select.get(id + 1) === undefined) throw new Error(`row ${id + 1} is missing`);
  };
  return repeat(100, single, () => db.close());
}

function insertOne(directory: string, name: string, pragmas: readonly string[]): Prepared {
  const db = open(directory, name, pragmas);
  const statement = db.prepare("INSERT INTO t (body) VALUES (?)");
  return repeat(
    20,
    () => statement.run(BODY),
    () => db.close(),
  );
}

const WAL = ["journal_mode = WAL", "synchronous = NORMAL"] as const;
const WAL_FULL = ["journal_mode = WAL", "synchronous = FULL"] as const;
const DELETE = ["journal_mode = DELETE", "synchronous = NORMAL"] as const;

/** A database file that no connection of this process has open: closing it would drop locks. */
function plainFile(directory: string, name: string): string {
  const db = open(directory, name, DELETE);
  fill(db);
  db.close();
  return path.join(directory, `${name}.db`);
}

export const OPERATIONS: readonly Operation[] = [
  {
    name: "select-wal",
    title: "point select, autocommit, WAL",
    targets: { daemon: { roundTrips: 2 }, kernel: { ratio: 0.9, roundTrips: 0 } },
    prepare: (directory) => pointSelect(directory, "select-wal", WAL),
  },
  {
    name: "insert-wal",
    title: "insert, autocommit, WAL, NORMAL",
    targets: { daemon: { ratio: 0.06, roundTrips: 6 }, kernel: { ratio: 0.12, roundTrips: 2 } },
    prepare: (directory) => insertOne(directory, "insert-wal", WAL),
  },
  {
    name: "insert-wal-full",
    title: "insert, autocommit, WAL, FULL",
    targets: { kernel: { ratio: 0.4 } },
    prepare: (directory) => insertOne(directory, "insert-wal-full", WAL_FULL),
  },
  {
    name: "batch-wal",
    title: "1,000 inserts in one transaction, WAL, NORMAL",
    targets: { daemon: { ratio: 0.3 }, kernel: { ratio: 0.5 } },
    prepare: (directory) => {
      const db = open(directory, "batch-wal", WAL);
      const statement = db.prepare("INSERT INTO t (body) VALUES (?)");
      const single = db.transaction(() => {
        for (let i = 0; i < 1_000; i++) statement.run(BODY);
      });
      return repeat(1, single, () => db.close());
    },
  },
  {
    name: "select-delete",
    title: "point select, autocommit, DELETE",
    targets: { kernel: { ratio: 0.5 } },
    prepare: (directory) => pointSelect(directory, "select-delete", DELETE),
  },
  {
    name: "insert-delete",
    title: "insert, autocommit, DELETE",
    targets: { daemon: { ratio: 0.3 } },
    prepare: (directory) => insertOne(directory, "insert-delete", DELETE),
  },
  {
    name: "stat",
    title: "stat of the database",
    targets: { daemon: { roundTrips: 0 }, kernel: { roundTrips: 0 } },
    prepare: (directory) => {
      const file = plainFile(directory, "stat");
      const single = (): void => {
        if (fs.statSync(file).size === 0) throw new Error(`${file} is empty`);
      };
      return repeat(100, single, () => undefined);
    },
  },
  {
    name: "access",
    title: "access of a journal that is not there",
    targets: { daemon: { roundTrips: 0 }, kernel: { roundTrips: 0 } },
    prepare: (directory) => {
      const file = `${plainFile(directory, "access")}-wal`;
      const single = (): void => {
        if (fs.existsSync(file)) throw new Error(`${file} exists`);
      };
      return repeat(100, single, () => undefined);
    },
  },
  {
    name: "read",
    title: "read of a cached page",
    targets: { daemon: { roundTrips: 0 }, kernel: { roundTrips: 0 } },
    prepare: (directory) => {
      const fd = fs.openSync(plainFile(directory, "read"), "r");
      const page = Buffer.alloc(PAGE_BYTES);
      const pageCount = fs.fstatSync(fd).size / PAGE_BYTES;
      let index = 0;
      const single = (): void => {
        index = (index + 1) % pageCount;
        const count = fs.readSync(fd, page, 0, PAGE_BYTES, index * PAGE_BYTES);
        if (count !== PAGE_BYTES) throw new Error(`page ${index + 1} is incomplete`);
      };
      return repeat(100, single, () => fs.closeSync(fd));
    },
  },
];
