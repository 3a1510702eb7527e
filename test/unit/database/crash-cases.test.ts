import { describe, expect, it } from "vitest";
import { applyTransactions } from "../../../src/database/apply.ts";
import { checkpointLocalWal } from "../../../src/database/checkpoint.ts";
import { JOURNAL_HEADER_SIZE } from "../../../src/sqlite/journal.ts";
import { encodeWalHeader, WAL_HEADER_SIZE } from "../../../src/sqlite/wal.ts";
import { rollBackAbandoned } from "../../../src/database/demote.ts";
import { TransactionLog } from "../../../src/database/log/transaction-log.ts";
import { LocalWal } from "../../../src/database/local-wal.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import { encodeSnapshot } from "./support/encode-snapshot.ts";
import { FakeDisk, PowerCut, Random } from "./support/fake-disk.ts";
import { FakeLocks, finish } from "./support/fake-mount.ts";
import { checkConsistent, checkContent, contentOf, DIRECTORY } from "./support/harness.ts";
import { FakeHost, open, readAll } from "./support/harness.ts";
import { Content, MiniPager } from "./support/mini-pager.ts";
import type { JournalMode, Synchronous } from "./support/mini-pager.ts";

// Each of these was found by the simulation, see test/unit/simulation.

function started(mode: JournalMode, synchronous: Synchronous = "full") {
  const disk = FakeDisk.prepared();
  const db = open(disk);
  const pager = new MiniPager(db, new Random(7), { pageSize: 512, mode: "delete", synchronous });
  pager.transaction({ pgnos: [1, 2, 3, 4, 5], pageCount: 5 });
  pager.changeMode(mode);
  return { disk, db, pager };
}

/** What the power may leave of a disk, in many ways. */
function* cuts(disk: FakeDisk): Generator<FakeDisk> {
  for (let seed = 1; seed <= 60; seed++) yield disk.powerCut(new Random(seed));
}

function expectContent(disk: FakeDisk, content: Content, pageSize: number): void {
  const db = open(disk);
  expect(db.reason).toBe("");
  checkContent(db, content, pageSize);
}

