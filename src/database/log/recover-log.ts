import * as path from "node:path";
import { FormatError } from "../../lib/errors.ts";
import { halvesToBigint } from "../../ltx/crc64.ts";
import { LtxDecoder } from "../../ltx/decoder.ts";
import { isSnapshot } from "../../ltx/header.ts";
import type { LtxHeader } from "../../ltx/header.ts";
import type { Files, OpenFile } from "../files.ts";
import { remedyFor } from "../remedy.ts";
import { lastBoot } from "./boot-mark.ts";
import type { Boot } from "./boot-mark.ts";
import {
  decodeRecordHeader,
  decodeStatePayload,
  isUnfinishedCopy,
  parseSegmentName,
  RECORD_HEADER_SIZE,
  RECORD_KIND,
  STATE_RECORD_SIZE,
} from "./record.ts";
import { ReadAhead } from "./read-ahead.ts";
import type { Readable } from "./read-ahead.ts";
import type { FileMark, LogState, RecordHeader } from "./record.ts";

export interface Segment {
  readonly name: string;
  /** TXID of the first transaction in it. */
  readonly firstTxid: number;
  sizeBytes: number;
  /** Time of the last transaction before the segment: older than all in it. */
  readonly startTimestampMs: number;
}

export interface RecoveredLog extends SettledLog {
  readonly segments: Segment[];
  readonly mark: FileMark | undefined;
  /** It ends by saying that the database file has all of it, so its transactions are durable. */
  readonly isCaughtUp: boolean;
  /** When it was last appended to. */
  readonly boot: Boot;
  /** Bytes with records in them that a power cut made unreachable; kept aside, see `keepTail`. */
  readonly tornBytes: number;
}

/** What there is to know of a log that owes nothing; its last record is a state. */
export interface SettledLog extends LogPosition {
  readonly segments: readonly Segment[];
  readonly endOffset: number;
  readonly state: LogState;
}

/** Transactions in the segments of a log that ends at a TXID. */
export function countTransactions(segments: readonly Segment[], txid: number): number {
  const [first] = segments;
  return first === undefined ? 0 : txid - first.firstTxid + 1;
}

/** Bytes of a log whose last segment ends at an offset. */
export function countBytes(segments: readonly Segment[], endOffset: number): number {
  return segments.slice(0, -1).reduce((sum, segment) => sum + segment.sizeBytes, endOffset);
}

const EMPTY_STATE: LogState = { pageSize: 0, pageCount: 0, timestampMs: 0, durableTxid: 0 };
const READ_BYTES = 1024 * 1024;
/** In which the kernel copies what is written: its smallest page. */
const PAGE_BYTES = 4096;
/** With which a header and an LTX file end. */
const CHECKSUM_BYTES = 8;
/** What is written before the name of a segment counts: a head, and a mark at most. */
const SEGMENT_START_BYTES = 2 * STATE_RECORD_SIZE;

export const NO_LOG: RecoveredLog = {
  segments: [],
  endOffset: 0,
  txid: 0,
  checksumHi: 0,
  checksumLo: 0,
  state: EMPTY_STATE,
  mark: undefined,
  isCaughtUp: true,
  boot: "unknown",
  tornBytes: 0,
};

/**
 * Finds where the log ends. Only the last segment is read, because a segment is synced before the
 * next one begins. A record that is incomplete at the very end is what a crash leaves of an append
 * nobody was told about; it is cut off. Damage with more records behind it can be that only after
 * a power cut, which may keep any part of what was not synced; they are kept aside. While the
 * machine stayed up it is another matter and is reported, never cut.
 */
export function openSegments(files: Files, directory: string): RecoveredLog {
  const segments = listSegments(files, directory);
  const last = segments.at(-1);
  if (last === undefined) return NO_LOG;
  const file = files.open(path.join(directory, last.name));
  if (file === undefined) throw damaged(directory, last.name, "it vanished");
  try {
    return recoverTail(files, file, directory, last, segments);
  } finally {
    file.close();
  }
}

