import { errorText, FormatError } from "../lib/errors.ts";
import { decodeHeader, isSnapshot, LTX_HEADER_SIZE } from "../ltx/header.ts";
import type { ForwardedBy } from "./apply.ts";
import { applyReceived, forwardedBy, mismatch } from "./apply.ts";
import type { Database } from "./database.ts";
import type { ApplyResult } from "./engine.ts";
import type { DaemonLocks, Job } from "./host.ts";
import type { LocalWal } from "./local-wal.ts";
import { openReceived } from "./received-transaction.ts";
import type { ReceivedTransaction } from "./received-transaction.ts";
import { applySnapshot } from "./replace.ts";

/**
 * Applies the LTX in a file and removes the file: a snapshot replaces the database, a transaction
 * too large for memory continues it.
 */
export function* applyLtxFile(
  db: Database,
  local: LocalWal,
  locks: DaemonLocks,
  path: string,
  node?: ForwardedBy,
): Job<ApplyResult> {
  const { files } = db.files;
  const file = files.open(path, { readOnly: true });
  const head = new Uint8Array(LTX_HEADER_SIZE);
  if (file === undefined || file.readAt(head, 0, head.length, 0) < head.length) {
    file?.close();
    return mismatch(db, "a received LTX file is gone or was cut off");
  }
  // A forwarded one is the first transaction of a new database, and no node's word on an old one.
  if (node === undefined && isSnapshot(decodeHeader(head, 0))) {
    file.close();
    return yield* applySnapshot(db, local, locks, path);
  }
  try {
    let transaction: ReceivedTransaction;
    try {
      transaction = openReceived(file);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      return mismatch(db, `a received transaction is damaged: ${errorText(error)}`);
    }
    return yield* applyReceived(db, local, locks, [forwardedBy(transaction, node)]);
  } finally {
    file.close();
    files.remove(path);
  }
}
