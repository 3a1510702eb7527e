import { WAL_READ0_LOCK, WAL_READ4_LOCK, WAL_WRITE_LOCK, WAL_CKPT_LOCK } from "../sqlite/locks.ts";
import type { Database } from "./database.ts";
import type { DaemonLocks, Job } from "./host.ts";
import type { LocalWal } from "./local-wal.ts";
import { removeObsoleteSnapshots } from "./snapshot-file.ts";
import { invalidatePages } from "./stale-pages.ts";

/** SQLite's own default for wal_autocheckpoint. */
export const CHECKPOINT_FRAMES = 1000;

/**
 * Moves a replica's local WAL into the database file and starts it over, if no reader is in the
 * way at this moment; otherwise it does nothing and may be tried again. Returns whether the WAL
 * was started over.
 *
 * Copying is safe from the moment when no read lock is held: every reader after it sees at least
 * the frames that are there now, and finds each of their pages in the WAL, not in the file.
 */
export function* checkpointLocalWal(
  db: Database,
  local: LocalWal,
  locks: DaemonLocks,
): Job<boolean> {
  const { store } = db;
  if (store.frames.count === 0 || locks.isHeldExclusively()) return false;
  // A reader that does not see the newest frames would find their pages in the database file.
  if (!locks.tryLock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK)) return false;
  try {
    yield* local.publish();
  } finally {
    locks.unlock("shm", WAL_WRITE_LOCK, WAL_WRITE_LOCK);
  }
  const isWriting = store.frames.unwritten.size > 0;
  const { txid } = db.log;
  if (isWriting) {
    if (!locks.tryLock("shm", WAL_READ0_LOCK, WAL_READ4_LOCK)) return false;
    try {
      db.log.sync();
      invalidatePages(db.kernel, store.pageSize, store.writeBack());
    } finally {
      locks.unlock("shm", WAL_READ0_LOCK, WAL_READ4_LOCK);
    }
  }
  // Also what an application's checkpoint has written, and with synchronous=OFF did not sync.
  db.files.syncDatabase();
  if (isWriting) yield (resume) => db.kernel.settled(resume);
  if (!locks.tryLock("shm", WAL_WRITE_LOCK, WAL_CKPT_LOCK)) return false;
  try {
    if (!locks.tryLock("shm", WAL_READ0_LOCK, WAL_READ4_LOCK)) return false;
    try {
      // What came meanwhile may have been checkpointed without a sync.
      if (store.frames.unwritten.size > 0 || db.log.txid !== txid) return false;
      // He would go on writing behind what is started over here; he needs none of these locks.
      if (locks.isHeldExclusively()) return false;
      db.log.noteDurable(db.log.txid, "now");
      removeObsoleteSnapshots(db);
      yield* local.restart();
      return true;
    } finally {
      locks.unlock("shm", WAL_READ0_LOCK, WAL_READ4_LOCK);
    }
  } finally {
    locks.unlock("shm", WAL_WRITE_LOCK, WAL_CKPT_LOCK);
  }
}