describe("after a power cut", () => {
  for (const mode of ["delete", "truncate", "persist"] as const) {
    it(`a database with a new page size stays, although its ${mode} journal comes back`, () => {
      const { disk, pager } = started(mode);
      pager.vacuum(1024, 2);
      for (const after of cuts(disk)) expectContent(after, pager.committed, 1024);
    });
  }

  it("a database that was dropped and created again is there, whatever was reaped", () => {
    const { disk, db, pager } = started("delete");
    pager.drop();
    db.log.rotateIfOlderThan(Infinity);
    pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
    const killed = disk.kill();
    const again = open(killed);
    expect(again.log.enforceRetention(Infinity)).toBeGreaterThan(0);
    for (const after of cuts(killed)) expectContent(after, pager.committed, 512);
    const lost = killed.kill();
    lost.remove(`${DIRECTORY}/database`);
    expectContent(lost, pager.committed, 512);
  });

  it("and a kill before it, while a database was dropped: it is there or gone, never half", () => {
    for (let operation = 1; ; operation++) {
      const first = started("delete");
      // The log alone must not be enough to make it again.
      first.db.log.rotateIfOlderThan(Infinity);
      first.pager.transaction({ pgnos: [2], pageCount: 5 });
      const before = first.pager.committed;
      const disk = first.disk.kill();
      const dropped = open(disk);
      expect(dropped.log.enforceRetention(Infinity)).toBeGreaterThan(0);
      const pager = new MiniPager(dropped, new Random(8), { pageSize: 512 });
      pager.reopen(before, 512);
      disk.syncAll();
      disk.cutAt(operation);
      try {
        pager.drop();
        expect(operation).toBeGreaterThan(3);
        break;
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
      }
      const killed = disk.kill();
      expect(open(killed).reason).toBe("");
      for (const after of cuts(killed)) {
        const db = open(after);
        expect(db.reason).toBe("");
        if (db.status !== "deleted") checkContent(db, before, 512);
      }
    }
  });

  it("a segment is as long as it was, which a start had cut and was killed before it synced that", () => {
    const { disk, db, pager } = started("delete");
    for (let i = 0; i < 12; i++) {
      pager.transaction({ pgnos: [2], pageCount: 5 });
      // So that the next start has nothing to append, which it would sync.
      db.log.noteDurable(db.log.txid, "now");
      db.log.sync();
    }
    disk.syncAll();
    const { segment, offsetBytes } = db.log.end;
    const name = `${DIRECTORY}/log/${segment}`;
    expect(disk.size(name)).toBeGreaterThan(offsetBytes);
    const next = disk.powerCut(new Random(1));
    next.onOperation = (kind, file) => {
      if (kind !== "sync" || file !== name) return;
      next.isDead = true;
      throw new PowerCut("killed");
    };
    open(next);
    expect(next.isDead).toBe(true);
    const killed = next.kill();
    expect(killed.size(name)).toBe(offsetBytes);
    const again = open(killed);
    again.log.rotateIfOlderThan(Infinity);
    expect(again.log.end.segment).not.toBe(segment);
    for (const after of cuts(killed)) expectContent(after, pager.committed, 512);
  });

  for (const synchronous of ["normal", "off"] as const) {
    it(`with ${synchronous}, what is torn is noticed, and else a position with its content`, () => {
      const first = started("delete", synchronous);
      // The start notes that the file has everything, so that the log is not applied again.
      const disk = first.disk.kill();
      const db = open(disk);
      const pager = new MiniPager(db, new Random(8), { pageSize: 512, synchronous });
      pager.reopen(first.pager.committed, 512);
      disk.syncAll();
      const history = new Map([[formatPosition(db.position), pager.committed]]);
      history.set("0000000000000000/0000000000000000", new Content());
      const remember = (): void => {
        history.set(formatPosition(db.position), pager.committed);
      };
      pager.transaction({ pgnos: [1, 3, 5], pageCount: 5 });
      remember();
      pager.transaction({ pgnos: [2, 4, 6], pageCount: 6, spillEvery: 2 });
      remember();
      pager.transaction({ pgnos: [1, 2], pageCount: 6, rollBack: true });
      let torn = 0;
      for (const after of cuts(disk)) {
        const reopened = open(after);
        if (reopened.status === "quarantined") {
          expect(reopened.reason).toContain("synchronous=OFF");
          torn++;
          continue;
        }
        const content = history.get(formatPosition(reopened.position));
        if (content === undefined) expect.fail(`${formatPosition(reopened.position)} never was`);
        checkContent(reopened, content, 512);
      }
      if (synchronous === "normal") expect(torn).toBe(0);
      else expect(torn).toBeGreaterThan(0);
    });
  }

  it("a new page size with OFF, and the power goes at any moment", () => {
    for (let nth = 1; ; nth++) {
      const { disk, db, pager } = started("delete", "off");
      disk.syncAll();
      const before = { position: db.position, content: pager.committed };
      disk.cutAt(nth);
      let isOver = false;
      try {
        pager.vacuum(1024, 4);
        isOver = true;
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
      }
      const wanted = pager.attempt?.content ?? pager.committed;
      for (const after of cuts(disk)) {
        const reopened = open(after);
        if (reopened.status === "quarantined") {
          expect(reopened.reason).toContain("synchronous=OFF");
        } else if (reopened.position.txid === before.position.txid) {
          checkContent(reopened, before.content, 512);
        } else checkContent(reopened, wanted, 1024);
      }
      if (isOver) break;
    }
  });
});