function listSegments(files: Files, directory: string): Segment[] {
  const segments: Segment[] = [];
  for (const name of files.list(directory).sort()) {
    const file = path.join(directory, name);
    const firstTxid = parseSegmentName(name);
    if (firstTxid === undefined) {
      // The segment itself is still there, and this copy of it was never finished.
      if (isUnfinishedCopy(name)) files.remove(file);
      continue;
    }
    const { sizeBytes, head } = readHead(files, file);
    // A segment whose head never became durable holds nothing; it was being started at a crash.
    if (head === undefined) {
      // A kill leaves nothing of it, or what came before its end; only a power cut leaves it torn.
      const isTorn = lastBoot(files, directory) !== "this" || sizeBytes < STATE_RECORD_SIZE;
      if (sizeBytes > SEGMENT_START_BYTES || !isTorn) {
        throw damaged(directory, name, "its first record is unreadable");
      }
      files.remove(file);
      continue;
    }
    segments.push({ name, firstTxid, sizeBytes, startTimestampMs: head.timestampMs });
  }
  return segments;
}

function readHead(
  files: Files,
  name: string,
): { readonly sizeBytes: number; readonly head: LogState | undefined } {
  const file = files.open(name, { readOnly: true });
  if (file === undefined) return { sizeBytes: 0, head: undefined };
  try {
    return { sizeBytes: file.size(), head: decodeHead(file) };
  } finally {
    file.close();
  }
}

function decodeHead(file: OpenFile): LogState | undefined {
  const bytes = new Uint8Array(STATE_RECORD_SIZE);
  if (file.readAt(bytes, 0, bytes.length, 0) < bytes.length) return undefined;
  const header = decodeRecordHeader(bytes, 0);
  if (header?.kind !== RECORD_KIND.head && header?.kind !== RECORD_KIND.base) return undefined;
  return decodeStatePayload(bytes, RECORD_HEADER_SIZE);
}

function recoverTail(
  files: Files,
  file: OpenFile,
  directory: string,
  segment: Segment,
  segments: Segment[],
): RecoveredLog {
  const sizeBytes = file.size();
  const scan = scanRecords(file, sizeBytes);
  const { endOffset } = scan;
  const boot = lastBoot(files, directory);
  let tornBytes = 0;
  if (endOffset < sizeBytes) {
    if (boot === "this" && isDamagedEnd(file, endOffset, sizeBytes)) {
      throw damaged(directory, segment.name, `the record at offset ${endOffset} is unreadable`);
    }
    if (hasRecordBehind(file, endOffset, sizeBytes)) {
      if (boot === "this") {
        throw damaged(directory, segment.name, `the record at offset ${endOffset} is unreadable`);
      }
      tornBytes = sizeBytes - endOffset;
      keepTail(files, file, endOffset, path.join(directory, `${segment.name}.torn`));
    }
    file.truncate(endOffset);
    file.sync();
  }
  return { segments, ...scan, boot, tornBytes };
}

/**
 * While the machine stayed up, every write is there as far as it came: one that a kill has cut short
 * lacks its end, or has zeros there if space was laid for it, or, if it was to be a long one, has
 * zeros where its header goes last, or where the end of that header does: it may lie across two pages.
 * Anything else was once complete, and somebody may have been told so.
 */
function isDamagedEnd(file: OpenFile, offset: number, sizeBytes: number): boolean {
  const bytes = new Uint8Array(RECORD_HEADER_SIZE);
  if (file.readAt(bytes, 0, bytes.length, offset) < bytes.length) return false;
  const header = decodeRecordHeader(bytes, 0);
  if (header === undefined) return !endsInZeros(file, offset, offset + RECORD_HEADER_SIZE);
  const endOffset = offset + RECORD_HEADER_SIZE + header.payloadLength;
  if (isCutShort(file, offset, endOffset, sizeBytes)) return false;
  // A complete record that does not continue the others is what an earlier append has left.
  return readRecord(file, offset, sizeBytes) === undefined;
}

