import * as path from "node:path";
import type { LargeLtx, LogRead } from "../engine.ts";
import type { OpenFile } from "../files.ts";
import { LitefsError } from "../../lib/errors.ts";
import type { Position } from "../../lib/position.ts";
import { halvesToBigint } from "../../ltx/crc64.ts";
import { decodeHeader, LTX_HEADER_SIZE, LTX_TRAILER_SIZE } from "../../ltx/header.ts";
import { formatLtxFilename } from "../../ltx/filename.ts";
import { decodeTrailer } from "../../ltx/trailer.ts";
import { decodeRecordHeader, parseSegmentName, RECORD_HEADER_SIZE, RECORD_KIND } from "./record.ts";
import type { RecordHeader } from "./record.ts";

export type ReadableFile = Pick<OpenFile, "readAt" | "size" | "close">;

export interface LogFiles {
  open(path: string, options: { readonly readOnly: true }): ReadableFile | undefined;
  list(directory: string): string[];
}

/** Where the last complete record ends, as the writer has published it. */
export interface LogEnd {
  readonly segment: string;
  readonly offsetBytes: number;
  readonly position: Position;
}

/** Where a position was found, so that a reader who goes on from there need not search. */
interface Cursor {
  readonly segment: string;
  readonly offsetBytes: number;
}

/** A transaction beyond this is handed over in pieces. */
const LARGE_BYTES = 4 * 1024 * 1024;
/** Places where readers of a database have been, and where others who follow them need not search. */
const MAX_CURSORS = 64;

/**
 * Reads the log of one database from outside the thread that writes it. Records below the
 * published end never change, so nothing needs to be locked; a segment that retention has removed
 * is simply not there.
 */
export class LogReader {
  readonly #files: LogFiles;
  readonly #directory: string;
  readonly #cursors = new Map<string, Cursor>();

  constructor(files: LogFiles, databaseDirectory: string) {
    this.#files = files;
    this.#directory = databaseDirectory;
  }

  /** Transactions after a position, at least one if there is one, about `maxBytes` of them. */
  read(after: Position, end: LogEnd, maxBytes: number): LogRead {
    if (after.txid === end.position.txid) {
      return after.checksum === end.position.checksum
        ? { kind: "transactions", ltx: [], end: after }
        : { kind: "unavailable" };
    }
    if (after.txid > end.position.txid) return { kind: "unavailable" };
    const known = this.#cursors.get(keyOf(after));
    if (known !== undefined) {
      const read = this.#readFrom(known, after, end, maxBytes);
      if (read.kind === "transactions" && continues(read.ltx[0], after)) return read;
      // The log was exchanged since: the position may be in another place, or in none.
      this.#cursors.clear();
    }
    const cursor = this.#find(after, end);
    if (cursor === undefined) return this.#readLegacy(after);
    this.#noteCursor(after, cursor);
    return this.#readFrom(cursor, after, end, maxBytes);
  }

  #segmentPath(name: string): string {
    return path.join(this.#directory, "log", name);
  }

  #segmentNames(): string[] {
    return this.#files
      .list(path.join(this.#directory, "log"))
      .filter((name) => parseSegmentName(name) !== undefined)
      .sort();
  }

  /** Finds the record behind which a position stands. */
  #find(after: Position, end: LogEnd): Cursor | undefined {
    const names = this.#segmentNames();
    // The segment that begins at or before the next transaction.
    const name = names.findLast((other) => (parseSegmentName(other) ?? 0) <= after.txid + 1);
    if (name === undefined) return undefined;
    const file = this.#files.open(this.#segmentPath(name), { readOnly: true });
    if (file === undefined) return undefined;
    try {
      const limit = name === end.segment ? end.offsetBytes : file.size();
      const bytes = new Uint8Array(RECORD_HEADER_SIZE);
      for (let offset = 0; offset < limit;) {
        if (file.readAt(bytes, 0, bytes.length, offset) < bytes.length) return undefined;
        const record = decodeRecordHeader(bytes, 0);
        if (record === undefined) return undefined;
        offset += RECORD_HEADER_SIZE + record.payloadLength;
        if (record.txid > after.txid) return undefined;
        if (record.txid < after.txid) continue;
        const checksum = halvesToBigint(record.checksumHi, record.checksumLo);
        return checksum === after.checksum ? { segment: name, offsetBytes: offset } : undefined;
      }
      return undefined;
    } finally {
      file.close();
    }
  }

