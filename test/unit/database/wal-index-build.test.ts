import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";
import { applyTransactions } from "../../../src/database/apply.ts";
import { runJob } from "../../../src/database/host.ts";
import { checkpointLocalWal } from "../../../src/database/checkpoint.ts";
import { LocalWal } from "../../../src/database/local-wal.ts";
import {
  decodeWalCheckpointInfo,
  decodeWalIndexHeaderPair,
  READ_MARK_NOT_USED,
  WAL_CHECKPOINT_INFO_OFFSET,
  WAL_INDEX_HEADER_SIZE,
} from "../../../src/sqlite/wal-index-header.ts";
import { WAL_INDEX_BLOCK_SIZE, WalIndexBlocks } from "../../../src/sqlite/wal-index.ts";
import { FakeDisk } from "./support/fake-disk.ts";
import { FakeKernel, FakeLocks, finish } from "./support/fake-mount.ts";
import { FakeHost, open } from "./support/harness.ts";

const CHAIN = path.join(import.meta.dirname, "../../fixtures/litefs-0.5.14/wal-4096");

/** A replica with the transactions of a LiteFS node in its WAL. */
function replica() {
  const { transactions } = JSON.parse(
    fs.readFileSync(path.join(CHAIN, "expected.json"), "utf8"),
  ) as { transactions: { file: string }[] };
  const host = new FakeHost();
  host.primary = false;
  const db = open(new FakeDisk(), host);
  const locks = new FakeLocks();
  const kernel = new FakeKernel();
  db.kernel = kernel;
  const local = new LocalWal(db, locks);
  for (const { file } of transactions) {
    const ltx = fs.readFileSync(path.join(CHAIN, file));
    expect(finish(applyTransactions(db, local, locks, [ltx])).kind).toBe("applied");
  }
  const index = (): Uint8Array => {
    const file = db.files.get("shm");
    const bytes = new Uint8Array(file?.size() ?? 0);
    file?.readAt(bytes, 0, bytes.length, 0);
    return bytes;
  };
  return { db, locks, kernel, local, index };
}

test("what the kernel writes back meanwhile does not take an entry out of the file", () => {
  const { db, kernel, local, locks, index } = replica();
  const header = db.wal.header;
  expect(header).toBeDefined();
  finish(local.buildIndex());
  locks.opens = 1;
  // A page of the cache as it was before the transaction, with the read mark of somebody.
  const before = index().slice(0, 4096);
  before[WAL_CHECKPOINT_INFO_OFFSET + 4 + 4] = 7;
  const arrived: (() => void)[] = [];
  kernel.settled = (then) => void arrived.push(then);
  const page = new Uint8Array(db.store.pageSize);
  db.store.readPage(1, page, 0);
  local.append(1, page, db.store.pageCount);
  local.flush();
  local.commit();
  const job = local.publish();
  runJob(
    job,
    () => undefined,
    (error) => {
      throw error;
    },
  );
  expect(arrived.length).toBeGreaterThan(0);
  const after = index();
  expect(after.slice(0, 4096)).not.toEqual(before);
  expect(db.write("shm", 0, before, 0, before.length)).toBe("ok");
  const mended = index();
  mended[WAL_CHECKPOINT_INFO_OFFSET + 4 + 4] = after[WAL_CHECKPOINT_INFO_OFFSET + 4 + 4] ?? 0;
  expect(mended).toEqual(after);
  expect(index()[WAL_CHECKPOINT_INFO_OFFSET + 4 + 4]).toBe(7);
  // From here on the kernel's page has it too.
  for (const then of arrived.splice(0)) then();
  db.write("shm", 0, before, 0, before.length);
  expect(index().slice(0, 4096)).toEqual(before);
});

test("the wal-index that is built for the first to open it has every frame", () => {
  const { db, kernel, local, index } = replica();
  const { frames } = db.store;
  expect(frames.count).toBeGreaterThan(0);
  // What was left from another time must not shine through.
  db.files.getOrCreate("shm").writeAt(new Uint8Array(WAL_INDEX_BLOCK_SIZE).fill(0xab), 0, 32768, 0);
  finish(local.buildIndex());
  const bytes = index();
  expect(bytes.length % WAL_INDEX_BLOCK_SIZE).toBe(0);
  expect(decodeWalIndexHeaderPair(bytes, 0)).toMatchObject({
    maxFrame: frames.count,
    pageCount: db.store.pageCount,
    pageSize: db.store.pageSize,
    salt1: db.wal.header?.salt1,
    salt2: db.wal.header?.salt2,
    frameChecksum1: db.wal.sum1,
    frameChecksum2: db.wal.sum2,
  });
  const none = READ_MARK_NOT_USED;
  expect(decodeWalCheckpointInfo(bytes, WAL_CHECKPOINT_INFO_OFFSET)).toEqual({
    backfill: 0,
    backfillAttempted: 0,
    readMarks: [0, frames.count, none, none, none],
  });
  const blocks = new WalIndexBlocks();
  for (let i = 0; i < frames.count; i++) blocks.append(frames.pgnoAt(i));
  for (let i = 0; i < blocks.blockCount; i++) {
    const start = i === 0 ? WAL_CHECKPOINT_INFO_OFFSET + 40 : 0;
    const built = bytes.subarray(i * WAL_INDEX_BLOCK_SIZE, (i + 1) * WAL_INDEX_BLOCK_SIZE);
    expect(built.subarray(start)).toEqual(blocks.block(i).subarray(start));
  }
  // Readers have it from the kernel.
  expect(kernel.shm?.subarray(0, bytes.length)).toEqual(bytes);
});