/**
 * Whether a record whose header is there was cut short by a kill: the file ends before it does or, in
 * space that was laid for it, it ends in zeros and there is nothing else behind it.
 */
export function isCutShort(
  file: OpenFile,
  offset: number,
  endOffset: number,
  sizeBytes: number,
): boolean {
  if (endOffset > sizeBytes) return true;
  if (endOffset === sizeBytes || !endsInZeros(file, offset, endOffset)) return false;
  const chunk = new Uint8Array(64 * 1024);
  for (let at = endOffset; at < sizeBytes; at += chunk.length) {
    const count = file.readAt(chunk, 0, chunk.length, at);
    if (chunk.subarray(0, count).some((byte) => byte !== 0)) return false;
  }
  return true;
}

/**
 * The kernel copies a write page by page, and looks in between whether the process is to die: what
 * was not copied is still zero, and so is the checksum at the end, or the part of it on the last page.
 */
function endsInZeros(file: OpenFile, offset: number, endOffset: number): boolean {
  const onLastPage = ((endOffset - 1) % PAGE_BYTES) + 1;
  const bytes = new Uint8Array(Math.min(onLastPage, CHECKSUM_BYTES));
  const start = endOffset - bytes.length;
  if (start <= offset || file.readAt(bytes, 0, bytes.length, start) < bytes.length) return false;
  return bytes.every((byte) => byte === 0);
}

/** What a chain of records leads to. */
export interface ScannedRecords extends LogPosition {
  /** Behind the last complete record that continues the one before. */
  readonly endOffset: number;
  readonly state: LogState;
  readonly mark: FileMark | undefined;
  /** It ends by saying that the database file has all of it, so its transactions are durable. */
  readonly isCaughtUp: boolean;
}

/** Reads a segment from its first record on, and verifies everything up to where it ends. */
export function scanRecords(segment: OpenFile, sizeBytes: number): ScannedRecords {
  const file = new ReadAhead(segment, sizeBytes);
  try {
    return scanFrom(file, sizeBytes);
  } finally {
    file.close();
  }
}

function scanFrom(file: Readable, sizeBytes: number): ScannedRecords {
  let endOffset = 0;
  let position: LogPosition = { txid: 0, checksumHi: 0, checksumLo: 0 };
  let state = EMPTY_STATE;
  let mark: FileMark | undefined;
  let isCaughtUp = false;
  for (;;) {
    const record = readRecord(file, endOffset, sizeBytes);
    if (record === undefined) break;
    const { header } = record;
    if (endOffset > 0 && !continues(position, record)) break;
    isCaughtUp = header.kind === RECORD_KIND.durable && record.state?.durableTxid === header.txid;
    if (record.state !== undefined) {
      state = record.state;
      if (header.kind === RECORD_KIND.loose || header.kind === RECORD_KIND.unsynced) {
        mark = header.kind;
      } else if (header.kind !== RECORD_KIND.head) mark = undefined;
    } else if (record.ltx !== undefined) {
      const { pageSize, commit: pageCount, timestampMs } = record.ltx;
      state = { ...state, pageSize, pageCount, timestampMs };
    }
    position = {
      txid: header.txid,
      checksumHi: header.checksumHi,
      checksumLo: header.checksumLo,
    };
    endOffset += RECORD_HEADER_SIZE + header.payloadLength;
  }
  return { endOffset, ...position, state, mark, isCaughtUp };
}

/** Whether a readable record is the next one, not what an earlier append left behind it. */
function continues(position: LogPosition, { header, ltx }: ReadRecord): boolean {
  if (header.kind === RECORD_KIND.base) return true;
  if (ltx === undefined) {
    return (
      header.txid === position.txid &&
      header.checksumHi === position.checksumHi &&
      header.checksumLo === position.checksumLo
    );
  }
  if (ltx.minTxid !== position.txid + 1) return false;
  // A snapshot names no checksum that it continues.
  if (isSnapshot(ltx)) return true;
  return ltx.preApplyChecksum === halvesToBigint(position.checksumHi, position.checksumLo);
}

