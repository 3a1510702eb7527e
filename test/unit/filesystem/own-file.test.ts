import { expect, test } from "vitest";
import type { FileNode } from "../../../src/filesystem/entry.ts";
import { DAEMON_FH, LockTable } from "../../../src/filesystem/lock-table.ts";
import { OwnFile, RESERVED, SHARED_RANGE } from "../../../src/filesystem/own-file.ts";
import { F_UNLCK, F_WRLCK } from "../../../src/fuse/constants.ts";
import type { SystemCalls } from "../../../src/fuse/system-calls.ts";
import {
  PENDING_BYTE,
  RESERVED_BYTE,
  SHARED_FIRST,
  SHARED_LAST,
} from "../../../src/sqlite/locks.ts";

/** What the kernel was asked for, and a byte that an application has. */
function opened() {
  const asked: string[] = [];
  const taken = new Set<number>();
  const calls = {
    setLock: (_fd: number, type: string, first: number, last: number) => {
      const isFree = type === "none" || ![...taken].some((byte) => byte >= first && byte <= last);
      const name =
        first === PENDING_BYTE ? "PENDING" : first === RESERVED_BYTE ? "RESERVED" : "SHARED";
      asked.push(`${type} ${name}${isFree ? "" : " refused"}`);
      return isFree;
    },
  } as unknown as SystemCalls;
  const node = { kind: "database", locks: new LockTable() } as unknown as FileNode;
  const note = (first: number, last: number, type: number): void =>
    node.locks.set(0, 0, DAEMON_FH, 1, first, last, type);
  return { file: new OwnFile(node, calls), asked, taken, note };
}

test("what was noted while nobody had it open is taken with the descriptor", () => {
  const { file, asked, note } = opened();
  note(PENDING_BYTE, RESERVED_BYTE, F_WRLCK);
  expect(asked).toEqual([]);
  file.attach(7);
  expect(asked).toEqual(["write PENDING", "write RESERVED"]);
});

test("the guard stays when a job gives up its locks", () => {
  const { file, asked, note } = opened();
  file.attach(7);
  expect(file.guard(RESERVED, "write")).toBe(true);
  expect(file.guard(SHARED_RANGE, "read")).toBe(true);
  note(PENDING_BYTE, SHARED_LAST, F_WRLCK);
  expect(file.tryLock(PENDING_BYTE, SHARED_LAST)).toBe(true);
  asked.length = 0;
  note(PENDING_BYTE, SHARED_LAST, F_UNLCK);
  file.restore(PENDING_BYTE, SHARED_LAST);
  expect(asked).toEqual(["none PENDING", "write RESERVED", "read SHARED"]);
});

test("a job keeps its locks when the guard is dropped", () => {
  const { file, asked, note } = opened();
  file.attach(7);
  file.guard(RESERVED, "write");
  note(RESERVED_BYTE, RESERVED_BYTE, F_WRLCK);
  asked.length = 0;
  file.unguardAll();
  expect(asked).toEqual([]);
  note(RESERVED_BYTE, RESERVED_BYTE, F_UNLCK);
  file.restore(RESERVED_BYTE, RESERVED_BYTE);
  expect(asked).toEqual(["none RESERVED"]);
});

test("an application in the way is no part of the guard", () => {
  const { file, taken } = opened();
  file.attach(7);
  taken.add(SHARED_FIRST + 5);
  expect(file.guard(SHARED_RANGE, "read")).toBe(false);
  expect(file.guards(SHARED_RANGE)).toBe(false);
  taken.clear();
  expect(file.guard(SHARED_RANGE, "read")).toBe(true);
  expect(file.guards(SHARED_RANGE)).toBe(true);
});

test("without its descriptor nothing is guarded", () => {
  const { file } = opened();
  file.attach(7);
  file.guard(RESERVED, "write");
  expect(file.detach()).toBe(7);
  expect(file.guards(RESERVED)).toBe(false);
  expect(file.isOpen).toBe(false);
});
