import { Crc64, pageChecksum } from "../ltx/crc64.ts";
import type { Database } from "./database.ts";
import type { Outcome } from "./outcome.ts";
import type { PageStore } from "./page-store.ts";

const crc = new Crc64();
const version = new Uint8Array(65536);

/** In WAL mode only a checkpoint writes the database file, and it may only write what the WAL holds. */
export function writeCheckpoint(
  db: Database,
  offset: number,
  data: Uint8Array,
  start: number,
  length: number,
): Outcome {
  const { store } = db;
  const pgno = isCheckpointWrite(store, offset, data, start, length);
  if (pgno === 0) {
    db.host.logger.error("refused a write to a database in WAL mode that is no checkpoint", {
      db: db.name,
      offsetBytes: offset,
      lengthBytes: length,
    });
    return "io";
  }
  // The database file must never hold what the log could still lose.
  db.log.sync();
  db.files.getOrCreate("database").writeAt(data, start, length, offset);
  const { unwritten } = store.frames;
  if (pgno > 0) unwritten.delete(pgno);
  // A checkpointer that is behind may put an older version over the newest one.
  else unwritten.add(offset / store.pageSize + 1);
  return "ok";
}

/** A checkpoint cuts the file to the committed size, or extends it before it writes. */
export function truncateByCheckpoint(db: Database, sizeBytes: number): Outcome {
  if (sizeBytes === 0) {
    const { name } = db;
    db.host.logger.error("refused to empty a database that is open in WAL mode", { db: name });
    return "busy";
  }
  if (!isCutSafe(db.store, sizeBytes)) return "io";
  const file = db.files.getOrCreate("database");
  if (sizeBytes < file.size()) {
    // What was committed last may be what made the database smaller.
    db.log.sync();
    // Also beyond the end: the database may grow over these pages again without writing them.
    db.store.frames.markUnwrittenAfter(Math.floor(sizeBytes / db.store.pageSize));
  }
  file.truncate(sizeBytes);
  return "ok";
}

/**
 * SQLite starts the WAL over when, by its wal-index, all of it is in the database file. Whoever does
 * it earlier does not know the newest transactions and would write over them, from pages as they
 * were before. He gets an error, and then the wal-index is written anew (`suspect`).
 */
export function mayRestartWal({ store, host, name }: Database): boolean {
  const missingPages = store.frames.missingPages(store.pageCount);
  if (missingPages === 0) return true;
  host.logger.error("refused to start a WAL over, its writer has not seen all of it", {
    db: name,
    missingPages,
  });
  return false;
}

/**
 * A checkpointer may not know of the newest commit yet and cut the file to the size before it:
 * no harm if the WAL has all the pages that go.
 */
function isCutSafe(store: PageStore, sizeBytes: number): boolean {
  const { frames, pageCount, pageSize, lockPgno } = store;
  for (let pgno = Math.floor(sizeBytes / pageSize) + 1; pgno <= pageCount; pgno++) {
    if (pgno !== lockPgno && frames.newest(pgno) < 0) return false;
  }
  return true;
}

/**
 * Decides whether a write to the database file is a checkpoint: exactly one page, whose content is
 * a version that the WAL holds. Returns the page number when it is the newest version, -1 when it
 * is an older one (a reader holds the checkpointer back), and 0 when it is neither.
 */
function isCheckpointWrite(
  store: PageStore,
  offset: number,
  data: Uint8Array,
  start: number,
  length: number,
): number {
  if (length !== store.pageSize || offset % store.pageSize !== 0) return 0;
  const pgno = offset / store.pageSize + 1;
  if (store.frames.newest(pgno) < 0) return 0;
  pageChecksum(crc, pgno, data, start, length);
  if (pgno <= store.pageCount) {
    const { hi, lo } = crc;
    store.loadChecksum(pgno);
    if (store.checksums.hi === hi && store.checksums.lo === lo) return pgno;
  }
  const written = data.subarray(start, start + length);
  for (const frame of store.frames.versions(pgno)) {
    store.readFrame(frame, version, 0);
    if (Buffer.compare(written, version.subarray(0, length)) === 0) return -1;
  }
  return 0;
}
