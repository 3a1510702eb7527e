import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import Database from "better-sqlite3";
import { describe, expect, it, onTestFinished } from "vitest";
import { applyTransactions } from "../../../src/database/apply.ts";
import { checkpointLocalWal } from "../../../src/database/checkpoint.ts";
import type { Database as ReplicatedDatabase } from "../../../src/database/database.ts";
import { settleAfterDemotion } from "../../../src/database/demote.ts";
import type { ApplyResult } from "../../../src/database/engine.ts";
import { runJob } from "../../../src/database/host.ts";
import { LocalWal } from "../../../src/database/local-wal.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import {
  RESERVED_BYTE,
  WAL_DMS_LOCK,
  WAL_WRITE_LOCK,
  SHARED_FIRST,
} from "../../../src/sqlite/locks.ts";
import {
  decodeWalIndexHeaderPair,
  WAL_INDEX_PREFIX_SIZE,
} from "../../../src/sqlite/wal-index-header.ts";
import { WAL_INDEX_BLOCK_SIZE, WalIndexBlocks } from "../../../src/sqlite/wal-index.ts";
import { scanWal } from "../../../src/sqlite/wal.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { emptyIndex, FakeKernel, FakeLocks, finish } from "./support/fake-mount.ts";
import {
  checkConsistent,
  checkContent,
  contentOf,
  DIRECTORY,
  FakeHost,
  open,
  readAll,
} from "./support/harness.ts";
import { MiniPager } from "./support/mini-pager.ts";
import { randomStep } from "./support/workload.ts";

const FIXTURES = path.join(import.meta.dirname, "../../fixtures/litefs-0.5.14");

interface Expected {
  readonly pageSize: number;
  readonly transactions: readonly { pos: string; file: string; databaseSha256: string }[];
}

function chain(name: string): { expected: Expected; files: Uint8Array[] } {
  const text = fs.readFileSync(path.join(FIXTURES, name, "expected.json"), "utf8");
  const expected = JSON.parse(text) as Expected;
  const files = expected.transactions.map((transaction) =>
    fs.readFileSync(path.join(FIXTURES, name, transaction.file)),
  );
  return { expected, files };
}

function sha256(db: ReplicatedDatabase): string {
  const hash = createHash("sha256");
  const content = contentOf(db);
  for (let pgno = 1; pgno <= content.pageCount; pgno++) {
    hash.update(content.page(pgno, db.store.pageSize));
  }
  return hash.digest("hex");
}

function replica(disk = new FakeDisk()) {
  const host = new FakeHost();
  host.primary = false;
  const db = open(disk, host);
  const locks = new FakeLocks();
  const kernel = new FakeKernel();
  db.kernel = kernel;
  const local = new LocalWal(db, locks);
  const apply = (...files: Uint8Array[]): ApplyResult =>
    finish(applyTransactions(db, local, locks, files));
  return { disk, host, db, locks, kernel, local, apply };
}

describe("chains of LiteFS", () => {
  for (const name of ["wal-4096", "delete-1024", "raw-4096", "drop-4096"]) {
    it(`${name}: every transaction gives the recorded bytes`, () => {
      const { expected, files } = chain(name);
      const { disk, db, locks, local, apply } = replica();
      for (const [i, file] of files.entries()) {
        expect(apply(file).kind).toBe("applied");
        const transaction = expected.transactions[i];
        expect(formatPosition(db.position)).toBe(transaction?.pos);
        expect(sha256(db)).toBe(transaction?.databaseSha256);
        if (i % 7 === 6) finish(checkpointLocalWal(db, local, locks));
        expect(locks.held.size).toBe(0);
      }
      const reopened = open(disk.kill());
      expect(reopened.position).toEqual(db.position);
      expect(sha256(reopened)).toBe(expected.transactions.at(-1)?.databaseSha256);
    });

    it(`${name}: in batches, with what one transaction deletes in the middle`, () => {
      const { expected, files } = chain(name);
      const random = new Random(7);
      const { disk, db, apply } = replica();
      for (let i = 0; i < files.length;) {
        const count = 1 + random.below(5);
        expect(apply(...files.slice(i, i + count)).kind).toBe("applied");
        i += count;
      }
      expect(formatPosition(db.position)).toBe(expected.transactions.at(-1)?.pos);
      expect(sha256(db)).toBe(expected.transactions.at(-1)?.databaseSha256);
      expect(readAll(disk, db)).toHaveLength(files.length);
    });
  }

  it("a transaction that does not give what it promises is a mismatch, and nothing happens", () => {
    const text = fs.readFileSync(path.join(FIXTURES, "anomalies/expected.json"), "utf8");
    const { cases } = JSON.parse(text) as {
      cases: { name: string; files: { file: string; consistent: boolean }[] }[];
    };
    let mismatches = 0;
    for (const { name, files } of cases) {
      const { db, apply } = replica();
      for (const { file, consistent } of files) {
        const before = db.position;
        const ltx = fs.readFileSync(path.join(FIXTURES, "anomalies", name, file));
        const result = apply(ltx);
        if (!consistent) expect(result.kind, `${name} ${file}`).toBe("mismatch");
        if (result.kind !== "applied") {
          mismatches++;
          expect(db.position).toEqual(before);
        }
        checkConsistent(db);
      }
    }
    expect(mismatches).toBeGreaterThan(1);
  });

  it("a damaged file is a mismatch", () => {
    const { files } = chain("wal-4096");
    const { db, apply } = replica();
    const damaged = Uint8Array.from(files[0] ?? []);
    damaged[120] = (damaged[120] ?? 0) ^ 1;
    expect(apply(damaged).kind).toBe("mismatch");
    expect(apply((files[0] ?? damaged).slice(0, 100)).kind).toBe("mismatch");
    expect(apply(files[1] ?? damaged).kind).toBe("mismatch");
    expect(db.position.txid).toBe(0);
  });
});