/** Transactions that nobody knows to be durable, but that somebody may want to look at. */
function keepTail(files: Files, file: OpenFile, offset: number, name: string): void {
  files.remove(name);
  const kept = files.open(name, { create: true });
  if (kept === undefined) throw new Error(`cannot create ${name}`);
  try {
    const chunk = new Uint8Array(READ_BYTES);
    for (let done = 0; ;) {
      const count = file.readAt(chunk, 0, chunk.length, offset + done);
      if (count === 0) break;
      kept.writeAt(chunk, 0, count, done);
      done += count;
    }
    kept.sync();
  } finally {
    kept.close();
  }
}

export interface LogPosition {
  readonly txid: number;
  readonly checksumHi: number;
  readonly checksumLo: number;
}

interface ReadRecord {
  readonly header: RecordHeader;
  readonly state?: LogState;
  readonly ltx?: LtxHeader;
}

/** Undefined when there is no complete and valid record at the offset. */
function readRecord(file: Readable, offset: number, sizeBytes: number): ReadRecord | undefined {
  if (offset + RECORD_HEADER_SIZE > sizeBytes) return undefined;
  const bytes = new Uint8Array(STATE_RECORD_SIZE);
  if (file.readAt(bytes, 0, bytes.length, offset) < RECORD_HEADER_SIZE) return undefined;
  const header = decodeRecordHeader(bytes, 0);
  if (header === undefined) return undefined;
  if (offset + RECORD_HEADER_SIZE + header.payloadLength > sizeBytes) return undefined;
  if (header.kind !== RECORD_KIND.transaction) {
    const state = readState(bytes);
    return state === undefined ? undefined : { header, state };
  }
  const ltx = verifyLtx(file, offset + RECORD_HEADER_SIZE, header.payloadLength);
  return ltx === undefined ? undefined : { header, ltx };
}

/** Of a whole record; undefined where a power cut has left its header and not its payload. */
export function readState(bytes: Uint8Array): LogState | undefined {
  try {
    return decodeStatePayload(bytes, RECORD_HEADER_SIZE);
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

function verifyLtx(file: Readable, offset: number, lengthBytes: number): ReadRecord["ltx"] {
  const decoder = new LtxDecoder({});
  const chunk = new Uint8Array(Math.min(READ_BYTES, lengthBytes));
  try {
    for (let done = 0; done < lengthBytes;) {
      const count = file.readAt(
        chunk,
        0,
        Math.min(chunk.length, lengthBytes - done),
        offset + done,
      );
      if (count === 0) return undefined;
      decoder.push(chunk.subarray(0, count));
      done += count;
    }
    return decoder.end().header;
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** Whether another record begins somewhere after the unreadable one. */
function hasRecordBehind(file: OpenFile, offset: number, sizeBytes: number): boolean {
  const window = new Uint8Array(64 * 1024 + RECORD_HEADER_SIZE);
  for (let at = offset + 1; at + RECORD_HEADER_SIZE <= sizeBytes; at += 64 * 1024) {
    const count = file.readAt(window, 0, window.length, at);
    for (let i = 0; i + RECORD_HEADER_SIZE <= count; i++) {
      if (window[i] !== 0x4c || window[i + 1] !== 0x46) continue;
      const header = decodeRecordHeader(window.subarray(0, count), i);
      if (header !== undefined && at + i + RECORD_HEADER_SIZE + header.payloadLength <= sizeBytes) {
        return true;
      }
    }
  }
  return false;
}

function damaged(directory: string, segment: string, what: string): FormatError {
  return new FormatError(
    "LOG_DAMAGED",
    `transaction log ${path.join(directory, segment)} is damaged: ${what}; ` +
      remedyFor(path.basename(path.dirname(directory))),
  );
}
