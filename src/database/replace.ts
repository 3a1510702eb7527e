import { errorText, LitefsError } from "../lib/errors.ts";
import { bigintHi, bigintLo } from "../ltx/crc64.ts";
import type { LtxSummary } from "../ltx/decoder.ts";
import { WAL_READ4_LOCK, WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import { isLocalWal, lockOutReaders, lockWal, unlockReaders } from "./apply.ts";
import type { FileKind } from "./database-files.ts";
import type { Database } from "./database.ts";
import type { ApplyResult } from "./engine.ts";
import type { DaemonLocks, Job } from "./host.ts";
import { DATABASE_PARTS, keepAside, limitKept } from "./keep-aside.ts";
import type { LocalWal } from "./local-wal.ts";
import { applyLtxToFile, readLtxFile } from "./ltx-to-file.ts";
import { isSystemError } from "./outcome.ts";
import { snapshotFileName } from "./snapshot-file.ts";
import { TransactionLog } from "./log/transaction-log.ts";

/** How the pages of a snapshot take the place of what is there, and whom that locks out. */
type Way =
  /** As frames of the local WAL: readers keep their snapshots. */
  | "through the WAL"
  /** In place while no WAL reader is inside a transaction; connections stay and see it next. */
  | "under the WAL"
  /** In place while nobody holds a lock on the database file. */
  | "in place"
  /** There is nothing to write: whoever has the old files open keeps them. */
  | "removal";

/**
 * Replaces a replica's database by a snapshot of the primary. The snapshot file stays beside the
 * log until the database file has its pages, so a crash at any point ends with the new content.
 * Transactions of the history that ends here are kept in `diverged/`, a damaged database in
 * `quarantine/`.
 */
export function* applySnapshot(
  db: Database,
  local: LocalWal,
  locks: DaemonLocks,
  receivedPath: string,
): Job<ApplyResult> {
  const summary = verifySnapshot(db, receivedPath);
  // As long as nothing has changed, a disk that fails costs no more than another attempt.
  const path = prepareReplacement(db, summary, receivedPath);
  const begin = (): Way => {
    if (db.status === "quarantined") {
      db.startAnew();
      local.forgetIndex();
    }
    return wayFor(db, locks, summary);
  };
  let way = begin();
  try {
    yield* lockOut(locks, way);
    // While it waited it may have been quarantined: then nothing of it may be used.
    while (db.status === "quarantined" && db.files.isRevoked) {
      unlock(locks, way);
      way = begin();
      yield* lockOut(locks, way);
    }
    try {
      replace(db, local, summary, path, way);
      if (way === "through the WAL") yield* local.publish();
      else if (way === "under the WAL") yield* local.startOver();
      else yield (resume) => db.kernel.settled(resume);
    } catch (error) {
      local.rollback();
      const cause = isSystemError(error) ? "disk" : "damage";
      db.quarantine(`it could not be replaced by a snapshot: ${errorText(error)}`, cause);
      return { kind: "quarantined", reason: db.reason };
    }
  } finally {
    unlock(locks, way);
  }
  db.released();
  return { kind: "applied", position: db.position };
}

function wayFor(db: Database, locks: DaemonLocks, { header }: LtxSummary): Way {
  if (header.commit === 0) return "removal";
  const samePageSize = db.store.pageSize === header.pageSize;
  const isHealthy = db.status !== "quarantined";
  if (isHealthy && samePageSize && isLocalWal(db, locks) && locks.openCount("any") > 0) {
    return "through the WAL";
  }
  // Connections in WAL mode lock the database file until they close, even while they are idle.
  return locks.openCount("shm") > 0 ? "under the WAL" : "in place";
}

function* lockOut(locks: DaemonLocks, way: Way): Job<void> {
  if (way === "in place") yield* lockOutReaders(locks);
  if (way === "through the WAL") yield* lockWal(locks, WAL_WRITE_LOCK);
  if (way === "under the WAL") yield* lockWal(locks, WAL_READ4_LOCK);
}

function unlock(locks: DaemonLocks, way: Way): void {
  if (way === "in place") unlockReaders(locks);
  if (way === "through the WAL") locks.unlock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK);
  if (way === "under the WAL") locks.unlock("shm", WAL_WRITE_LOCK, WAL_READ4_LOCK);
}

function replace(db: Database, local: LocalWal, summary: LtxSummary, path: string, way: Way): void {
  db.store.abandonSnapshots();
  exchangeLogs(db);
  if (way === "through the WAL") replaceThroughWal(db, local, path, summary);
  else replaceInPlace(db, local, path, summary, way === "under the WAL");
}

function verifySnapshot(db: Database, path: string): LtxSummary {
  const file = db.files.files.open(path, { readOnly: true });
  if (file === undefined) {
    throw new LitefsError("SNAPSHOT_MISSING", `the received snapshot ${path} is gone`);
  }
  try {
    return readLtxFile(file, 0, file.size(), () => undefined);
  } finally {
    file.close();
  }
}