describe("after kill -9 and then a power cut", () => {
  it("while the node starts, the file has nothing that the log could still lose", () => {
    for (let nth = 1; nth <= 12; nth++) {
      const { disk, pager } = started("wal", "normal");
      for (let i = 0; i < 4; i++) pager.transaction({ pgnos: [1, 2 + i], pageCount: 6 });
      const killed = disk.kill();
      killed.cutAt(nth);
      try {
        open(killed);
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
      }
      for (const after of cuts(killed)) {
        const reopened = open(after);
        expect(reopened.reason).toBe("");
        checkConsistent(reopened);
      }
    }
  });

  it("a journal that nobody saw any more does not undo what was committed", () => {
    const { disk, pager } = started("delete", "off");
    for (let i = 0; i < 3; i++) pager.transaction({ pgnos: [1, 2 + i], pageCount: 5 });
    const killed = disk.kill();
    open(killed);
    for (const after of cuts(killed)) expectContent(after, pager.committed, 512);
  });

  it("a database is there whose creator was killed before its directory was durable", () => {
    for (let nth = 1; nth <= 30; nth++) {
      const disk = FakeDisk.prepared();
      disk.cutAt(nth);
      try {
        const pager = new MiniPager(open(disk), new Random(1), { pageSize: 512 });
        pager.transaction({ pgnos: [1, 2], pageCount: 2 });
      } catch (error) {
        if (!(error instanceof PowerCut)) throw error;
      }
      const killed = disk.kill();
      const db = open(killed);
      const pager = new MiniPager(db, new Random(2), { pageSize: 512 });
      pager.reopen(contentOf(db), 512);
      pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
      for (const after of cuts(killed)) expectContent(after, pager.committed, 512);
    }
  });
});

describe("a file that is written without a journal", () => {
  it("is not taken for the truth once transactions have followed", () => {
    const { disk, pager } = started("memory");
    pager.transaction({ pgnos: [1, 2], pageCount: 5 });
    pager.changeMode("wal");
    pager.transaction({ pgnos: [1, 3], pageCount: 5 });
    expectContent(disk.kill(), pager.committed, 512);
  });

  it("is looked at, although the log went on in another segment meanwhile", () => {
    const { disk, db, pager } = started("memory");
    let requests = 0;
    pager.beforeIo = () => {
      if (++requests === 4) throw new Error("killed");
    };
    expect(() => pager.transaction({ pgnos: [1, 2, 3, 4], pageCount: 5 })).toThrow("killed");
    db.log.rotateIfOlderThan(Infinity);
    const reopened = open(disk.kill());
    expect(reopened.reason).toBe("");
    checkConsistent(reopened);
    expect(reopened.position.txid).toBe(db.position.txid + 1);
  });
});

it("a checkpoint that cuts the file leaves nothing to be read from a WAL that starts over", () => {
  const { db, pager } = started("wal");
  pager.transaction({ pgnos: [1, 2, 3, 4], pageCount: 5 });
  pager.checkpoint();
  pager.transaction({ pgnos: [1], pageCount: 1 });
  pager.checkpoint();
  // Grows over pages that it does not write: they are what the WAL has of them.
  pager.transaction({ pgnos: [1, 6], pageCount: 6 });
  pager.checkpoint();
  pager.restartWal();
  pager.transaction({ pgnos: [6], pageCount: 6 });
  checkContent(db, pager.committed, 512);
});

it("who starts the WAL over without having seen all of it is refused", () => {
  const { db, pager } = started("wal");
  pager.transaction({ pgnos: [1, 2], pageCount: 3 });
  pager.checkpoint();
  pager.transaction({ pgnos: [2], pageCount: 3 });
  const { position } = db;
  const header = new Uint8Array(WAL_HEADER_SIZE);
  const salt1 = ((db.wal.header?.salt1 ?? 0) + 1) >>> 0;
  encodeWalHeader(
    { bigEndianChecksum: false, pageSize: 512, checkpointSequence: 1, salt1, salt2: 8 },
    header,
    0,
  );
  expect(db.write("wal", 0, header, 0, header.length)).toBe("io");
  // Whoever comes next is shown what is there.
  expect(db.suspect).toBe(true);
  expect(db.position).toEqual(position);
  checkContent(db, pager.committed, 512);
  pager.checkpoint();
  expect(db.write("wal", 0, header, 0, header.length)).toBe("ok");
});

