import { expect, test } from "vitest";
import type { Database } from "../../../src/database/database.ts";
import { DatabaseFiles } from "../../../src/database/database-files.ts";
import { tryLockOutReaders, unlockReaders } from "../../../src/database/apply.ts";
import { ApplicationLocks } from "../../../src/filesystem/application-locks.ts";
import { DatabaseEntry } from "../../../src/filesystem/entry.ts";
import type { FileNode } from "../../../src/filesystem/entry.ts";
import { LockTable } from "../../../src/filesystem/lock-table.ts";
import { F_RDLCK, F_UNLCK, F_WRLCK } from "../../../src/fuse/constants.ts";
import { EAGAIN, EINTR } from "../../../src/fuse/errno.ts";
import type { FuseReplies } from "../../../src/fuse/replies.ts";
import { PENDING_BYTE, RESERVED_BYTE } from "../../../src/sqlite/locks.ts";
import { SHARED_FIRST, SHARED_LAST } from "../../../src/sqlite/locks.ts";
import { FakeDisk } from "../database/support/fake-disk.ts";

function database() {
  const answers: string[] = [];
  const locks = new ApplicationLocks({
    isPrimary: () => true,
    mayCommit: () => true,
    isAnyoneWriting: () => false,
  });
  locks.replies = {
    replyEmpty: (unique: number) => answers.push(`${unique} granted`),
    replyError: (unique: number, _: number, errno: number) => answers.push(`${unique} ${errno}`),
  } as unknown as FuseReplies;
  const files = new DatabaseFiles(new FakeDisk(), "/dbs/app.db");
  const db = { name: "app.db", files, endLooseWrites: () => "ok" } as unknown as Database;
  const entry: DatabaseEntry = new DatabaseEntry(
    db,
    (owner, kind): FileNode =>
      ({ type: "file", entry: owner, kind, files, locks: new LockTable() }) as unknown as FileNode,
    {
      isPrimary: () => true,
      isHeldBack: () => false,
      unlocked: (node) => locks.serveWaiters(node),
      answer: () => undefined,
      tell: () => undefined,
    },
  );
  const node = entry.node("database");
  const ask = (unique: number, type: number, start: number, end = start): void =>
    locks.set(
      { uniqueLo: unique, uniqueHi: 0, pid: unique },
      node,
      1,
      unique,
      0,
      start,
      end,
      type,
      1,
      false,
    );
  return { answers, ask, entry, locks, node };
}

test("a reader waits while the daemon has the database to itself", () => {
  const { answers, ask, entry } = database();
  expect(tryLockOutReaders(entry)).toBe(true);
  ask(1, F_RDLCK, PENDING_BYTE);
  expect(answers).toEqual([]);
  unlockReaders(entry);
  expect(answers).toEqual(["1 granted"]);
});

test("a writer does not: it would have a read lock already", () => {
  const { answers, ask, entry } = database();
  expect(tryLockOutReaders(entry)).toBe(true);
  ask(1, F_WRLCK, RESERVED_BYTE);
  expect(answers).toEqual([`1 ${EAGAIN}`]);
});

test("a reader does not wait for one who reads for long", () => {
  const { answers, ask, entry } = database();
  ask(1, F_RDLCK, SHARED_FIRST, SHARED_LAST);
  expect(entry.tryLock("database", PENDING_BYTE, RESERVED_BYTE)).toBe(true);
  ask(2, F_RDLCK, PENDING_BYTE);
  expect(answers).toEqual(["1 granted", `2 ${EAGAIN}`]);
});

test("nor for another application that writes", () => {
  const { answers, ask } = database();
  ask(1, F_WRLCK, PENDING_BYTE);
  ask(2, F_RDLCK, PENDING_BYTE);
  ask(1, F_UNLCK, PENDING_BYTE);
  expect(answers).toEqual(["1 granted", `2 ${EAGAIN}`, "1 granted"]);
});

test("who waits can be interrupted, and is forgotten when he closes the file", () => {
  const { answers, ask, entry, locks, node } = database();
  expect(tryLockOutReaders(entry)).toBe(true);
  ask(1, F_RDLCK, PENDING_BYTE);
  ask(2, F_RDLCK, PENDING_BYTE);
  locks.interrupt(1, 0);
  locks.ownerCloses({} as never, node, 2, 0, () => undefined);
  unlockReaders(entry);
  expect(answers).toEqual([`1 ${EINTR}`, `2 ${EINTR}`]);
});
