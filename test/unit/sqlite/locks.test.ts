import { expect, test } from "vitest";
import {
  lockPgno,
  PENDING_BYTE,
  RESERVED_BYTE,
  SHARED_FIRST,
  WAL_DMS_LOCK,
  WAL_READ4_LOCK,
  WAL_WRITE_LOCK,
} from "../../../src/sqlite/locks.ts";

test("the lock page is the one that starts with the pending byte", () => {
  for (let pageSize = 512; pageSize <= 65536; pageSize *= 2) {
    expect((lockPgno(pageSize) - 1) * pageSize).toBe(PENDING_BYTE);
  }
  expect(lockPgno(4096)).toBe(262145);
  expect(lockPgno(65536)).toBe(16385);
});

test("lock bytes are SQLite's", () => {
  expect([RESERVED_BYTE, SHARED_FIRST]).toEqual([1073741825, 1073741826]);
  expect([WAL_WRITE_LOCK, WAL_READ4_LOCK, WAL_DMS_LOCK]).toEqual([120, 127, 128]);
});