  #readFrom(cursor: Cursor, after: Position, end: LogEnd, maxBytes: number): LogRead {
    const ltx: Uint8Array[] = [];
    let position = after;
    let at = cursor;
    let bytes = 0;
    while (bytes < maxBytes && position.txid < end.position.txid) {
      const batch = this.#readBatch(at, end, maxBytes - bytes);
      if (batch === undefined) {
        const next = this.#nextSegment(at.segment);
        if (next === undefined) break;
        at = { segment: next, offsetBytes: 0 };
        continue;
      }
      if (batch.isBase && position.txid !== batch.position?.txid) break;
      if (batch.large !== undefined && batch.position !== undefined) {
        if (ltx.length > 0) break;
        this.#noteCursor(batch.position, { ...at, offsetBytes: batch.offsetBytes });
        return { kind: "large", ltx: batch.large, end: batch.position };
      }
      ltx.push(...batch.ltx);
      bytes += batch.bytes;
      at = { segment: at.segment, offsetBytes: batch.offsetBytes };
      if (batch.position !== undefined) position = batch.position;
    }
    if (ltx.length === 0) return { kind: "unavailable" };
    this.#noteCursor(position, at);
    return { kind: "transactions", ltx, end: position };
  }

  /**
   * The cursor of where the reader came from stays: another one will come from there too, and to search
   * for it is to read the heads of all records in front of it.
   */
  #noteCursor(to: Position, at: Cursor): void {
    const key = keyOf(to);
    this.#cursors.delete(key);
    this.#cursors.set(key, at);
    if (this.#cursors.size <= MAX_CURSORS) return;
    const [oldest] = this.#cursors.keys();
    if (oldest !== undefined) this.#cursors.delete(oldest);
  }

  #nextSegment(name: string): string | undefined {
    return this.#segmentNames().find((other) => other > name);
  }

  /** Complete records from an offset on; undefined at the end of the segment. */
  #readBatch(at: Cursor, end: LogEnd, maxBytes: number): Batch | undefined {
    const file = this.#files.open(this.#segmentPath(at.segment), { readOnly: true });
    if (file === undefined) return undefined;
    try {
      const limit = at.segment === end.segment ? end.offsetBytes : file.size();
      if (at.offsetBytes >= limit) return undefined;
      const wanted = Math.min(limit - at.offsetBytes, Math.max(65536, maxBytes));
      let data = new Uint8Array(wanted);
      if (file.readAt(data, 0, wanted, at.offsetBytes) < wanted) return undefined;
      const first = decodeRecordHeader(data, 0);
      if (first === undefined) return undefined;
      const needed = RECORD_HEADER_SIZE + first.payloadLength;
      if (needed > limit - at.offsetBytes) return undefined;
      if (needed > LARGE_BYTES && first.kind === RECORD_KIND.transaction) {
        return largeBatch(this.#files, this.#segmentPath(at.segment), at.offsetBytes, first);
      }
      if (needed > wanted) data = readMore(file, at.offsetBytes, needed);
      return parseBatch(data, at.offsetBytes);
    } finally {
      file.close();
    }
  }

  /** LTX files that LiteFS left: one transaction each. */
  #readLegacy(after: Position): LogRead {
    const next = after.txid + 1;
    const name = path.join(this.#directory, "ltx", formatLtxFilename(next, next));
    const file = this.#files.open(name, { readOnly: true });
    if (file === undefined) return { kind: "unavailable" };
    try {
      const bytes = new Uint8Array(file.size());
      if (file.readAt(bytes, 0, bytes.length, 0) < LTX_HEADER_SIZE + LTX_TRAILER_SIZE) {
        return { kind: "unavailable" };
      }
      const header = decodeHeader(bytes, 0);
      if (header.preApplyChecksum !== after.checksum) return { kind: "unavailable" };
      const trailer = decodeTrailer(bytes, bytes.length - LTX_TRAILER_SIZE);
      const position = { txid: header.maxTxid, checksum: trailer.postApplyChecksum };
      return { kind: "transactions", ltx: [bytes], end: position };
    } finally {
      file.close();
    }
  }
}

interface Batch {
  /** A single transaction that does not come as a whole; `ltx` is empty then. */
  readonly large?: LargeLtx;
  readonly ltx: Uint8Array[];
  readonly bytes: number;
  /** Offset after the last record taken. */
  readonly offsetBytes: number;
  readonly position: Position | undefined;
  /** The batch is a base record alone: the history before it does not lead to it. */
  readonly isBase: boolean;
}

function largeBatch(
  files: LogFiles,
  segmentPath: string,
  offsetBytes: number,
  record: RecordHeader,
): Batch {
  const { payloadLength: lengthBytes, txid, checksumHi, checksumLo } = record;
  const start = offsetBytes + RECORD_HEADER_SIZE;
  const read = (from: number, maxBytes: number): Uint8Array => {
    const file = files.open(segmentPath, { readOnly: true });
    if (file === undefined) {
      throw new LitefsError(
        "LOG_REAPED",
        `${segmentPath} was removed by retention while it was read`,
      );
    }
    try {
      return readMore(file, start + from, Math.min(maxBytes, lengthBytes - from));
    } finally {
      file.close();
    }
  };
  return {
    large: { lengthBytes, read },
    ltx: [],
    bytes: lengthBytes,
    offsetBytes: start + lengthBytes,
    position: { txid, checksum: halvesToBigint(checksumHi, checksumLo) },
    isBase: false,
  };
}

function readMore(
  file: ReadableFile,
  offset: number,
  lengthBytes: number,
): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(lengthBytes);
  file.readAt(data, 0, lengthBytes, offset);
  return data;
}

function parseBatch(data: Uint8Array, offsetBytes: number): Batch {
  const ltx: Uint8Array[] = [];
  let at = 0;
  let bytes = 0;
  let position: Position | undefined;
  let isBase = false;
  for (;;) {
    const record = decodeRecordHeader(data, at);
    if (record === undefined) break;
    const next = at + RECORD_HEADER_SIZE + record.payloadLength;
    if (next > data.length) break;
    if (record.kind === RECORD_KIND.base) {
      if (at > 0) break;
      isBase = true;
    }
    if (record.kind === RECORD_KIND.transaction) {
      ltx.push(data.subarray(at + RECORD_HEADER_SIZE, next));
      bytes += record.payloadLength;
    }
    position = {
      txid: record.txid,
      checksum: halvesToBigint(record.checksumHi, record.checksumLo),
    };
    at = next;
    if (isBase) break;
  }
  return { ltx, bytes, offsetBytes: offsetBytes + at, position, isBase };
}

function continues(ltx: Uint8Array | undefined, after: Position): boolean {
  if (ltx === undefined) return false;
  const header = decodeHeader(ltx, 0);
  return header.minTxid === after.txid + 1 && header.preApplyChecksum === after.checksum;
}

function keyOf(position: Position): string {
  return `${position.txid}/${position.checksum}`;
}
