import { countBytes, countTransactions } from "../database/log/recover-log.ts";
import type { ShelvedDatabase } from "../database/shelved-database.ts";
import { newCounters } from "../database/write-counters.ts";
import { halvesToBigint } from "../ltx/crc64.ts";
import type { DatabaseEntry } from "./entry.ts";
import type { DatabaseUpdate } from "./messages.ts";

/** What the main thread is told of a database. */
export function updateOf({ db }: DatabaseEntry): DatabaseUpdate {
  const { end, state } = db.log;
  return {
    name: db.name,
    status: db.status,
    reason: db.reason,
    isDiskFailure: db.status === "quarantined" && db.quarantineCause === "disk",
    position: db.position,
    pageSize: db.store.pageSize,
    pageCount: db.store.pageCount,
    timestampMs: state.timestampMs,
    counters: {
      ...db.counters,
      ltxCount: db.log.transactionCount,
      ltxBytes: db.log.sizeBytes,
    },
    logSegment: end.segment,
    logOffsetBytes: end.offsetBytes,
  };
}

/** The same of one that is on the shelf. */
export function updateOfShelved({ name, log }: ShelvedDatabase): DatabaseUpdate {
  const { txid, checksumHi, checksumLo, segments, endOffset, state } = log;
  return {
    name,
    status: "ok",
    reason: "",
    isDiskFailure: false,
    position: { txid, checksum: halvesToBigint(checksumHi, checksumLo) },
    pageSize: state.pageSize,
    pageCount: state.pageCount,
    timestampMs: state.timestampMs,
    counters: {
      ...newCounters(),
      ltxCount: countTransactions(segments, txid),
      ltxBytes: countBytes(segments, endOffset),
    },
    logSegment: segments.at(-1)?.name ?? "",
    logOffsetBytes: endOffset,
  };
}
