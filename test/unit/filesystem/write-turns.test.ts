import { expect, onTestFinished, test, vi } from "vitest";
import type { Database } from "../../../src/database/database.ts";
import { DatabaseFiles } from "../../../src/database/database-files.ts";
import type { LoanResult, WriteEvent } from "../../../src/database/write-engine.ts";
import { DatabaseEntry } from "../../../src/filesystem/entry.ts";
import type { FileNode } from "../../../src/filesystem/entry.ts";
import type { TurnRequest } from "../../../src/filesystem/write-turn-kinds.ts";
import { LockTable } from "../../../src/filesystem/lock-table.ts";
import { F_RDLCK, F_WRLCK } from "../../../src/fuse/constants.ts";
import { PENDING_BYTE, RESERVED_BYTE, WAL_WRITE_LOCK } from "../../../src/sqlite/locks.ts";
import { FakeDisk } from "../database/support/fake-disk.ts";

function primary(file: "database" | "shm" = "database") {
  const disk = new FakeDisk();
  disk.mkdir("/dbs/app.db");
  const db = {
    name: "app.db",
    files: new DatabaseFiles(disk, "/dbs/app.db"),
    position: { txid: 7, checksum: 5n },
    status: "ok",
    hasOpenChanges: false,
    isLent: false,
  } as unknown as Database & { files: DatabaseFiles };
  const events: WriteEvent[] = [];
  const answers: string[] = [];
  const entry: DatabaseEntry = new DatabaseEntry(
    db,
    (owner, kind): FileNode =>
      ({
        type: "file",
        entry: owner,
        kind,
        files: db.files,
        locks: new LockTable(),
      }) as unknown as FileNode,
    {
      isPrimary: () => true,
      isHeldBack: () => false,
      unlocked: () => undefined,
      answer: ({ uniqueLo }, answer) => answers.push(`${uniqueLo} ${answer}`),
      tell: (event) => events.push(event),
    },
  );
  /** Those whose processes have other threads that read. */
  const withSiblings = new Set<number>();
  const lent: string[] = [];
  const lend = (loan: string): void =>
    entry.turns.lend(loan, ({ kind }: LoanResult) => lent.push(`${loan} ${kind}`));
  const requestOf = (unique: number): TurnRequest => ({
    uniqueLo: unique,
    uniqueHi: 0,
    node: entry.node(file),
    fh: unique,
    ownerLo: unique,
    ownerHi: 0,
    start: file === "shm" ? WAL_WRITE_LOCK : RESERVED_BYTE,
    end: file === "shm" ? WAL_WRITE_LOCK : RESERVED_BYTE,
    type: F_WRLCK,
    pid: 1,
    thread: unique,
    hasSiblings: withSiblings.has(unique),
    sinceMs: performance.now(),
  });
  const request = (unique: number) => entry.requests.request(requestOf(unique));
  const knock = (unique: number): boolean =>
    entry.requests.knock({ ...requestOf(unique), type: F_RDLCK, isKnock: true });
  /** A transaction of another node is applied. */
  const move = (): void => {
    const { txid } = db.position;
    Object.assign(db, { position: { txid: txid + 1, checksum: 6n } });
    entry.turns.serve();
  };
  return { entry, events, answers, lent, lend, move, request, knock, withSiblings };
}

/** Until the end of the test time passes only as told. */
function stopClock(): void {
  vi.useFakeTimers();
  onTestFinished(() => {
    vi.useRealTimers();
  });
}

test("nodes and applications take turns in the order they came", () => {
  const { entry, answers, lent, lend, request } = primary();
  lend("1");
  expect(lent).toEqual(["1 lent"]);
  expect(entry.db.isLent).toBe(true);
  lend("2");
  expect(request(10)).toBeUndefined();
  lend("3");
  entry.turns.endLoan("1");
  expect(lent).toEqual(["1 lent", "2 lent"]);
  entry.turns.endLoan("2");
  expect(answers).toEqual(["10 granted"]);
  expect(lent).toHaveLength(2);
  entry.node("database").locks.releaseOwner(10, 0);
  entry.released();
  expect(lent).toEqual(["1 lent", "2 lent", "3 lent"]);
});

test("applications of the primary take turns among themselves for as long as another node would", () => {
  stopClock();
  const { entry, answers, lent, lend, request, knock } = primary("shm");
  const leave = (unique: number): void => {
    entry.node("shm").locks.releaseOwner(unique, 0);
    entry.released();
  };
  lend("1");
  expect(request(10)).toBeUndefined();
  lend("2");
  entry.turns.endLoan("1");
  expect(answers).toEqual(["10 granted"]);
  // He comes after the other node, and his turn is before.
  expect(request(11)).toBe("busy");
  vi.advanceTimersByTime(10);
  expect(knock(11)).toBe(false);
  leave(10);
  expect([lent, answers]).toEqual([["1 lent"], ["10 granted", "11 granted"]]);
  expect(request(11)).toBe("granted");
  expect(request(12)).toBe("busy");
  vi.advanceTimersByTime(20);
  expect(knock(12)).toBe(false);
  leave(11);
  expect([lent, answers.slice(2)]).toEqual([["1 lent", "2 lent"], []]);
  entry.turns.endLoan("2");
  expect(answers.slice(2)).toEqual(["12 granted"]);
});

