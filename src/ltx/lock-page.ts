/** SQLite keeps its locks at this byte of a rollback-mode database and never stores data there. */
const LOCK_BYTE = 0x40000000;

/** The page that holds the lock byte: in no LTX file, in no checksum, zeros in the database. */
export function lockPgno(pageSize: number): number {
  return Math.floor(LOCK_BYTE / pageSize) + 1;
}
