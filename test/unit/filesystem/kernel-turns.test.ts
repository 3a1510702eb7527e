import { expect, onTestFinished, test, vi } from "vitest";
import type { Database } from "../../../src/database/database.ts";
import { DatabaseFiles } from "../../../src/database/database-files.ts";
import type { LoanResult, WriteEvent } from "../../../src/database/write-engine.ts";
import { TableLocks } from "../../../src/filesystem/entry-locks.ts";
import { DatabaseEntry } from "../../../src/filesystem/entry.ts";
import type { FileNode } from "../../../src/filesystem/entry.ts";
import { KernelTurns, RESERVED_MS } from "../../../src/filesystem/kernel-turns.ts";
import type { Position } from "../../../src/lib/position.ts";
import { FakeDisk } from "../database/support/fake-disk.ts";

/** One database whose applications write, or do not, as the test says. */
function start(isPrimary: boolean) {
  const disk = new FakeDisk();
  disk.mkdir("/dbs/app.db");
  const state = { isPrimary, isHeldBack: false, isWriting: false, isGuarded: false };
  const db = {
    name: "app.db",
    files: new DatabaseFiles(disk, "/dbs/app.db"),
    log: { txid: 7 },
    position: { txid: 7, checksum: 5n },
    status: "ok",
    hasOpenChanges: false,
    isLent: false,
    isFenced: false,
    isUndecided: false,
    arbiter: undefined,
  };
  const events: string[] = [];
  const guard = {
    take: () => {
      if (!state.isWriting) state.isGuarded = true;
      return state.isGuarded;
    },
    drop: () => {
      state.isGuarded = false;
    },
    isAnyoneWriting: () => state.isWriting,
    watch: () => undefined,
  };
  const host = {
    isPrimary: () => state.isPrimary,
    isHeldBack: () => state.isHeldBack,
    answer: () => undefined,
    unlocked: () => undefined,
    tell: (event: WriteEvent) => {
      events.push(event.type === "writer-left" && event.isReturned ? "returned" : event.type);
    },
  };
  const entry: DatabaseEntry = new DatabaseEntry(
    db as unknown as Database,
    () => ({}) as FileNode,
    host,
    (owner) => ({
      locks: new TableLocks(owner, () => undefined),
      turns: new KernelTurns(owner, host, guard),
    }),
  );
  const turns = entry.turns as KernelTurns;
  const lent: string[] = [];
  const lend = (loan: string): void =>
    turns.lend(loan, ({ kind }: LoanResult) => lent.push(`${loan} ${kind}`));
  const moveTo = (position: Position): void => {
    db.position = position;
    db.log.txid = position.txid;
  };
  return { state, db, turns, events, lent, lend, moveTo };
}

const HERE: Position = { txid: 7, checksum: 5n };
const NEXT: Position = { txid: 8, checksum: 6n };

test("a replica's applications are kept from writing until the right is here", () => {
  const { state, db, turns, events } = start(false);
  turns.serve();
  expect(state.isGuarded).toBe(true);
  turns.attempted();
  expect(events).toEqual(["writer-waits"]);
  expect(turns.grant(HERE)).toBe(true);
  expect(state.isGuarded).toBe(false);
  expect(db.arbiter).toBe(turns.submitted);
  expect(turns.recall()).toBe(true);
  expect(state.isGuarded).toBe(true);
  expect(db.arbiter).toBeUndefined();
});

test("one that is behind the primary catches up first", () => {
  const { state, turns, moveTo } = start(false);
  turns.serve();
  expect(turns.grant(NEXT)).toBe(true);
  expect(state.isGuarded).toBe(true);
  moveTo(NEXT);
  turns.serve();
  expect(state.isGuarded).toBe(false);
});

test("one that has left the primary's history does not get the right", () => {
  const { state, turns, events, moveTo } = start(false);
  turns.serve();
  moveTo(NEXT);
  expect(turns.grant(HERE)).toBe(false);
  expect(state.isGuarded).toBe(true);
  expect(events).toEqual(["right-lost"]);
});

test("the right is given back when the application that writes has left", () => {
  const { state, db, turns, events } = start(false);
  turns.grant(HERE);
  state.isWriting = true;
  expect(turns.recall()).toBe(false);
  expect(db.arbiter).toBe(turns.submitted);
  turns.noticeLeaving();
  expect(events).toEqual([]);
  state.isWriting = false;
  turns.noticeLeaving();
  expect(events).toEqual(["returned"]);
  expect(state.isGuarded).toBe(true);
  expect(db.arbiter).toBeUndefined();
});

test("a commit that is undecided keeps the right here", () => {
  const { db, turns } = start(false);
  turns.grant(HERE);
  db.isUndecided = true;
  expect(turns.recall()).toBe(false);
  turns.noticeLeaving();
  expect(db.arbiter).toBe(turns.submitted);
});

test("who borrowed for an application hears once that it writes", () => {
  const { turns, events } = start(false);
  turns.noticeWrite();
  turns.grant(HERE);
  turns.noticeWrite();
  turns.noticeWrite();
  expect(events).toEqual(["writer-left"]);
});

