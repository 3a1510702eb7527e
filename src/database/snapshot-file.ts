import { formatChecksum, formatTxid } from "../lib/position.ts";
import { halvesToBigint } from "../ltx/crc64.ts";
import { LTX_TRAILER_SIZE } from "../ltx/header.ts";
import { decodeTrailer } from "../ltx/trailer.ts";
import type { DatabaseFiles } from "./database-files.ts";
import type { OpenFile } from "./files.ts";
import type { RecordHeader } from "./log/record.ts";
import type { Database } from "./database.ts";

/** As version 0.6 and those before named it; one may wait for a start of this version. */
function formerName(txid: number): string {
  return `snapshot-${formatTxid(txid)}.ltx`;
}

/**
 * Name of the file that holds the pages of a base record until the database file has them. With the
 * checksum: another history may have the same TXID, and must not take the place of what is still needed.
 */
export function snapshotFileName(txid: number, checksum: bigint): string {
  return `snapshot-${formatTxid(txid)}-${formatChecksum(checksum)}.ltx`;
}

/**
 * The received pages of a base record; undefined when it was made of the database file itself. There
 * may be a file of another history with the same TXID, which was about to replace this one.
 */
export function openSnapshotOf(files: DatabaseFiles, base: RecordHeader): OpenFile | undefined {
  const checksum = halvesToBigint(base.checksumHi, base.checksumLo);
  const snapshot =
    openIfThere(files, snapshotFileName(base.txid, checksum)) ??
    openIfThere(files, formerName(base.txid));
  if (snapshot === undefined) return undefined;
  const bytes = new Uint8Array(LTX_TRAILER_SIZE);
  const count = snapshot.readAt(bytes, 0, bytes.length, snapshot.size() - LTX_TRAILER_SIZE);
  if (count === bytes.length) {
    const { postApplyChecksum } = decodeTrailer(bytes, 0);
    if (postApplyChecksum === checksum) return snapshot;
  }
  snapshot.close();
  return undefined;
}

function openIfThere(files: DatabaseFiles, name: string): OpenFile | undefined {
  return files.files.open(files.pathOf(name), { readOnly: true });
}

/** Removes snapshot files whose pages are all durable in the database file. */
export function removeObsoleteSnapshots(db: Database): void {
  const durable = formatTxid(db.log.state.durableTxid);
  for (const name of db.files.files.list(db.files.directory)) {
    const [, txid = "~"] = /^snapshot-([0-9a-f]{16})(?:-[0-9a-f]{16})?\.ltx$/.exec(name) ?? [];
    const isObsolete = txid <= durable;
    // Copies of pages for a reader who went with the process that made them.
    const isLeftOver = !db.store.hasSnapshots && /^snapshot-\d+\.side$/.test(name);
    if (isObsolete || isLeftOver) db.files.files.remove(db.files.pathOf(name));
  }
}
