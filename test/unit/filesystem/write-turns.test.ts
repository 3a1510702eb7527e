import { expect, test } from "vitest";
import type { Database } from "../../../src/database/database.ts";
import { DatabaseFiles } from "../../../src/database/database-files.ts";
import type { LoanResult, WriteEvent } from "../../../src/database/write-engine.ts";
import { DatabaseEntry } from "../../../src/filesystem/entry.ts";
import type { FileNode } from "../../../src/filesystem/entry.ts";
import { LockTable } from "../../../src/filesystem/lock-table.ts";
import { F_WRLCK } from "../../../src/fuse/constants.ts";
import { PENDING_BYTE, RESERVED_BYTE } from "../../../src/sqlite/locks.ts";
import { FakeDisk } from "../database/support/fake-disk.ts";

function primary() {
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
      answer: ({ uniqueLo }, answer) => answers.push(`${uniqueLo} ${answer}`),
      tell: (event) => events.push(event),
    },
  );
  const lent: string[] = [];
  const lend = (loan: string): void =>
    entry.turns.lend(loan, ({ kind }: LoanResult) => lent.push(`${loan} ${kind}`));
  const request = (unique: number) =>
    entry.requests.request({
      uniqueLo: unique,
      uniqueHi: 0,
      node: entry.node("database"),
      fh: unique,
      ownerLo: unique,
      ownerHi: 0,
      start: RESERVED_BYTE,
      end: RESERVED_BYTE,
      type: F_WRLCK,
      pid: 1,
      sinceMs: 0,
    });
  return { entry, events, answers, lent, lend, request };
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

test("who must make way for a transaction keeps one place, however often he asks again", () => {
  const { entry, events, answers, lent, lend, request } = primary();
  lend("1");
  expect(entry.tryLock("database", PENDING_BYTE, RESERVED_BYTE)).toBe(true);
  for (const unique of [10, 11, 12, 13]) expect(request(unique)).toBeUndefined();
  expect(answers).toEqual(["10 busy", "11 busy", "12 busy", "13 busy"]);
  lend("2");
  entry.unlock("database", PENDING_BYTE, RESERVED_BYTE);
  entry.turns.endLoan("1");
  const reserved = (): number => events.filter(({ type }) => type === "turn-reserved").length;
  expect(reserved()).toBe(1);
  expect(lent).toEqual(["1 lent"]);
  // He does not come back, so the next one has his turn.
  entry.turns.endReservation();
  expect(reserved()).toBe(1);
  expect(lent).toEqual(["1 lent", "2 lent"]);
});

test("in a rollback mode nobody waits with a read lock for one who writes here", () => {
  const { entry, answers, lent, lend, request } = primary();
  lend("1");
  for (const unique of [10, 11, 12]) expect(request(unique)).toBeUndefined();
  lend("2");
  entry.turns.endLoan("1");
  // The first one writes, and his commit would wait for the read locks of the others.
  expect(answers).toEqual(["10 granted", "11 busy", "12 busy"]);
  expect(request(11)).toBe("busy");
  expect(answers).toHaveLength(3);
  entry.node("database").locks.releaseOwner(10, 0);
  entry.released();
  // One of them has kept his place before the other node.
  expect(lent).toEqual(["1 lent"]);
  expect(request(11)).toBe("granted");
  entry.node("database").locks.releaseOwner(11, 0);
  entry.released();
  expect(lent).toEqual(["1 lent", "2 lent"]);
});
