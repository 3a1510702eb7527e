import { describe, expect, test } from "vitest";
import type { Database } from "../../../src/database/database.ts";
import type { FinalOutcome } from "../../../src/database/outcome.ts";
import type { SyncDuty } from "../../../src/database/replica-waits.ts";
import { FakeDisk, Random } from "../database/support/fake-disk.ts";
import { checkConsistent, checkContent, FakeHost, open } from "../database/support/harness.ts";
import { IoFailure, MiniPager } from "../database/support/mini-pager.ts";
import type { JournalMode } from "../database/support/mini-pager.ts";

const MODES: readonly JournalMode[] = ["wal", "delete", "truncate", "persist"];
const PAGE_SIZE = 512;
const FIRST = { pgnos: [1, 2, 3, 4], pageCount: 4 };
const SECOND = { pgnos: [2, 4], pageCount: 4 };

interface Setup {
  readonly disk: FakeDisk;
  readonly host: FakeHost;
  readonly db: Database;
  readonly pager: MiniPager;
  readonly waiting: string[];
  /** How many replicas there are. */
  replicas: number;
}

/** A synchronous primary with one transaction, from before it was that. */
function setUp(mode: JournalMode, isStrict = true): Setup {
  const disk = new FakeDisk();
  disk.mkdir("/data/dbs");
  const options = { pageSize: PAGE_SIZE, mode };
  const before = new MiniPager(open(disk), new Random(1), options);
  before.transaction(FIRST);
  disk.syncAll();
  const started = disk.kill();
  const host = new FakeHost();
  const waiting: string[] = [];
  const setup: { replicas: number } = { replicas: 1 };
  host.sync = {
    policy: { needed: 1, databases: new Map([["async.db", 0]]), isStrict },
    replicaCount: () => setup.replicas,
    commitWaits: (name) => waiting.push(name),
  };
  const db = open(started, host);
  const pager = new MiniPager(db, new Random(1), options);
  pager.committed = before.committed;
  pager.changeCounter = before.changeCounter;
  return Object.assign(setup, { disk: started, host, db, pager, waiting });
}

/** The outcome that a commit is answered with, once it was settled like this. */
function settled(db: Database, isAcknowledged: boolean, next: SyncDuty = "wait"): () => string {
  return () => {
    let outcome: FinalOutcome | "later" = "later";
    db.whenDecided((final) => (outcome = final));
    expect(outcome).toBe("later");
    const { txid } = db.position;
    db.replicaWaits?.settle({ throughTxid: txid - 1, isAcknowledged: true, next: "wait" });
    expect(outcome).toBe("later");
    db.replicaWaits?.settle({ throughTxid: txid, isAcknowledged, next });
    return outcome;
  };
}