describe("what readers of a replica see", () => {
  it("the published wal-index is the one SQLite would build", () => {
    const { files } = chain("wal-4096");
    const { disk, db, locks, kernel, local, apply } = replica();
    apply(...files.slice(0, 3));
    locks.opens = 1;
    kernel.shm = emptyIndex(db.store.pageSize);
    for (const [i, file] of files.slice(3).entries()) {
      apply(file);
      checkIndex(disk, db, kernel);
      if (i % 9 === 8) {
        expect(finish(checkpointLocalWal(db, local, locks))).toBe(true);
        checkIndex(disk, db, kernel);
      }
    }
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-apply-"));
    onTestFinished(() => fs.rmSync(directory, { recursive: true }));
    const name = path.join(directory, "app.db");
    fs.writeFileSync(name, disk.content(`${DIRECTORY}/database`));
    fs.writeFileSync(`${name}-wal`, disk.content(`${DIRECTORY}/wal`));
    const sqlite = new Database(name);
    expect(sqlite.pragma("integrity_check", { simple: true })).toBe("ok");
    sqlite.pragma("wal_checkpoint(TRUNCATE)");
    sqlite.close();
    const hash = createHash("sha256").update(fs.readFileSync(name)).digest("hex");
    expect(hash).toBe(sha256(db));
  });

  it("an apply waits for the local writer's lock and goes on when it is given up", () => {
    const { files } = chain("wal-4096");
    const { db, locks, local, apply } = replica();
    apply(...files.slice(0, 3));
    const before = db.position;
    locks.block("shm", WAL_WRITE_LOCK);
    let result: ApplyResult | undefined;
    const job = applyTransactions(db, local, locks, files.slice(3, 4));
    runJob(
      job,
      (value) => (result = value),
      (error) => expect.fail(String(error)),
    );
    expect(result).toBeUndefined();
    expect(db.position).toEqual(before);
    locks.release();
    expect(result?.kind).toBe("applied");
    expect(locks.held.size).toBe(0);
  });
});

it("whoever has a database in WAL mode to himself is waited for, and nothing is checkpointed", () => {
  const { files } = chain("wal-4096");
  const { db, locks, local, apply } = replica();
  locks.opens = 1;
  apply(...files.slice(0, 3));
  const before = db.position;
  const frames = db.store.frames.count;
  // From when this node was the primary: locking_mode=EXCLUSIVE, with the wal-index on the heap.
  locks.block("database", SHARED_FIRST);
  expect(finish(checkpointLocalWal(db, local, locks))).toBe(false);
  let result: ApplyResult | undefined;
  runJob(
    applyTransactions(db, local, locks, files.slice(3, 4)),
    (value) => (result = value),
    (error) => expect.fail(String(error)),
  );
  expect(result).toBeUndefined();
  expect(db.position).toEqual(before);
  expect(db.store.frames.count).toBe(frames);
  locks.release();
  expect(result?.kind).toBe("applied");
  expect(db.position.txid).toBe(before.txid + 1);
});

