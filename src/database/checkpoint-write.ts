import { Crc64, pageChecksum } from "../ltx/crc64.ts";
import type { PageStore } from "./page-store.ts";

const crc = new Crc64();
const version = new Uint8Array(65536);

/**
 * Decides whether a write to the database file is a checkpoint: exactly one page, whose content is
 * a version that the WAL holds. Returns the page number when it is the newest version, -1 when it
 * is an older one (a reader holds the checkpointer back), and 0 when it is neither.
 */
export function isCheckpointWrite(
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
