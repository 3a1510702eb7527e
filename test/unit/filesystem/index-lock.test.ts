import { expect, test } from "vitest";
import type { Database } from "../../../src/database/database.ts";
import { DatabaseFiles } from "../../../src/database/database-files.ts";
import { DatabaseEntry } from "../../../src/filesystem/entry.ts";
import type { FileNode } from "../../../src/filesystem/entry.ts";
import { LockTable } from "../../../src/filesystem/lock-table.ts";
import { F_RDLCK, F_UNLCK, F_WRLCK } from "../../../src/fuse/constants.ts";
import { WAL_DMS_LOCK } from "../../../src/sqlite/locks.ts";
import { FakeDisk } from "../database/support/fake-disk.ts";

test("the daemon joins those who use the wal-index, so that nobody builds it anew meanwhile", () => {
  const disk = new FakeDisk();
  disk.mkdir("/dbs/app.db");
  const files = new DatabaseFiles(disk, "/dbs/app.db");
  const db = { name: "app.db", files } as unknown as Database;
  const entry: DatabaseEntry = new DatabaseEntry(
    db,
    (owner, kind): FileNode =>
      ({
        type: "file",
        entry: owner,
        kind,
        files,
        locks: new LockTable(),
      }) as unknown as FileNode,
  );
  const { locks } = entry.node("shm");
  const lock = (owner: number, type: number): void =>
    locks.set(owner, 0, owner, owner, WAL_DMS_LOCK, WAL_DMS_LOCK, type);
  const mayBuild = (owner: number): boolean =>
    locks.conflict(owner, 0, false, WAL_DMS_LOCK, WAL_DMS_LOCK, F_WRLCK) === undefined;

  // Whoever comes would find it locked, and take for good what others have left behind.
  expect(entry.joinIndex()).toBe("none");
  expect(mayBuild(1)).toBe(true);

  lock(1, F_WRLCK);
  expect(entry.joinIndex()).toBe("none");
  lock(1, F_RDLCK);
  expect(entry.joinIndex()).toBe("joined");
  lock(1, F_UNLCK);
  expect(mayBuild(2)).toBe(false);
  entry.leaveIndex();
  expect(mayBuild(2)).toBe(true);
  expect(locks.size).toBe(0);
});