describe("the wal-index while a transaction is shown in it", () => {
  it("is not cut down by somebody who opens the database: we are there until it has arrived", () => {
    const { files } = chain("wal-4096");
    const { db, locks, kernel, apply } = replica();
    apply(...files.slice(0, 3));
    locks.opens = 1;
    kernel.shm = emptyIndex(4096);
    const heldAtStores: boolean[] = [];
    const store = kernel.store.bind(kernel);
    kernel.store = (kind, offset, data) => {
      if (kind === "shm") heldAtStores.push(locks.held.has(`shm ${WAL_DMS_LOCK}`));
      store(kind, offset, data);
    };
    kernel.settled = (then) => {
      if (heldAtStores.length > 0) heldAtStores.push(locks.held.has(`shm ${WAL_DMS_LOCK}`));
      then();
    };
    apply(...files.slice(3, 6));
    expect(heldAtStores.length).toBeGreaterThan(2);
    expect(new Set(heldAtStores)).toEqual(new Set([true]));
    expect(locks.held.size).toBe(0);
    expect(decodeWalIndexHeaderPair(kernel.shm, 0)?.maxFrame).toBe(db.store.frames.count);
  });

  it("is not touched when nobody is at it, or somebody is about to build it", () => {
    const { files } = chain("wal-4096");
    const { db, locks, kernel, apply } = replica();
    apply(...files.slice(0, 3));
    locks.opens = 1;
    kernel.shm = emptyIndex(4096);
    apply(...files.slice(3, 6));
    const shown = db.store.frames.count;
    locks.index = "none";
    apply(...files.slice(6, 7));
    expect(decodeWalIndexHeaderPair(kernel.shm, 0)?.maxFrame).toBe(shown);
    expect(locks.held.size).toBe(0);
    // What was missed is shown with the next one.
    locks.index = "joined";
    apply(...files.slice(7, 8));
    expect(decodeWalIndexHeaderPair(kernel.shm, 0)?.maxFrame).toBe(db.store.frames.count);
  });
});

describe("a disk that fails during an apply", () => {
  for (const name of ["wal-4096", "delete-1024"]) {
    for (const code of ["ENOSPC", "EIO"] as const) {
      it(`${name}, ${code} at every operation: never a position that the pages do not have`, () => {
        const { expected, files } = chain(name);
        const batch = files.slice(3, 9);
        for (let nth = 1; ; nth++) {
          const { disk, db, locks, apply } = replica();
          apply(...files.slice(0, 3));
          const before = db.position;
          disk.failAt(nth, code);
          let isOver = false;
          try {
            isOver = apply(...batch).kind === "applied";
          } catch (error) {
            expect(String(error)).toContain(code);
          }
          disk.onOperation = () => undefined;
          expect(locks.held.size).toBe(0);
          if (db.status !== "quarantined") {
            checkConsistent(db);
            expect(db.position.txid).toBeGreaterThanOrEqual(before.txid);
            // What could not be applied is applied when it comes again.
            if (!isOver) {
              const missing = files.slice(db.position.txid, 9);
              const again = missing.length === 0 ? undefined : retry(() => apply(...missing));
              if (again !== undefined) expect(again.kind).toBe("applied");
            }
          } else expect(db.reason).toContain("restart the node");
          const reopened = open(disk.kill());
          expect(reopened.reason).toBe("");
          checkConsistent(reopened);
          const transaction = expected.transactions[reopened.position.txid - 1];
          expect(sha256(reopened)).toBe(transaction?.databaseSha256);
          expect(reopened.position.txid).toBeGreaterThanOrEqual(before.txid);
          if (isOver) break;
        }
      });
    }
  }
});

/** A log whose end is in doubt takes nothing until the node starts anew, and says so every time. */
function retry(action: () => ApplyResult): ApplyResult | undefined {
  try {
    return action();
  } catch (error) {
    expect(String(error)).toMatch(/ENOSPC|EIO/);
    return undefined;
  }
}