test("who was told SQLITE_BUSY waits at the door, without a lock, and has his turn", () => {
  const { entry, events, answers, lent, lend, request, knock } = primary();
  lend("1");
  // The daemon locks readers out for a transaction of the borrower: whoever waits for his turn is
  // one of them.
  expect(entry.tryLock("database", PENDING_BYTE, RESERVED_BYTE)).toBe(true);
  for (const unique of [10, 11]) expect(request(unique)).toBeUndefined();
  expect(answers).toEqual(["10 busy", "11 busy"]);
  entry.unlock("database", PENDING_BYTE, RESERVED_BYTE);
  expect(knock(10)).toBe(false);
  lend("2");
  expect(knock(11)).toBe(false);
  expect(events.filter(({ type }) => type === "turn-reserved")).toHaveLength(1);
  entry.turns.endLoan("1");
  expect(answers).toEqual(["10 busy", "11 busy", "10 granted"]);
  // Nobody comes between his read and his write.
  expect(lent).toEqual(["1 lent"]);
  expect(request(12)).toBe("busy");
  expect(request(10)).toBe("granted");
  entry.node("database").locks.releaseOwner(10, 0);
  entry.released();
  // He had asked before the second node did.
  expect(answers.slice(3)).toEqual(["11 granted"]);
  expect(request(11)).toBe("granted");
  entry.node("database").locks.releaseOwner(11, 0);
  entry.released();
  expect(lent).toEqual(["1 lent", "2 lent"]);
});

test("who is let in and does not write has had his turn", () => {
  const { entry, answers, lent, lend, request, knock } = primary();
  lend("1");
  expect(entry.tryLock("database", PENDING_BYTE, RESERVED_BYTE)).toBe(true);
  expect(request(10)).toBeUndefined();
  entry.unlock("database", PENDING_BYTE, RESERVED_BYTE);
  expect(knock(10)).toBe(false);
  lend("2");
  entry.turns.endLoan("1");
  expect(answers).toEqual(["10 busy", "10 granted"]);
  expect(lent).toEqual(["1 lent"]);
  entry.node("database").locks.releaseOwner(10, 0);
  entry.released();
  expect(lent).toEqual(["1 lent", "2 lent"]);
});

test("readers whom nobody expects to write do not wait, and those who do not wait for long", () => {
  stopClock();
  const { entry, answers, lend, request, knock } = primary();
  lend("1");
  expect(knock(20)).toBe(true);
  expect(entry.tryLock("database", PENDING_BYTE, RESERVED_BYTE)).toBe(true);
  expect(request(10)).toBeUndefined();
  entry.unlock("database", PENDING_BYTE, RESERVED_BYTE);
  expect(knock(10)).toBe(false);
  // Another connection of the same process only reads.
  expect(knock(10)).toBe(true);
  entry.turns.endReservation();
  expect(answers).toEqual(["10 busy"]);
  vi.advanceTimersByTime(1_001);
  entry.turns.endReservation();
  expect(answers).toEqual(["10 busy", "10 granted"]);
  // He who comes back too late is not expected any more.
  expect(request(11)).toBeUndefined();
  entry.turns.makeWay();
  vi.advanceTimersByTime(300);
  expect(knock(11)).toBe(true);
});

test("a request that finds the database moved has read something old: it is still his turn", () => {
  const { entry, answers, lent, lend, request, knock } = primary("shm");
  lend("1");
  expect(request(10)).toBeUndefined();
  lend("2");
  Object.assign(entry.db, { position: { txid: 8, checksum: 6n } });
  entry.turns.endLoan("1");
  expect(answers).toEqual(["10 busy"]);
  expect(lent).toEqual(["1 lent"]);
  expect(knock(10)).toBe(true);
  expect(request(10)).toBe("granted");
});

test("who waits with an old snapshot is sent to read again at once, and keeps his place", () => {
  const { entry, answers, lent, lend, move, request, knock } = primary("shm");
  lend("1");
  expect(request(10)).toBeUndefined();
  lend("2");
  move();
  // The other node has still the right.
  expect(answers).toEqual(["10 busy"]);
  expect(knock(10)).toBe(false);
  entry.turns.endLoan("1");
  expect(answers).toEqual(["10 busy", "10 granted"]);
  expect(lent).toEqual(["1 lent"]);
  expect(request(10)).toBe("granted");
  // After his turn it is the others'.
  entry.node("shm").locks.releaseOwner(10, 0);
  entry.released();
  expect(lent).toEqual(["1 lent", "2 lent"]);
  expect(request(10)).toBeUndefined();
  lend("3");
  entry.turns.endLoan("2");
  expect(answers.slice(2)).toEqual(["10 granted"]);
});