describe.each(MODES)("%s", (mode) => {
  test("a commit is answered when it is settled, and is on the primary's disk by then", () => {
    const { disk, db, pager, waiting } = setUp(mode);
    // The application itself asks for no sync at all.
    pager.synchronous = "normal";
    pager.waitForOthers = settled(db, true);
    pager.transaction(SECOND);
    expect(waiting).toEqual(["app.db"]);
    expect(db.position.txid).toBe(2);
    checkContent(db, pager.committed, PAGE_SIZE);
    for (let seed = 1; seed <= 20; seed++) {
      const after = open(disk.powerCut(new Random(seed)));
      checkContent(after, pager.committed, PAGE_SIZE);
    }
  });

  test("unknown: SQLite is told of an error, and the log has it", () => {
    const { disk, db, pager } = setUp(mode);
    pager.waitForOthers = settled(db, false, "refuse");
    expect(() => pager.transaction(SECOND)).toThrow(new IoFailure("io"));
    expect(db.position.txid).toBe(2);
    checkConsistent(db);
    expect(db.isFenced).toBe(true);
    const after = open(disk.kill());
    expect(after.position).toEqual(db.position);
    checkConsistent(after);
  });

  test("behind the fence everything is refused, and nothing is left of it", () => {
    const { db, pager, waiting } = setUp(mode);
    pager.waitForOthers = settled(db, true, "refuse");
    pager.transaction(SECOND);
    expect(() => pager.transaction(SECOND)).toThrow(new IoFailure("io"));
    expect(db.position.txid).toBe(2);
    expect(waiting).toHaveLength(1);
  });

  test("with too few replicas a strict primary refuses, before anybody is told", () => {
    const setup = setUp(mode);
    setup.replicas = 0;
    const { db, pager, waiting } = setup;
    expect(() => pager.transaction(SECOND)).toThrow(new IoFailure("io"));
    expect(waiting).toEqual([]);
    expect(db.position.txid).toBe(1);
    // As SQLite does it after an error: and no fence is in its way.
    if (mode !== "wal") pager.recoverHotJournal();
    checkContent(db, pager.committed, PAGE_SIZE);
  });

  test("with too few replicas one that is not strict goes on at once", () => {
    const setup = setUp(mode, false);
    setup.replicas = 0;
    const { db, pager, waiting } = setup;
    pager.transaction(SECOND);
    expect(waiting).toEqual([]);
    expect(db.position.txid).toBe(2);
  });

  test("degraded, commits do not wait although there are replicas", () => {
    const { db, pager, waiting } = setUp(mode, false);
    pager.waitForOthers = settled(db, true, "none");
    pager.transaction(SECOND);
    pager.transaction(SECOND);
    expect(waiting).toHaveLength(1);
    expect(db.position.txid).toBe(3);
  });

  test("acknowledged after the lease has run out is not acknowledged", () => {
    const { db, host, pager } = setUp(mode);
    const settle = settled(db, true);
    pager.waitForOthers = () => {
      host.isCovered = () => false;
      return settle();
    };
    expect(() => pager.transaction(SECOND)).toThrow(new IoFailure("io"));
    expect(db.position.txid).toBe(2);
  });

  test("whoever waits learns at once that this node is the primary no more", () => {
    const { db, host, pager } = setUp(mode);
    pager.waitForOthers = () => {
      let outcome = "later";
      db.whenDecided((final) => (outcome = final));
      host.primary = false;
      db.replicaWaits?.roleChanged();
      return outcome;
    };
    expect(() => pager.transaction(SECOND)).toThrow(new IoFailure("io"));
    expect(db.position.txid).toBe(2);
  });

  test("a primary that cannot keep it itself says so", () => {
    const { db, disk, pager } = setUp(mode);
    pager.synchronous = "normal";
    pager.waitForOthers = () => {
      disk.failAt(1, "EIO", (file, kind) => kind === "sync" && file.includes("/log/"));
      let outcome = "later";
      db.whenDecided((final) => (outcome = final));
      return outcome;
    };
    // A log whose sync has failed is copied, and that works here.
    expect(() => pager.transaction(SECOND)).toThrow(new IoFailure("later"));
    disk.recover();
  });
});

test("what ends with a descriptor or a lock cannot wait", () => {
  const { db, pager, waiting } = setUp("delete");
  const page = pager.committed.page(2, PAGE_SIZE).slice();
  page.fill(7);
  expect(db.write("database", PAGE_SIZE, page, 0, PAGE_SIZE)).toBe("ok");
  expect(db.endLooseWrites()).toBe("ok");
  expect(db.position.txid).toBe(2);
  expect(waiting).toEqual([]);
  // And leaves nothing that would make the next operation wait.
  expect(db.truncate("shm", 0)).toBe("ok");
  expect(db.unlink("journal")).toBe("ok");
  expect(waiting).toEqual([]);
});

test("on a replica nothing waits, and nothing is refused", () => {
  const setup = setUp("wal");
  setup.replicas = 0;
  expect(setup.db.isFenced).toBe(true);
  setup.host.primary = false;
  expect(setup.db.isFenced).toBe(false);
  expect(setup.db.replicaWaits?.duty).toBe("none");
});

test("others than applications wait for what there is now", () => {
  const { db, waiting } = setUp("wal");
  const answers: boolean[] = [];
  db.replicaWaits?.whenReplicated((isSafe) => answers.push(isSafe));
  expect(answers).toEqual([]);
  expect(waiting).toEqual(["app.db"]);
  db.replicaWaits?.settle({ throughTxid: 1, isAcknowledged: true, next: "refuse" });
  expect(answers).toEqual([true]);
  // Behind the fence as well: the replicas may come back.
  db.replicaWaits?.whenReplicated((isSafe) => answers.push(isSafe));
  expect(answers).toEqual([true]);
  db.replicaWaits?.settle({ throughTxid: 1, isAcknowledged: false, next: "none" });
  db.replicaWaits?.whenReplicated((isSafe) => answers.push(isSafe));
  expect(answers).toEqual([true, false, true]);
  expect(waiting).toHaveLength(2);
});