it("a replica takes a database that was dropped, and created with another page size", () => {
  const { disk, db, pager } = started("delete");
  pager.drop();
  const dropped = readAll(disk, db) ?? [];
  const big = new MiniPager(db, new Random(3), { pageSize: 4096 });
  big.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  const created = (readAll(disk, db) ?? []).slice(dropped.length);
  const apply = (on: FakeDisk, files: readonly Uint8Array[]): void => {
    const host = new FakeHost();
    host.primary = false;
    const replica = open(on, host);
    const locks = new FakeLocks();
    const result = finish(applyTransactions(replica, new LocalWal(replica, locks), locks, files));
    expect(result.kind).toBe("applied");
  };
  const disk2 = new FakeDisk();
  apply(disk2, dropped);
  const restarted = disk2.kill();
  apply(restarted, created);
  expectContent(restarted.kill(), big.committed, 4096);
});

it("a snapshot of another history with the same TXID does not overwrite the database", () => {
  const { disk, db, pager } = started("delete");
  pager.vacuum(1024, 2);
  const other = new Content();
  other.pageCount = 2;
  for (const pgno of [1, 2]) other.pages.set(pgno, new Uint8Array(1024).fill(pgno));
  const name = `snapshot-${db.position.txid.toString(16).padStart(16, "0")}.ltx`;
  const snapshot = encodeSnapshot(other, 1024, db.position.txid);
  // The node was killed when it had received the snapshot, and before its log was exchanged.
  const killed = disk.kill();
  killed.put(`${DIRECTORY}/${name}`, snapshot);
  expectContent(killed, pager.committed, 1024);
});

it("a received transaction is cut off whose record header came only in part", () => {
  const { disk, db, pager } = started("delete");
  // More than is written at once.
  const pgnos = Array.from({ length: 150 }, (_, i) => i + 1);
  pager.transaction({ pgnos, pageCount: 150 });
  const files = readAll(disk, db) ?? [];
  const replicaDisk = new FakeDisk();
  const host = new FakeHost();
  host.primary = false;
  const replica = open(replicaDisk, host);
  const locks = new FakeLocks();
  const local = new LocalWal(replica, locks);
  expect(finish(applyTransactions(replica, local, locks, files.slice(0, -1))).kind).toBe("applied");
  const before = replica.position;
  // The payload goes first, the header last: the kill comes in its middle.
  let writes = 0;
  replicaDisk.onOperation = (kind, file) => {
    if (kind !== "write" || !file.endsWith(".seg") || ++writes < 2) return;
    replicaDisk.isDead = true;
    throw new PowerCut("killed");
  };
  finish(applyTransactions(replica, local, locks, files.slice(-1)));
  expect(replicaDisk.isDead).toBe(true);
  const reopened = open(replicaDisk.kill());
  expect(reopened.reason).toBe("");
  expect(reopened.position).toEqual(before);
  checkConsistent(reopened);
});

it("what an application has checkpointed without a sync is synced before its WAL goes", () => {
  const { disk, db, pager } = started("wal", "off");
  pager.transaction({ pgnos: [1, 2, 3, 4, 5], pageCount: 5 });
  pager.checkpoint();
  expect(db.store.frames.unwritten.size).toBe(0);
  // It is a replica now, and starts the WAL over itself.
  const locks = new FakeLocks();
  expect(finish(checkpointLocalWal(db, new LocalWal(db, locks), locks))).toBe(true);
  db.log.sync();
  for (const after of cuts(disk)) expectContent(after, pager.committed, 512);
});

it("a segment that was begun and not synced is not trusted after a kill", () => {
  const { disk } = started("delete");
  const next = disk.powerCut(new Random(1));
  const log = TransactionLog.open(next, `${DIRECTORY}/log`);
  expect(log.isNewBoot).toBe(true);
  next.onOperation = (kind) => {
    if (kind !== "syncDirectory") return;
    next.isDead = true;
    throw new PowerCut("killed");
  };
  const position = { txid: log.txid + 1, hi: log.checksumHi, lo: log.checksumLo };
  expect(() => log.appendBase(position, log.state)).toThrow("killed");
  // Another process that finds its name cannot tell from that that it is durable.
  expect(TransactionLog.open(next.kill(), `${DIRECTORY}/log`).isNewBoot).toBe(false);
});