describe("a primary that becomes a replica", () => {
  it("takes back what an application had not committed", () => {
    const { host, disk, pager, db, locks, local } = primary();
    const before = db.position;
    disk.failAt(1, "ENOSPC", (file) => file.includes("/log/"));
    expect(() => pager.transaction({ pgnos: [2, 3], pageCount: 9 })).toThrow();
    disk.onOperation = () => undefined;
    host.primary = false;
    expect(db.hasOpenChanges).toBe(true);
    locks.block("database", RESERVED_BYTE);
    let done = false;
    runJob(
      settleAfterDemotion(db, locks),
      () => (done = true),
      (error) => expect.fail(String(error)),
    );
    expect(done).toBe(false);
    locks.release();
    expect(done).toBe(true);
    expect(locks.held.size).toBe(0);
    expect(db.hasOpenChanges).toBe(false);
    expect(db.files.exists("journal")).toBe(false);
    expect(db.position).toEqual(before);
    expect(disk.content(`${DIRECTORY}/database`)).toHaveLength(6 * 512);
    checkContent(db, pager.committed, 512);
    // The next transaction of the new primary applies.
    const other = primary();
    other.pager.transaction({ pgnos: [2, 5], pageCount: 7 });
    const ltx = readAll(other.disk, other.db, before) ?? [];
    expect(finish(applyTransactions(db, local, locks, ltx)).kind).toBe("applied");
    checkContent(db, other.pager.committed, 512);
  });

  it("gives what was written without a journal a position of its own", () => {
    const { host, pager, db, locks } = primary();
    const before = db.position;
    pager.changeMode("memory");
    const refuse = db.endLooseWrites.bind(db);
    db.endLooseWrites = () => "io";
    expect(() => pager.transaction({ pgnos: [2, 3], pageCount: 9 })).toThrow();
    db.endLooseWrites = refuse;
    host.primary = false;
    finish(settleAfterDemotion(db, locks));
    expect(db.position.txid).toBe(before.txid + 1);
    checkConsistent(db);
  });
});

describe("the primary's history on a replica", () => {
  it("random work arrives page for page, with restarts and checkpoints in between", () => {
    for (let seed = 1; seed <= 6; seed++) {
      const random = new Random(seed);
      const { disk, db, pager } = primary(seed);
      let follower = replica();
      for (let i = 0; i < 60; i++) {
        randomStep(pager, random);
        const ltx = readAll(disk, db, follower.db.position);
        if (ltx !== undefined && ltx.length > 0) {
          expect(follower.apply(...ltx).kind).toBe("applied");
          checkContent(follower.db, pager.committed, 512);
        }
        if (random.chance(0.1)) {
          finish(checkpointLocalWal(follower.db, follower.local, follower.locks));
        }
        if (random.chance(0.1)) follower = replica(follower.disk.kill());
        checkConsistent(follower.db);
      }
      checkContent(follower.db, pager.committed, 512);
    }
  });
});

function primary(seed = 3) {
  const disk = new FakeDisk();
  const host = new FakeHost();
  const db = open(disk, host);
  const locks = new FakeLocks();
  const local = new LocalWal(db, locks);
  const pager = new MiniPager(db, new Random(seed), { pageSize: 512 });
  pager.transaction({ pgnos: [1, 2, 3, 4, 5, 6], pageCount: 6 });
  return { disk, host, db, locks, local, pager };
}

/** Both are built from the same WAL: one by SQLite's rules, one by what the engine has pushed. */
function checkIndex(disk: FakeDisk, db: ReplicatedDatabase, kernel: FakeKernel): void {
  const wal = db.files.get("wal");
  const scan = wal === undefined ? undefined : scanWal(wal, wal.size());
  const shm = kernel.shm;
  if (shm === undefined || scan === undefined) expect.fail("no wal-index or no WAL");
  const header = decodeWalIndexHeaderPair(shm, 0);
  expect(header?.maxFrame).toBe(scan.committedFrames);
  expect(header?.salt1).toBe(scan.header.salt1);
  expect(header?.salt2).toBe(scan.header.salt2);
  if (scan.committedFrames === 0) return;
  expect(header?.pageCount).toBe(scan.commitPageCount);
  expect(header?.frameChecksum1).toBe(scan.checksum1);
  expect(header?.frameChecksum2).toBe(scan.checksum2);
  const blocks = new WalIndexBlocks();
  for (const pgno of scan.pgnos) blocks.append(pgno);
  const lastBlock = Math.floor((scan.committedFrames + 33) / 4096);
  for (let block = 0; block <= lastBlock; block++) {
    const from = block === 0 ? WAL_INDEX_PREFIX_SIZE : 0;
    const start = block * WAL_INDEX_BLOCK_SIZE;
    const pushed = shm.subarray(start + from, start + WAL_INDEX_BLOCK_SIZE);
    expect(Buffer.compare(pushed, blocks.block(block).subarray(from))).toBe(0);
  }
  expect(disk.size(`${DIRECTORY}/shm`)).toBeDefined();
}
