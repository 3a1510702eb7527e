import { formatChecksum, formatPosition } from "../lib/position.ts";
import { remedyFor } from "../database/remedy.ts";
import { DatabaseChecksum } from "../ltx/database-checksum.ts";
import { Crc64, halvesToBigint, pageChecksum } from "../ltx/crc64.ts";
import type { Database } from "../database/database.ts";
import type { VerifyResult } from "../database/engine.ts";
import type { Job, Wait } from "../database/host.ts";
import type { Snapshot } from "../database/snapshot.ts";

/** Whoever asked is told in full; from now on nobody is served what is known to be wrong. */
export function condemnMismatch(
  db: Database,
  result: Extract<VerifyResult, { kind: "mismatch" }>,
): void {
  db.condemn(
    `the pages of ${db.files.pathOf("database")} have checksum ` +
      `${formatChecksum(result.computed)}, its position is ${formatPosition(result.position)}; ` +
      remedyFor(db.name),
  );
}

/** Reads all of a snapshot, piece by piece, and compares its checksum with its position. */
export function* verifySnapshot(snapshot: Snapshot, soon: Wait): Job<VerifyResult> {
  const sum = new DatabaseChecksum();
  const crc = new Crc64();
  try {
    for (let pages = snapshot.next(); pages !== undefined; pages = snapshot.next()) {
      for (const [i, pgno] of pages.pgnos.entries()) {
        pageChecksum(crc, pgno, pages.data, i * snapshot.pageSize, snapshot.pageSize);
        sum.toggle(crc.hi, crc.lo);
      }
      yield soon;
    }
  } finally {
    snapshot.close();
  }
  const checksum = halvesToBigint(snapshot.checksumHi, snapshot.checksumLo);
  const position = { txid: snapshot.txid, checksum };
  // A database that was never written stands at 0/0, without the flag of a real checksum.
  const computed = snapshot.txid === 0 ? 0n : sum.toBigint();
  return computed === checksum
    ? { kind: "ok", position }
    : { kind: "mismatch", position, computed };
}