test("of an empty WAL there is a whole block as well, because nobody maps less", () => {
  const { db, locks, local, index } = replica();
  expect(finish(checkpointLocalWal(db, local, locks))).toBe(true);
  expect(db.store.frames.count).toBe(0);
  finish(local.buildIndex());
  expect(index()).toHaveLength(WAL_INDEX_BLOCK_SIZE);
  const header = decodeWalIndexHeaderPair(index(), 0);
  expect(header).toMatchObject({ maxFrame: 0, pageCount: db.store.pageCount });
  expect(header?.salt1).toBe(db.wal.header?.salt1);
});

test("a wal-index that is valid is left alone, a torn one is mended under its readers", () => {
  const { db, kernel, local, index } = replica();
  finish(local.buildIndex());
  const before = index();
  finish(local.mendIndex());
  expect(index()).toEqual(before);

  // A process has died between the two copies of the header, and others read.
  kernel.shm?.fill(0xff, 8, WAL_INDEX_HEADER_SIZE);
  finish(local.mendIndex());
  const mended = kernel.shm ?? new Uint8Array(0);
  expect(decodeWalIndexHeaderPair(mended, 0)?.maxFrame).toBe(db.store.frames.count);
  // Where they read is theirs to say.
  expect(decodeWalCheckpointInfo(mended, WAL_CHECKPOINT_INFO_OFFSET)).toEqual(
    decodeWalCheckpointInfo(before, WAL_CHECKPOINT_INFO_OFFSET),
  );
});

/** Frames that the file of the wal-index shows to whoever reads it now. */
function framesInFile(bytes: Uint8Array): number | undefined {
  return decodeWalIndexHeaderPair(bytes, 0)?.maxFrame;
}

/** The first of the transactions is shown, and the others are in the WAL and not shown yet. */
function replicaWithMore() {
  const all = replica();
  finish(all.local.buildIndex());
  const shown = all.db.store.frames.count;
  all.locks.opens = 1;
  const page = new Uint8Array(all.db.store.pageSize);
  all.db.store.readPage(2, page, 0);
  all.local.append(2, page, all.db.store.pageCount);
  all.local.flush();
  all.local.commit();
  return { ...all, shown };
}

test("the file does not show frames that are still on their way to the kernel", () => {
  const { kernel, local, index, shown } = replicaWithMore();
  const seen: (number | undefined)[] = [];
  // The kernel reads the file for a page that it does not have, and has others of before.
  kernel.onSettling = () => seen.push(framesInFile(index()));
  finish(local.publish());
  expect(seen).toEqual([shown]);
  expect(framesInFile(index())).toBe(shown + 1);
  expect(framesInFile(kernel.shm ?? new Uint8Array(0))).toBe(shown + 1);
});

test("a header that the kernel has read from the file meanwhile is pushed again", () => {
  const { kernel, local, index, shown } = replicaWithMore();
  let isRead = false;
  kernel.onSettling = () => {
    if (isRead) return;
    isRead = true;
    local.indexIsRead(0);
    // It came after the push, which has found no page.
    kernel.shm?.set(index().subarray(0, 2 * WAL_INDEX_HEADER_SIZE), 0);
  };
  finish(local.publish());
  expect(isRead).toBe(true);
  expect(framesInFile(kernel.shm ?? new Uint8Array(0))).toBe(shown + 1);
  expect(framesInFile(index())).toBe(shown + 1);
});

test("one that was cut and never built is built, for whoever could not", () => {
  const { db, kernel, local, index } = replica();
  db.files.getOrCreate("shm").truncate(3);
  kernel.shm = undefined;
  finish(local.mendIndex());
  expect(index().length).toBeGreaterThanOrEqual(WAL_INDEX_BLOCK_SIZE);
  expect(decodeWalIndexHeaderPair(index(), 0)?.maxFrame).toBe(db.store.frames.count);
});