test("who has waited at the door while the database moved begins anew, and nobody comes before him", () => {
  const { entry, answers, lent, lend, move, request, knock } = primary("shm");
  lend("1");
  expect(request(10)).toBeUndefined();
  move();
  expect(knock(10)).toBe(false);
  lend("2");
  move();
  entry.turns.endLoan("1");
  // SQLite has read the head of the wal-index before it asked for the lock.
  expect(answers).toEqual(["10 busy", "10 busy"]);
  expect(lent).toEqual(["1 lent"]);
  expect(request(11)).toBe("busy");
  expect(knock(10)).toBe(true);
  expect(request(10)).toBe("granted");
});

test("a place is kept for as long as its owner waits in the queue", () => {
  stopClock();
  const { entry, answers, lent, lend, move, request, knock } = primary("shm");
  lend("1");
  expect(request(10)).toBeUndefined();
  vi.advanceTimersByTime(1_000);
  lend("2");
  vi.advanceTimersByTime(5_000);
  move();
  expect(knock(10)).toBe(false);
  entry.turns.endLoan("1");
  expect(answers).toEqual(["10 busy", "10 granted"]);
  expect(lent).toEqual(["1 lent"]);
});

test("who comes to the queue when what was in his way has ended is served at once", () => {
  const { answers, request } = primary("shm");
  expect(request(10)).toBeUndefined();
  expect(answers).toEqual(["10 granted"]);
});

test("who would keep other threads of his process from reading does not wait for long at a time", () => {
  stopClock();
  const { entry, events, answers, lend, lent, request, knock, withSiblings } = primary("shm");
  withSiblings.add(10);
  lend("1");
  expect(request(10)).toBeUndefined();
  vi.advanceTimersByTime(1);
  expect(request(11)).toBeUndefined();
  lend("2");
  const wait = (ms: number): void => {
    expect(events.filter(({ type }) => type === "turn-reserved")).not.toHaveLength(0);
    events.length = 0;
    vi.advanceTimersByTime(ms);
    entry.turns.endReservation();
  };
  wait(400);
  expect(answers).toEqual([]);
  wait(101);
  expect(answers).toEqual(["10 busy"]);
  // He has come back, so he will again. He may read, and is sent away once more.
  expect(knock(10)).toBe(false);
  wait(41);
  expect(answers).toEqual(["10 busy", "10 granted"]);
  expect(request(10)).toBeUndefined();
  wait(41);
  expect(answers).toEqual(["10 busy", "10 granted", "10 busy"]);
  entry.node("shm").locks.releaseOwner(10, 0);
  // But he keeps his place.
  expect(knock(10)).toBe(false);
  entry.turns.endLoan("1");
  expect(answers.slice(3)).toEqual(["10 granted"]);
  expect(lent).toEqual(["1 lent"]);
});

test("readers of the process whose turn it is do not prolong it", () => {
  stopClock();
  const { entry, lent, lend, move, request, knock } = primary("shm");
  lend("1");
  expect(request(10)).toBeUndefined();
  move();
  expect(knock(10)).toBe(false);
  lend("2");
  entry.turns.endLoan("1");
  for (let i = 0; i < 10; i++) {
    vi.advanceTimersByTime(10);
    expect(knock(10)).toBe(true);
  }
  entry.turns.endReservation();
  expect(lent).toEqual(["1 lent", "2 lent"]);
});

test("in a rollback mode nobody waits with a read lock for one who writes here", () => {
  const { entry, answers, lent, lend, request, knock } = primary();
  lend("1");
  for (const unique of [10, 11, 12]) expect(request(unique)).toBeUndefined();
  lend("2");
  entry.turns.endLoan("1");
  // The first one writes, and his commit would wait for the read locks of the others.
  expect(answers).toEqual(["10 granted", "11 busy", "12 busy"]);
  expect(request(13)).toBe("busy");
  expect(knock(11)).toBe(false);
  entry.node("database").locks.releaseOwner(10, 0);
  entry.released();
  expect(answers.slice(3)).toEqual(["11 granted"]);
  expect(lent).toEqual(["1 lent"]);
});

test("nothing is lent while an application has the database to itself", () => {
  const { entry, lent, lend } = primary();
  // As SQLite does it to close a WAL or with locking_mode=EXCLUSIVE: EXCLUSIVE without RESERVED.
  const { locks } = entry.node("database");
  locks.set(10, 0, 10, 1, PENDING_BYTE + 2, PENDING_BYTE + 511, F_WRLCK);
  lend("1");
  expect(lent).toEqual([]);
  locks.releaseOwner(10, 0);
  entry.released();
  expect(lent).toEqual(["1 lent"]);
});
