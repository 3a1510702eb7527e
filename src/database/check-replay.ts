import { FormatError } from "../lib/errors.ts";
import { halvesToBigint } from "../ltx/crc64.ts";
import { decodeHeader, isSnapshot, LTX_HEADER_SIZE } from "../ltx/header.ts";
import type { LtxHeader } from "../ltx/header.ts";
import type { Database } from "./database.ts";
import type { OpenFile } from "./files.ts";
import {
  decodeRecordHeader,
  decodeStatePayload,
  RECORD_HEADER_SIZE,
  RECORD_KIND,
} from "./log/record.ts";
import type { RecordHeader } from "./log/record.ts";
import { remedyFor } from "./remedy.ts";
import { openSnapshotOf } from "./snapshot-file.ts";

/**
 * Before recovery changes anything: do the transactions after `from` lead without a gap to where
 * the log stands, and can the database file be what it was at `from`? A segment that somebody has
 * removed, or a file that somebody has cut, would otherwise end as a wrong database.
 */
export function checkReplay(db: Database, from: number, fileSizeBytes: number): void {
  const replay = new Replay(db, from);
  for (const segment of db.log.segmentPathsAfter(from)) replay.read(segment);
  replay.end(fileSizeBytes);
}

class Replay {
  readonly #db: Database;
  readonly #from: number;
  #txid = -1;
  #checksum = 0n;
  #pageCount = 0;
  /** The fewest pages that the file may have: no transaction to come writes those before. */
  #leastPages = Infinity;

  constructor(db: Database, from: number) {
    this.#db = db;
    this.#from = from;
  }

  read(name: string): void {
    const segment = this.#db.files.files.open(name, { readOnly: true });
    if (segment === undefined) throw this.#damaged(name, 0, "it is gone");
    try {
      this.#readRecords(segment, name);
    } finally {
      segment.close();
    }
  }

  #readRecords(segment: OpenFile, name: string): void {
    const bytes = new Uint8Array(RECORD_HEADER_SIZE + LTX_HEADER_SIZE);
    const sizeBytes = this.#db.log.recordBytes(name, segment);
    for (let offset = 0; offset < sizeBytes;) {
      const count = segment.readAt(bytes, 0, bytes.length, offset);
      const record = count < RECORD_HEADER_SIZE ? undefined : decodeRecordHeader(bytes, 0);
      if (record === undefined) throw this.#damaged(name, offset, "the record is unreadable");
      const problem = this.#advance(bytes, record);
      if (problem !== undefined) throw this.#damaged(name, offset, problem);
      this.#txid = record.txid;
      this.#checksum = halvesToBigint(record.checksumHi, record.checksumLo);
      if (this.#txid >= this.#from && record.kind !== RECORD_KIND.base) this.#notePages();
      offset += RECORD_HEADER_SIZE + record.payloadLength;
    }
  }

  #notePages(): void {
    this.#leastPages = Math.min(this.#leastPages, this.#pageCount);
  }

  /** Takes the next record, or says why it is not the next. */
  #advance(bytes: Uint8Array, record: RecordHeader): string | undefined {
    const isFirst = this.#txid < 0;
    const checksum = halvesToBigint(record.checksumHi, record.checksumLo);
    if (record.kind === RECORD_KIND.transaction) {
      const header = decodeHeader(bytes, RECORD_HEADER_SIZE);
      const problem = this.#problemOf(header);
      this.#pageCount = header.commit;
      return problem;
    }
    if (record.kind === RECORD_KIND.base) {
      this.#pageCount = decodeStatePayload(bytes, RECORD_HEADER_SIZE).pageCount;
      // The pages may be in a snapshot file, of which the database file has any part or none.
      const { files } = this.#db;
      const snapshot = openSnapshotOf(files, record);
      snapshot?.close();
      this.#leastPages = snapshot === undefined ? this.#pageCount : 0;
      return undefined;
    }
    if (isFirst) {
      if (record.txid > this.#from) {
        return `it begins at transaction ${record.txid + 1}, and those from ${this.#from + 1} on are needed`;
      }
      this.#pageCount = decodeStatePayload(bytes, RECORD_HEADER_SIZE).pageCount;
      return undefined;
    }
    if (record.txid === this.#txid && checksum === this.#checksum) return undefined;
    return `it continues transaction ${record.txid}, and ${this.#txid} is the one before`;
  }

  #problemOf(header: LtxHeader): string | undefined {
    if (header.minTxid !== this.#txid + 1) {
      return `transaction ${header.minTxid} follows ${this.#txid}`;
    }
    if (isSnapshot(header) || header.preApplyChecksum === this.#checksum) return undefined;
    return `transaction ${header.minTxid} follows another history`;
  }

  end(fileSizeBytes: number): void {
    const { log, files, name } = this.#db;
    if (this.#txid !== log.txid) {
      throw this.#damaged(files.pathOf("log"), 0, `it does not lead to transaction ${log.txid}`);
    }
    const leastBytes = this.#leastPages * log.state.pageSize;
    if (this.#from === 0 || fileSizeBytes >= leastBytes) return;
    throw new FormatError(
      "DATABASE_DAMAGED",
      `database file ${files.pathOf("database")} ends at ${fileSizeBytes}, and had at least ` +
        `${leastBytes} bytes; ${remedyFor(name)}`,
    );
  }

  #damaged(segment: string, offset: number, what: string): FormatError {
    return new FormatError(
      "LOG_DAMAGED",
      `transaction log ${segment} is damaged at offset ${offset}: ${what}; ` +
        remedyFor(this.#db.name),
    );
  }
}