test("when the stream moves the database under the right, it is lost", () => {
  const { state, turns, events, moveTo } = start(false);
  turns.grant(HERE);
  moveTo(NEXT);
  turns.serve();
  expect(events).toEqual(["right-lost", "returned"]);
  expect(state.isGuarded).toBe(true);
});

test("what was forwarded moves the database as well, and is not lost", () => {
  const { state, turns, events, moveTo } = start(false);
  turns.grant(HERE);
  const commit = { position: NEXT, ltx: new Uint8Array(1), path: undefined, isDurable: false };
  turns.submitted.submit(commit, (isCommitted) => {
    expect(isCommitted).toBe(true);
    moveTo(NEXT);
    turns.serve();
  });
  turns.decide(1, true);
  turns.serve();
  expect(events).toEqual(["commit", "writer-left"]);
  expect(state.isGuarded).toBe(false);
});

test("the primary's applications are kept from writing while another node has the right", () => {
  const { state, db, turns, lent, lend } = start(true);
  turns.serve();
  expect(state.isGuarded).toBe(false);
  lend("1");
  expect(lent).toEqual(["1 lent"]);
  expect(state.isGuarded).toBe(true);
  expect(db.isLent).toBe(true);
  turns.endLoan("1");
  expect(state.isGuarded).toBe(false);
  expect(db.isLent).toBe(false);
});

test("nothing is lent while an application writes", () => {
  const { state, turns, lent, lend } = start(true);
  state.isWriting = true;
  lend("1");
  expect(lent).toEqual([]);
  state.isWriting = false;
  turns.serve();
  expect(lent).toEqual(["1 lent"]);
});

test("an application that tries while the right is lent has its turn before the next node", () => {
  const { state, turns, events, lent, lend, moveTo } = start(true);
  lend("1");
  turns.attempted();
  turns.attempted();
  lend("2");
  expect(events).toEqual(["writer-waits"]);
  turns.endLoan("1");
  expect(events).toEqual(["writer-waits", "turn-reserved"]);
  expect(state.isGuarded).toBe(false);
  expect(lent).toEqual(["1 lent"]);
  moveTo(NEXT);
  turns.noticeWrite();
  expect(lent).toEqual(["1 lent", "2 lent"]);
});

test("who does not come back in time loses his turn", () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  onTestFinished(() => void vi.useRealTimers());
  const { turns, lent, lend } = start(true);
  lend("1");
  turns.attempted();
  lend("2");
  turns.endLoan("1");
  // SQLite pauses for up to 100 ms between two tries.
  vi.advanceTimersByTime(120);
  turns.endReservation();
  expect(lent).toEqual(["1 lent"]);
  vi.advanceTimersByTime(RESERVED_MS - 120);
  turns.endReservation();
  expect(lent).toEqual(["1 lent", "2 lent"]);
});

test("the end of one turn's time does not end the next turn", () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  onTestFinished(() => void vi.useRealTimers());
  const { turns, lent, lend, moveTo } = start(true);
  lend("1");
  turns.attempted();
  lend("2");
  turns.endLoan("1");
  vi.advanceTimersByTime(10);
  moveTo(NEXT);
  turns.noticeWrite();
  turns.attempted();
  lend("3");
  turns.endLoan("2");
  vi.advanceTimersByTime(RESERVED_MS - 10);
  turns.endReservation();
  expect(lent).toEqual(["1 lent", "2 lent"]);
  vi.advanceTimersByTime(10);
  turns.endReservation();
  expect(lent).toEqual(["1 lent", "2 lent", "3 lent"]);
});

test("while the lease changes hands nobody begins to write", () => {
  const { state, turns, events, lent, lend } = start(true);
  state.isHeldBack = true;
  turns.serve();
  expect(state.isGuarded).toBe(true);
  lend("1");
  turns.attempted();
  expect(lent).toEqual([]);
  expect(events).toEqual([]);
  state.isHeldBack = false;
  state.isPrimary = false;
  turns.roleChanged();
  expect(lent).toEqual(["1 refused"]);
  expect(state.isGuarded).toBe(true);
});

test("while too few replicas acknowledge nobody writes on the primary, nor has a place in the queue", () => {
  const { state, db, turns, events, lent, lend } = start(true);
  turns.serve();
  expect(state.isGuarded).toBe(false);
  db.isFenced = true;
  // The number of replicas changes in another thread: until it is told, no guard seems to stand.
  expect(turns.isGuarded).toBe(false);
  turns.serve();
  expect(state.isGuarded).toBe(true);
  turns.attempted();
  lend("loan");
  expect(events).toEqual([]);
  expect(lent).toEqual([]);
  db.isFenced = false;
  turns.serve();
  expect(lent).toEqual(["loan lent"]);
});

test("an application that was writing when too few replicas were left keeps its lock", () => {
  const { state, db, turns } = start(true);
  state.isWriting = true;
  db.isFenced = true;
  turns.serve();
  expect(turns.isWaiting).toBe(true);
  state.isWriting = false;
  expect(turns.isWaiting).toBe(false);
  db.isFenced = false;
  turns.serve();
  expect(state.isGuarded).toBe(false);
});