/** Puts everything in place that the exchange needs. */
function prepareReplacement(db: Database, summary: LtxSummary, receivedPath: string): string {
  const { files } = db.files;
  const { header, trailer } = summary;
  const path = db.files.pathOf(snapshotFileName(header.maxTxid, trailer.postApplyChecksum));
  const received = files.open(receivedPath);
  try {
    received?.sync();
  } finally {
    received?.close();
  }
  files.rename(receivedPath, path);
  files.syncDirectory(db.files.directory);

  const position = {
    txid: header.maxTxid,
    hi: bigintHi(trailer.postApplyChecksum),
    lo: bigintLo(trailer.postApplyChecksum),
  };
  const state = {
    pageSize: header.pageSize,
    pageCount: header.commit,
    timestampMs: header.timestampMs,
    durableTxid: 0,
  };
  // What an earlier attempt left there must not mix with this one.
  files.removeDirectory(db.files.pathOf("log.new"));
  const next = TransactionLog.open(files, db.files.pathOf("log.new"));
  next.appendBase(position, state);
  next.close();
  return path;
}

/** From here on the log says that the snapshot is the database. */
function exchangeLogs(db: Database): void {
  const { files } = db.files;
  keepHistory(db);
  files.rename(db.files.pathOf("log.new"), db.files.pathOf("log"));
  files.syncDirectory(db.files.directory);
  db.log.reopen(db.files.pathOf("log"));
}

/** What this node alone may have, or what somebody may want to look into, is never destroyed. */
function keepHistory(db: Database): void {
  const { files } = db.files;
  const isDamaged = db.status === "quarantined";
  if (isDamaged) {
    db.log.release();
    const kept = keepAside(db, "quarantine", DATABASE_PARTS);
    db.host.logger.warn("kept what was quarantined", { db: db.name, reason: db.reason, kept });
  } else {
    db.log.close();
    const directory = db.files.pathOf("log");
    if (files.list(directory).length > 0 && db.log.txid > 0) keepAside(db, "diverged", ["log"]);
    else files.removeDirectory(directory);
  }
  limitKept(files, db.files.directory, db.host.keepAside);
  db.counters.divergedHistories = files.list(db.files.pathOf("diverged")).length;
}

function replaceInPlace(
  db: Database,
  local: LocalWal,
  path: string,
  { header }: LtxSummary,
  keepWal: boolean,
): void {
  const { files, store, kernel } = db;
  db.forgetOpenChanges();
  store.frames.reset();
  store.checksums.clear();
  const gone: readonly FileKind[] = keepWal ? ["journal"] : ["journal", "wal", "shm"];
  for (const kind of gone) {
    files.remove(kind);
    kernel.invalidateName(kind);
  }
  if (keepWal) {
    files.get("wal")?.truncate(0);
    kernel.invalidate("wal", 0, 0);
  } else {
    db.wal.setHeader(undefined);
    local.forgetIndex();
  }
  if (header.commit === 0) {
    db.removeFiles();
  } else {
    const source = files.files.open(path, { readOnly: true });
    if (source === undefined) throw new LitefsError("SNAPSHOT_MISSING", `${path} is gone`);
    const file = files.getOrCreate("database");
    try {
      applyLtxToFile(source, 0, source.size(), file);
    } finally {
      source.close();
    }
    file.truncate(header.commit * header.pageSize);
    file.sync();
    files.syncNames();
    store.pageSize = header.pageSize;
    store.pageCount = header.commit;
  }
  db.log.noteDurable(header.maxTxid, "now");
  db.log.sync();
  files.files.remove(path);
  kernel.invalidate("database", 0, 0);
  kernel.invalidateName("database");
}

/** Only pages that differ go through the WAL; checkpointing it makes the snapshot file obsolete. */
function replaceThroughWal(
  db: Database,
  local: LocalWal,
  path: string,
  { header }: LtxSummary,
): void {
  const { files, store } = db;
  const source = files.files.open(path, { readOnly: true });
  if (source === undefined) throw new LitefsError("SNAPSHOT_MISSING", `${path} is gone`);
  const pending: { pgno: number; page: Uint8Array }[] = [];
  try {
    readLtxFile(source, 0, source.size(), (pgno, data, hi, lo) => {
      if (pgno <= store.pageCount) {
        store.loadChecksum(pgno);
        if (store.checksums.hi === hi && store.checksums.lo === lo) return;
      }
      store.checksums.set(pgno, hi, lo);
      // One page is held back, because only the last frame may carry the commit size.
      const previous = pending.pop();
      if (previous !== undefined) local.append(previous.pgno, previous.page, 0);
      pending.push({ pgno, page: data.slice() });
    });
  } finally {
    source.close();
  }
  let last = pending.pop();
  if (last === undefined) {
    const page = new Uint8Array(store.pageSize);
    store.readPage(1, page, 0);
    last = { pgno: 1, page };
  }
  local.append(last.pgno, last.page, header.commit);
  local.flush();
  local.commit();
  if (header.commit < store.pageCount) store.checksums.truncate(header.commit);
  store.pageCount = header.commit;
}
