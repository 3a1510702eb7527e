import type { Database } from "./database.ts";

/** Name of the file that holds the pages of a base record until the database file has them. */
export function snapshotFileName(txid: number): string {
  return `snapshot-${txid.toString(16).padStart(16, "0")}.ltx`;
}

/** Removes snapshot files whose pages are all durable in the database file. */
export function removeObsoleteSnapshots(db: Database): void {
  const durable = snapshotFileName(db.log.state.durableTxid);
  for (const name of db.files.files.list(db.files.directory)) {
    const isObsolete = /^snapshot-[0-9a-f]{16}\.ltx$/.test(name) && name <= durable;
    // Copies of pages for a reader who went with the process that made them.
    const isLeftOver = db.store.snapshots.size === 0 && /^snapshot-\d+\.side$/.test(name);
    if (isObsolete || isLeftOver) db.files.files.remove(db.files.pathOf(name));
  }
}
