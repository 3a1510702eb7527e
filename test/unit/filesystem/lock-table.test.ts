import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Database } from "../../../src/database/database.ts";
import { DatabaseFiles } from "../../../src/database/database-files.ts";
import { DatabaseEntry } from "../../../src/filesystem/entry.ts";
import type { FileNode } from "../../../src/filesystem/entry.ts";
import { DAEMON_FH, LockTable } from "../../../src/filesystem/lock-table.ts";
import { LockWaiters } from "../../../src/filesystem/lock-waiters.ts";
import { F_RDLCK, F_UNLCK, F_WRLCK } from "../../../src/fuse/constants.ts";
import { FakeDisk } from "../database/support/fake-disk.ts";

const BYTES = 12;
const OWNERS = 4;
/** The daemon among the owners. */
const DAEMON = 0;

/** What every owner holds on every byte: the definition of fcntl(2), without any cleverness. */
class ByteMap {
  readonly held: { type: number; fh: number }[][] = Array.from({ length: BYTES }, () =>
    Array.from({ length: OWNERS }, () => ({ type: F_UNLCK, fh: 0 })),
  );

  mayHave(owner: number, start: number, end: number, type: number): boolean {
    for (let byte = start; byte <= end; byte++) {
      for (let other = 0; other < OWNERS; other++) {
        const theirs = this.held[byte]?.[other]?.type;
        if (other === owner || theirs === F_UNLCK) continue;
        if (theirs === F_WRLCK || type === F_WRLCK) return false;
      }
    }
    return true;
  }
  set(owner: number, start: number, end: number, type: number, fh: number): void {
    for (let byte = start; byte <= end; byte++) {
      const slot = this.held[byte];
      if (slot !== undefined) slot[owner] = { type, fh };
    }
  }
  release(matches: (owner: number, fh: number) => boolean): void {
    for (const slot of this.held) {
      for (const [owner, lock] of slot.entries()) {
        if (matches(owner, lock.fh)) slot[owner] = { type: F_UNLCK, fh: 0 };
      }
    }
  }
}

const operation = fc.record({
  kind: fc.constantFrom("lock", "lock", "lock", "unlock", "owner", "handle"),
  owner: fc.nat(OWNERS - 1),
  start: fc.nat(BYTES - 1),
  length: fc.integer({ min: 1, max: BYTES }),
  type: fc.constantFrom(F_RDLCK, F_WRLCK),
  fh: fc.integer({ min: 1, max: 3 }),
});

describe("locks of one file", () => {
  it("behave as fcntl's do, byte for byte", () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
        const table = new LockTable();
        const model = new ByteMap();
        for (const { kind, owner, start, length, type, fh: handle } of operations) {
          const end = Math.min(BYTES - 1, start + length - 1);
          const isDaemon = owner === DAEMON;
          const fh = isDaemon ? DAEMON_FH : handle;
          // Owners differ in the high half only, as pointers of one slab do in the low one.
          const [lo, hi] = [7, isDaemon ? 0 : owner];
          if (kind === "lock") {
            const conflict = table.conflict(lo, hi, isDaemon, start, end, type);
            expect(conflict === undefined).toBe(model.mayHave(owner, start, end, type));
            if (conflict !== undefined) {
              expect(conflict.start <= end && conflict.end >= start).toBe(true);
              continue;
            }
            table.set(lo, hi, fh, 1, start, end, type);
            model.set(owner, start, end, type, fh);
          } else if (kind === "unlock") {
            table.set(lo, hi, fh, 1, start, end, F_UNLCK);
            model.set(owner, start, end, F_UNLCK, 0);
          } else if (kind === "owner") {
            if (isDaemon) continue;
            table.releaseOwner(lo, hi);
            model.release((other) => other === owner);
          } else {
            table.releaseHandle(handle);
            model.release((other, otherHandle) => other !== DAEMON && otherHandle === handle);
          }
          check(table, model);
        }
      }),
      { numRuns: 400 },
    );
  });

  it("a closed descriptor takes only what was locked through it", () => {
    const table = new LockTable();
    table.set(1, 0, 5, 1, 0, 3, F_WRLCK);
    table.set(1, 0, 6, 1, 4, 7, F_WRLCK);
    expect(table.releaseHandle(5)).toBe(true);
    expect(table.releaseHandle(5)).toBe(false);
    expect(table.conflict(2, 0, false, 0, 3, F_WRLCK)).toBeUndefined();
    expect(table.conflict(2, 0, false, 4, 4, F_RDLCK)?.fh).toBe(6);
  });
});

function check(table: LockTable, model: ByteMap): void {
  for (let byte = 0; byte < BYTES; byte++) {
    for (let owner = 0; owner < OWNERS; owner++) {
      for (const type of [F_RDLCK, F_WRLCK]) {
        const isFree = table.conflict(7, owner, owner === DAEMON, byte, byte, type) === undefined;
        expect(isFree).toBe(model.mayHave(owner, byte, byte, type));
      }
      const mine = model.held[byte]?.[owner]?.type === F_WRLCK;
      if (owner !== DAEMON) expect(table.ownerHoldsWrite(7, owner, byte, byte)).toBe(mine);
    }
    const isWritten = model.held[byte]?.some(
      ({ type }, owner) => owner !== DAEMON && type === F_WRLCK,
    );
    expect(table.isWriteLocked(byte, byte)).toBe(isWritten);
  }
  expect(table.isDaemonLocked).toBe(
    model.held.some((slot) => slot[DAEMON]?.type === F_WRLCK || slot[DAEMON]?.type === F_RDLCK),
  );
}

