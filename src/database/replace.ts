import { errorText, LitefsError } from "../lib/errors.ts";
import { bigintHi, bigintLo } from "../ltx/crc64.ts";
import type { LtxSummary } from "../ltx/decoder.ts";
import { WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import { isLocalWal, lockOutReaders, unlockReaders } from "./apply.ts";
import type { Database } from "./database.ts";
import type { ApplyResult } from "./engine.ts";
import type { DaemonLocks, Job } from "./host.ts";
import type { LocalWal } from "./local-wal.ts";
import { applyLtxToFile, readLtxFile } from "./ltx-to-file.ts";
import { snapshotFileName } from "./snapshot-file.ts";
import { TransactionLog } from "./log/transaction-log.ts";

/** Logs of abandoned histories that are kept beside the database. */
const KEPT_HISTORIES = 4;

/**
 * Replaces a replica's database by a snapshot of the primary. The snapshot file stays beside the
 * log until the database file has its pages, so a crash at any point ends with the new content.
 * Transactions of the history that ends here are kept in `diverged/`.
 */
export function* applySnapshot(
  db: Database,
  local: LocalWal,
  locks: DaemonLocks,
  receivedPath: string,
): Job<ApplyResult> {
  const summary = verifySnapshot(db, receivedPath);
  const { header } = summary;
  const samePageSize = db.store.pageSize === header.pageSize;
  // Readers that have the database open keep their connections if the WAL can carry the change.
  const throughWal =
    db.status !== "quarantined" &&
    header.commit > 0 &&
    isLocalWal(db, locks) &&
    samePageSize &&
    locks.openCount("any") > 0;
  try {
    if (throughWal) {
      while (!locks.tryLock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK)) {
        yield (resume) => locks.whenReleased(resume);
      }
    } else yield* lockOutReaders(locks);
    try {
      replace(db, local, summary, receivedPath, throughWal);
    } catch (error) {
      local.rollback();
      db.quarantine(
        `it could not be replaced by a snapshot (${errorText(error)}); mend the disk and restart ` +
          "the node, which completes it or fetches the snapshot again",
      );
      return { kind: "quarantined", reason: db.reason };
    }
    if (throughWal) yield* local.publish();
    else yield (resume) => db.kernel.settled(resume);
  } finally {
    if (throughWal) locks.unlock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK);
    else unlockReaders(locks);
  }
  db.status = header.commit === 0 ? "deleted" : "ok";
  db.reason = "";
  db.host.changed(db.name);
  return { kind: "applied", position: db.position };
}

function replace(
  db: Database,
  local: LocalWal,
  summary: LtxSummary,
  receivedPath: string,
  throughWal: boolean,
): void {
  db.store.abandonSnapshots();
  const path = adoptSnapshotFile(db, summary, receivedPath);
  if (throughWal) replaceThroughWal(db, local, path, summary);
  else replaceInPlace(db, local, path, summary);
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

/** From here on the log says that the snapshot is the database. */
function adoptSnapshotFile(db: Database, summary: LtxSummary, receivedPath: string): string {
  const { files } = db.files;
  const { header, trailer } = summary;
  const path = db.files.pathOf(snapshotFileName(header.maxTxid));
  const received = files.open(receivedPath);
  received?.sync();
  received?.close();
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
  keepHistory(db);
  files.rename(db.files.pathOf("log.new"), db.files.pathOf("log"));
  files.syncDirectory(db.files.directory);
  db.log.reopen(db.files.pathOf("log"));
  return path;
}

/** What this node alone may have is never destroyed; old histories go when there are too many. */
function keepHistory(db: Database): void {
  const { files } = db.files;
  const directory = db.files.pathOf("log");
  const isDamaged = db.status === "quarantined";
  db.log.close();
  if (files.list(directory).length === 0 || (!isDamaged && db.log.txid === 0)) {
    files.removeDirectory(directory);
    if (!isDamaged) return;
  }
  const kept = db.files.pathOf("diverged");
  const name = `${String(db.host.nowMs()).padStart(15, "0")}-${db.log.txid.toString(16)}`;
  if (isDamaged) keepDamaged(db, `${kept}/${name}`);
  else {
    files.mkdir(kept);
    files.rename(directory, `${kept}/${name}`);
  }
  files.syncDirectory(kept);
  for (const old of files.list(kept).sort().slice(0, -KEPT_HISTORIES)) {
    files.removeDirectory(`${kept}/${old}`);
  }
}

/** Nobody can say what of a damaged database is worth something, so all of it is kept. */
function keepDamaged(db: Database, kept: string): void {
  const { files } = db.files;
  files.mkdir(kept);
  db.files.closeAll();
  for (const name of ["log", "database", "journal", "wal", "ltx"]) {
    const source = db.files.pathOf(name);
    const exists = files.list(source).length > 0 || files.size(source) !== undefined;
    if (exists) files.rename(source, `${kept}/${name}`);
  }
  files.syncDirectory(kept);
}

function replaceInPlace(db: Database, local: LocalWal, path: string, { header }: LtxSummary): void {
  const { files, store, kernel } = db;
  db.forgetOpenChanges();
  store.frames.reset();
  db.wal.setHeader(undefined);
  local.forgetIndex();
  store.checksums.clear();
  for (const kind of ["journal", "wal", "shm"] as const) {
    files.remove(kind);
    kernel.invalidateName(kind);
  }
  if (header.commit === 0) {
    db.removeFiles();
  } else {
    const source = files.files.open(path, { readOnly: true });
    const file = files.getOrCreate("database");
    if (source === undefined) throw new LitefsError("SNAPSHOT_MISSING", `${path} is gone`);
    applyLtxToFile(source, 0, source.size(), file);
    source.close();
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
  source.close();
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
