/**
 * The bytes SQLite locks with fcntl(2). They carry no content: only the ranges mean something.
 *
 * | file      | byte                | lock                                                |
 * |-----------|---------------------|-----------------------------------------------------|
 * | database  | 0x40000000          | PENDING: no new readers                             |
 * | database  | 0x40000001          | RESERVED: one writer prepares a change              |
 * | database  | 0x40000002, 510 long| SHARED: readers; exclusive while the file is written|
 * | -shm      | 120                 | WRITE: the one WAL writer                           |
 * | -shm      | 121                 | CKPT: the checkpointer                              |
 * | -shm      | 122                 | RECOVER: rebuilds the wal-index                     |
 * | -shm      | 123-127             | READ0-READ4: readers, by read mark                  |
 * | -shm      | 128                 | DMS ("dead man's switch"): anybody has it open      |
 */
export const PENDING_BYTE: number = 0x40000000;
export const RESERVED_BYTE: number = PENDING_BYTE + 1;
export const SHARED_FIRST: number = PENDING_BYTE + 2;
export const SHARED_SIZE: number = 510;
export const SHARED_LAST: number = SHARED_FIRST + SHARED_SIZE - 1;

export const WAL_WRITE_LOCK: number = 120;
export const WAL_CKPT_LOCK: number = 121;
export const WAL_RECOVER_LOCK: number = 122;
export const WAL_READ0_LOCK: number = 123;
export const WAL_READ1_LOCK: number = 124;
export const WAL_READ2_LOCK: number = 125;
export const WAL_READ3_LOCK: number = 126;
export const WAL_READ4_LOCK: number = 127;
export const WAL_DMS_LOCK: number = 128;

/**
 * The page that holds the lock bytes. SQLite never stores content in it, so it is in no transaction
 * and reads as zeros.
 */
export function lockPgno(pageSize: number): number {
  return Math.floor(PENDING_BYTE / pageSize) + 1;
}