it("what a first transaction has left and a start has removed does not come back", () => {
  for (const [seed, mode] of (["memory", "delete"] as const).entries()) {
    const disk = FakeDisk.prepared();
    const pager = new MiniPager(open(disk), new Random(seed), {
      pageSize: 512,
      mode,
      synchronous: "full",
    });
    disk.onOperation = (kind, file) => {
      if (kind !== "syncDirectory" || !file.endsWith("/log")) return;
      disk.isDead = true;
      throw new PowerCut("killed");
    };
    expect(() => pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 })).toThrow();
    const killed = disk.kill();
    expect(open(killed).store.pageCount).toBe(0);
    for (const after of cuts(killed)) expect(open(after).store.pageCount).toBe(0);
  }
});

it("what is behind the end of a database that was cut off in the middle never becomes part of it", () => {
  const { disk, pager } = started("memory");
  let requests = 0;
  pager.beforeIo = () => {
    // The first page says by now that there are fewer, and the file was not cut.
    if (++requests === 4) throw new Error("killed");
  };
  expect(() => pager.transaction({ pgnos: [1, 2], pageCount: 2 })).toThrow("killed");
  const killed = disk.kill();
  expect(killed.size(`${DIRECTORY}/database`)).toBe(5 * 512);
  const next = open(killed);
  expect(next.reason).toBe("");
  expect(next.store.pageCount).toBe(2);
  expect(killed.size(`${DIRECTORY}/database`)).toBe(2 * 512);
});

describe("a journal whose writer died", () => {
  it("is played back when nobody has the database open any more", () => {
    const { db, pager } = started("delete");
    const before = pager.committed;
    let requests = 0;
    pager.beforeIo = () => {
      if (++requests === 25) throw new Error("killed");
    };
    const options = { pgnos: [1, 2, 3, 4], pageCount: 5, spillEvery: 1 };
    expect(() => pager.transaction(options)).toThrow("killed");
    expect(db.hasHotJournal).toBe(true);
    const locks = new FakeLocks();
    locks.opens = 1;
    finish(rollBackAbandoned(db, locks));
    expect(db.hasHotJournal).toBe(true);
    locks.opens = 0;
    finish(rollBackAbandoned(db, locks));
    expect(db.hasOpenChanges).toBe(false);
    checkContent(db, before, 512);
    expect(locks.held.size).toBe(0);
  });

  // Before the first page is written it is hot already: its header counts the records.
  it.each(["delete", "truncate", "persist"] as const)(
    "leaves nothing behind, wherever he died: %s",
    (mode) => {
      for (let last = 1; ; last++) {
        const { db, pager } = started(mode);
        const before = pager.committed;
        const { txid } = db.position;
        let requests = 0;
        pager.beforeIo = () => {
          if (++requests === last) throw new Error("killed");
        };
        try {
          pager.transaction({ pgnos: [1, 2, 3, 4], pageCount: 5 });
          expect(last).toBeGreaterThan(10);
          return;
        } catch (error) {
          expect(error).toMatchObject({ message: "killed" });
        }
        finish(rollBackAbandoned(db, new FakeLocks()));
        expect([last, db.hasOpenChanges]).toEqual([last, false]);
        if (db.position.txid === txid) checkContent(db, before, 512);
        checkConsistent(db);
      }
    },
  );

  it("is left to SQLite when it was copied into place", () => {
    const { db } = started("delete");
    const position = db.position;
    const journal = new Uint8Array(JOURNAL_HEADER_SIZE);
    journal.set([0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    expect(db.write("journal", 0, journal, 0, journal.length)).toBe("ok");
    expect(db.hasHotJournal).toBe(true);
    finish(rollBackAbandoned(db, new FakeLocks()));
    expect(db.hasHotJournal).toBe(true);
    expect(db.files.exists("journal")).toBe(true);
    expect(db.position).toEqual(position);
  });
});