function entryOn(disk = new FakeDisk()) {
  disk.mkdir("/dbs/app.db");
  const db = {
    files: new DatabaseFiles(disk, "/dbs/app.db"),
    position: { txid: 0, checksum: 0n },
  } as unknown as Database & { files: DatabaseFiles };
  let id = 1;
  const entry: DatabaseEntry = new DatabaseEntry(db, (owner, kind): FileNode => ({
    type: "file",
    id: id++,
    entry: owner,
    kind,
    files: db.files,
    locks: new LockTable(),
    lookups: 0,
    opens: 0,
    isUnlinked: false,
  }));
  return { db, disk, entry };
}

describe("waiting for a lock", () => {
  it("requests are granted in the order they came, as soon as nobody is in the way", () => {
    const { entry } = entryOn();
    const node = entry.node("database");
    const waiters = new LockWaiters();
    const granted: number[] = [];
    const wait = (unique: number, owner: number, type: number): void =>
      waiters.add({
        uniqueLo: unique,
        uniqueHi: 0,
        node,
        fh: owner,
        ownerLo: owner,
        ownerHi: 0,
        start: 0,
        end: 9,
        type,
        pid: 1,
        sinceMs: 0,
      });
    node.locks.set(1, 0, 1, 1, 0, 9, F_WRLCK);
    wait(10, 2, F_RDLCK);
    wait(11, 3, F_WRLCK);
    wait(12, 4, F_RDLCK);
    waiters.retry(node, (unique) => granted.push(unique));
    expect(granted).toEqual([]);
    node.locks.releaseOwner(1, 0);
    waiters.retry(node, (unique) => granted.push(unique));
    expect(granted).toEqual([10, 12]);
    expect(waiters.cancel(11, 0)).toBe(true);
    expect(waiters.cancel(11, 0)).toBe(false);
    wait(13, 3, F_WRLCK);
    const cancelled: number[] = [];
    waiters.cancelOwner(3, 0, node, (unique) => cancelled.push(unique));
    expect(cancelled).toEqual([13]);
    expect(waiters.size).toBe(0);
  });
});

describe("the daemon's locks", () => {
  it("keep applications out, and are kept out by them", () => {
    const { entry } = entryOn();
    const { locks } = entry.node("shm");
    locks.set(1, 0, 1, 1, 120, 120, F_WRLCK);
    expect(entry.tryLock("shm", 120, 121)).toBe(false);
    expect(locks.conflict(2, 0, false, 121, 121, F_WRLCK)).toBeUndefined();
    let released = 0;
    entry.whenReleased(() => released++);
    locks.releaseOwner(1, 0);
    entry.released();
    entry.released();
    expect(released).toBe(1);
    expect(entry.tryLock("shm", 120, 121)).toBe(true);
    expect(locks.conflict(1, 0, false, 121, 121, F_RDLCK)?.fh).toBe(DAEMON_FH);
    entry.unlock("shm", 120, 121);
    expect(locks.conflict(1, 0, false, 120, 121, F_WRLCK)).toBeUndefined();
  });

  it("are given back on the file they were taken on, though the name has another by then", () => {
    const { db, entry } = entryOn();
    db.files.getOrCreate("database");
    const old = entry.node("database");
    expect(entry.tryLock("database", 0, 9)).toBe(true);
    db.files = db.files.retire();
    expect(entry.node("database")).not.toBe(old);
    entry.unlock("database", 0, 9);
    expect(old.locks.size).toBe(0);
  });
});

describe("the queue of a database", () => {
  it("goes on after a job that throws, also when its wait cannot begin", () => {
    const { entry } = entryOn();
    const log: string[] = [];
    const failed = (error: unknown): void => {
      log.push(String(error));
    };
    entry.enqueue(
      function* () {
        try {
          yield () => {
            throw new Error("no wait");
          };
        } finally {
          log.push("released");
        }
      },
      () => log.push("done"),
      failed,
    );
    let resume: () => void = () => undefined;
    entry.enqueue(
      function* () {
        yield (then) => {
          resume = then;
        };
        throw new Error("after the wait");
      },
      () => log.push("done"),
      failed,
    );
    entry.enqueue(
      function* () {
        for (let i = 0; i < 50_000; i++) yield (then) => then();
        return "third";
      },
      (result) => {
        log.push(`${result}, busy: ${entry.isBusy}`);
      },
      failed,
    );
    expect(entry.isBusy).toBe(true);
    expect(log).toEqual(["released", "Error: no wait"]);
    resume();
    resume();
    expect(log.slice(2)).toEqual(["Error: after the wait", "third, busy: false"]);
    expect(entry.isBusy).toBe(false);
  });

  it("goes on when reporting an outcome throws", () => {
    const { entry } = entryOn();
    let ran = false;
    let resume: () => void = () => undefined;
    entry.enqueue(
      function* () {
        yield (then) => {
          resume = then;
        };
      },
      () => {
        throw new Error("nobody listens");
      },
      () => undefined,
    );
    entry.enqueue(
      function* () {
        ran = true;
        yield (then) => then();
      },
      () => undefined,
      () => undefined,
    );
    expect(() => resume()).toThrow("nobody listens");
    expect(ran).toBe(true);
    expect(entry.isBusy).toBe(false);
  });
});
