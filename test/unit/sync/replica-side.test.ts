import { describe, expect, test } from "vitest";
import { applyTransactions } from "../../../src/database/apply.ts";
import type { Database } from "../../../src/database/database.ts";
import type { ForwardedCommit } from "../../../src/database/forwarded-commit.ts";
import { LocalWal } from "../../../src/database/local-wal.ts";
import { durably } from "../../../src/filesystem/durably.ts";
import { RESERVED_BYTE, WAL_WRITE_LOCK } from "../../../src/sqlite/locks.ts";
import { FakeDisk, Random } from "../database/support/fake-disk.ts";
import { FakeKernel, FakeLocks, finish } from "../database/support/fake-mount.ts";
import {
  checkConsistent,
  checkContent,
  FakeHost,
  open,
  readAll,
} from "../database/support/harness.ts";
import { IoFailure, MiniPager } from "../database/support/mini-pager.ts";
import type { JournalMode } from "../database/support/mini-pager.ts";

const MODES: readonly JournalMode[] = ["wal", "delete", "truncate", "persist"];
const PAGE_SIZE = 512;
const FIRST = { pgnos: [1, 2, 3, 4], pageCount: 4 };
const SECOND = { pgnos: [2, 4], pageCount: 4 };

/** Three transactions of a primary. */
function transactions(mode: JournalMode): Uint8Array[] {
  const disk = new FakeDisk();
  const db = open(disk);
  const pager = new MiniPager(db, new Random(1), { pageSize: PAGE_SIZE, mode });
  pager.transaction(FIRST);
  pager.transaction(SECOND);
  pager.transaction(SECOND);
  return readAll(disk, db) ?? [];
}

function applied(disk: FakeDisk, files: readonly Uint8Array[], isDurable: boolean): Database {
  const host = new FakeHost();
  host.primary = false;
  const db = open(disk, host);
  const locks = new FakeLocks();
  db.kernel = new FakeKernel();
  const local = new LocalWal(db, locks);
  // The first one makes the database; what follows goes through its WAL, if it has that mode.
  for (const batch of [files.slice(0, 1), files.slice(1)]) {
    const job = applyTransactions(db, local, locks, batch);
    expect(finish(durably(db, isDurable, job)).kind).toBe("applied");
  }
  return db;
}

describe.each(MODES)("%s", (mode) => {
  test("what is acknowledged survives a power cut, what is not need not", () => {
    const files = transactions(mode);
    let lost = 0;
    for (let seed = 1; seed <= 60; seed++) {
      for (const isDurable of [true, false]) {
        const disk = FakeDisk.prepared();
        const { position } = applied(disk, files, isDurable);
        const after = open(disk.powerCut(new Random(seed)));
        checkConsistent(after);
        if (isDurable) expect(after.position).toEqual(position);
        else if (after.position.txid < position.txid) lost++;
      }
    }
    // The rollback modes sync the log before they write the file, whoever waits.
    if (mode === "wal") expect(lost).toBeGreaterThan(0);
  });
});

/** A replica whose application has committed, and waits for the primary. */
function forwarding(mode: JournalMode) {
  const disk = FakeDisk.prepared();
  const host = new FakeHost();
  const db = open(disk, host);
  const locks = new FakeLocks();
  db.kernel = new FakeKernel();
  const pager = new MiniPager(db, new Random(1), { pageSize: PAGE_SIZE, mode });
  pager.transaction(FIRST);
  host.primary = false;
  let sent: ForwardedCommit | undefined;
  let decide: (isCommitted: boolean) => void = () => undefined;
  db.arbiter = {
    submit: (commit, decided) => {
      sent = commit;
      decide = decided;
      // The application's locks.
      locks.block("shm", WAL_WRITE_LOCK);
      locks.block("database", RESERVED_BYTE);
    },
    makeDurable: () => undefined,
  };
  const local = new LocalWal(db, locks);
  const arrive = (): void => {
    const ltx = sent?.ltx?.slice();
    if (ltx === undefined) throw new Error("nothing was sent");
    const job = applyTransactions(db, local, locks, [ltx]);
    expect(finish(durably(db, true, job))).toMatchObject({ kind: "applied" });
  };
  const outcome = (isCommitted: boolean): string => {
    let found = "later";
    db.whenDecided((final) => (found = final));
    arrive();
    expect(found).toBe("later");
    expect(db.position).toEqual(sent?.position);
    decide(isCommitted);
    return found;
  };
  return { disk, db, pager, outcome };
}

describe.each(MODES)("%s, a forwarded commit comes by the stream before it is decided", (mode) => {
  test("it is acknowledged although its application holds the lock, and then succeeds", () => {
    const { disk, db, pager, outcome } = forwarding(mode);
    pager.waitForOthers = () => outcome(true);
    pager.transaction(SECOND);
    expect(db.position.txid).toBe(2);
    checkContent(db, pager.committed, PAGE_SIZE);
    expect(db.isUndecided).toBe(false);
    const after = open(disk.powerCut(new Random(3)));
    checkContent(after, pager.committed, PAGE_SIZE);
  });

  test("it stays when the primary says that nobody knows, and the application has an error", () => {
    const { disk, db, pager, outcome } = forwarding(mode);
    pager.waitForOthers = () => outcome(false);
    expect(() => pager.transaction(SECOND)).toThrow(new IoFailure("io"));
    expect(db.position.txid).toBe(2);
    checkConsistent(db);
    expect(db.suspect).toBe(true);
    const after = open(disk.kill());
    expect(after.position).toEqual(db.position);
    checkConsistent(after);
  });
});
