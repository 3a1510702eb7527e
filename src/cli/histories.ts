import * as fs from "node:fs";
import * as path from "node:path";
import type { OpenFile } from "../database/files.ts";
import { nodeFiles } from "../database/files.ts";
import {
  decodeRecordHeader,
  parseSegmentName,
  RECORD_HEADER_SIZE,
  RECORD_KIND,
} from "../database/log/record.ts";
import { isCutShort } from "../database/log/recover-log.ts";
import { LitefsError } from "../lib/errors.ts";
import { halvesToBigint } from "../ltx/crc64.ts";
import { formatLtxFilename } from "../ltx/filename.ts";
import { decodeHeader, LTX_HEADER_SIZE } from "../ltx/header.ts";
import type { LtxHeader } from "../ltx/header.ts";
import type { Position } from "../lib/position.ts";
import { databasesIn } from "./data-directory.ts";

const COPY_BYTES = 1024 * 1024;

/** A log that a snapshot of the primary has replaced, in `dbs/<name>/diverged/<history>`. */
export interface History {
  readonly database: string;
  /** `<milliseconds since 1970>-<TXID>`, the name of its directory. */
  readonly name: string;
  readonly replacedAtMs: number;
  /** Where the database stood; undefined for an empty or unreadable log. */
  readonly end: Position | undefined;
  readonly transactions: readonly HistoryTransaction[];
}

export interface HistoryTransaction {
  readonly header: LtxHeader;
  readonly segment: string;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** The histories of all databases, or of one; the oldest first. */
export function listHistories(dataDirectory: string, database?: string): History[] {
  const databases = databasesIn(dataDirectory, "diverged");
  return nodeFiles
    .list(databases)
    .filter((name) => database === undefined || name === database)
    .sort()
    .flatMap((name) => {
      const directory = path.join(databases, name, "diverged");
      return nodeFiles
        .list(directory)
        .sort()
        .map((history) => readHistory(name, history, path.join(directory, history)));
    });
}

function readHistory(database: string, name: string, directory: string): History {
  const transactions: HistoryTransaction[] = [];
  let end: Position | undefined;
  // A damaged database is kept as a whole, with its log below.
  const log = fs.existsSync(path.join(directory, "log")) ? path.join(directory, "log") : directory;
  for (const segment of nodeFiles.list(log).sort()) {
    if (parseSegmentName(segment) === undefined) continue;
    const file = nodeFiles.open(path.join(log, segment), { readOnly: true });
    if (file === undefined) continue;
    try {
      end = readSegment(file, path.join(log, segment), transactions) ?? end;
    } finally {
      file.close();
    }
  }
  return { database, name, replacedAtMs: Number(name.split("-")[0]), end, transactions };
}

/** Adds the transactions of a segment; stops where it is torn. Returns where it ends. */
function readSegment(
  file: OpenFile,
  segment: string,
  transactions: HistoryTransaction[],
): Position | undefined {
  const bytes = new Uint8Array(RECORD_HEADER_SIZE + LTX_HEADER_SIZE);
  const sizeBytes = file.size();
  let end: Position | undefined;
  for (let offset = 0; offset < sizeBytes;) {
    const count = file.readAt(bytes, 0, bytes.length, offset);
    const record = decodeRecordHeader(bytes.subarray(0, count), 0);
    if (record === undefined) break;
    const offsetBytes = offset + RECORD_HEADER_SIZE;
    const lengthBytes = record.payloadLength;
    const endOffset = offsetBytes + lengthBytes;
    if (isCutShort(file, offset, endOffset, sizeBytes)) break;
    if (record.kind === RECORD_KIND.transaction) {
      const header = decodeHeader(bytes, RECORD_HEADER_SIZE);
      transactions.push({ header, segment, offsetBytes, lengthBytes });
    }
    end = { txid: record.txid, checksum: halvesToBigint(record.checksumHi, record.checksumLo) };
    offset = endOffset;
  }
  return end;
}

/** Writes each transaction as an LTX file of its own. Refuses to write over anything. */
export function exportHistory(history: History, target: string): void {
  fs.mkdirSync(target, { recursive: true });
  for (const { header, segment, offsetBytes, lengthBytes } of history.transactions) {
    const file = path.join(target, formatLtxFilename(header.minTxid, header.maxTxid));
    copyRange(segment, offsetBytes, lengthBytes, file);
  }
}

function copyRange(source: string, offsetBytes: number, lengthBytes: number, file: string): void {
  const from = fs.openSync(source, "r");
  try {
    const to = fs.openSync(file, "wx");
    try {
      const buffer = Buffer.alloc(Math.min(COPY_BYTES, lengthBytes));
      for (let done = 0; done < lengthBytes;) {
        const wanted = Math.min(buffer.length, lengthBytes - done);
        const count = fs.readSync(from, buffer, 0, wanted, offsetBytes + done);
        if (count === 0) throw new LitefsError("diverged", `${source} has become shorter`);
        fs.writeSync(to, buffer, 0, count);
        done += count;
      }
      fs.fsyncSync(to);
    } finally {
      fs.closeSync(to);
    }
  } finally {
    fs.closeSync(from);
  }
}
