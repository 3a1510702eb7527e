import { Crc64 } from "../../ltx/crc64.ts";
import { FormatError } from "../../lib/errors.ts";

/**
 * The log of a database is a sequence of segment files `log/<first TXID>.seg`, each a sequence of
 * records back to back. A record is this header (big-endian) and `payloadLength` bytes:
 *
 * | off | size | field                                                                       |
 * |-----|------|-----------------------------------------------------------------------------|
 * | 0   | 4    | magic "LFR1"                                                                |
 * | 4   | 4    | kind                                                                        |
 * | 8   | 8    | payload length                                                              |
 * | 16  | 8    | TXID of the position after the record                                       |
 * | 24  | 8    | database checksum of that position                                          |
 * | 32  | 8    | CRC-64/ISO of the 32 bytes before                                           |
 *
 * Payload of a transaction: one LTX file, which carries its own checksum. Payload of the others:
 *
 * | off | size | field                                                                       |
 * |-----|------|-----------------------------------------------------------------------------|
 * | 0   | 4    | page size                                                                   |
 * | 4   | 4    | database size in pages at the position                                      |
 * | 8   | 8    | timestamp of the last transaction, ms since the epoch                       |
 * | 16  | 8    | TXID through which the database file itself is complete and durable         |
 * | 24  | 8    | CRC-64/ISO of the 24 bytes before                                           |
 */
export const RECORD_HEADER_SIZE = 40;
export const STATE_PAYLOAD_SIZE = 32;
/** A whole record without an LTX file. */
export const STATE_RECORD_SIZE: number = RECORD_HEADER_SIZE + STATE_PAYLOAD_SIZE;
const MAGIC = 0x4c465231;

export const RECORD_KIND = {
  /** One LTX transaction that continues the position of the record before. */
  transaction: 1,
  /** First record of every segment: where the log stood. */
  head: 2,
  /** The database jumped to this position; what came before does not lead to it. */
  base: 3,
  /** The database file has caught up with the log through `durableTxid`. */
  durable: 4,
  /** Somebody writes the database file outside of any transaction; its state is unknown. */
  loose: 5,
  /** Rollback journals are used that a power cut may tear (`synchronous` NORMAL or OFF). */
  unsynced: 6,
} as const;
export type RecordKind = (typeof RECORD_KIND)[keyof typeof RECORD_KIND];
/** What was last noted about the database file, until a durable or a base record. */
export type FileMark = typeof RECORD_KIND.loose | typeof RECORD_KIND.unsynced;
const KINDS: ReadonlySet<number> = new Set(Object.values(RECORD_KIND));

export interface RecordHeader {
  readonly kind: RecordKind;
  readonly payloadLength: number;
  readonly txid: number;
  /** Halves of the database checksum, as int32. */
  readonly checksumHi: number;
  readonly checksumLo: number;
}

export interface LogState {
  readonly pageSize: number;
  readonly pageCount: number;
  readonly timestampMs: number;
  readonly durableTxid: number;
}

/** Where a log stood, to go back to when what was appended is refused. */
export interface LogMark {
  readonly endOffset: number;
  readonly txid: number;
  readonly checksumHi: number;
  readonly checksumLo: number;
  readonly state: LogState;
}

const crc = new Crc64();

function writeCrc(view: DataView, bytes: Uint8Array, start: number, end: number): void {
  crc.reset();
  crc.updateBytes(bytes, start, end);
  view.setInt32(end, ~crc.hi);
  view.setInt32(end + 4, ~crc.lo);
}

function crcMatches(view: DataView, bytes: Uint8Array, start: number, end: number): boolean {
  crc.reset();
  crc.updateBytes(bytes, start, end);
  return view.getInt32(end) === ~crc.hi && view.getInt32(end + 4) === ~crc.lo;
}

function setU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, Math.floor(value / 2 ** 32));
  view.setUint32(offset + 4, value >>> 0);
}

function getU64(view: DataView, offset: number): number {
  return view.getUint32(offset) * 2 ** 32 + view.getUint32(offset + 4);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Writes a record header at an offset of a buffer whose view is passed along to save making one. */
export function encodeRecordHeader(
  header: RecordHeader,
  out: Uint8Array,
  view: DataView,
  offset: number,
): void {
  view.setUint32(offset, MAGIC);
  view.setUint32(offset + 4, header.kind);
  setU64(view, offset + 8, header.payloadLength);
  setU64(view, offset + 16, header.txid);
  view.setInt32(offset + 24, header.checksumHi);
  view.setInt32(offset + 28, header.checksumLo);
  writeCrc(view, out, offset, offset + 32);
}

/** Undefined when the bytes are not a record header: the end of the log, or damage. */
export function decodeRecordHeader(bytes: Uint8Array, offset: number): RecordHeader | undefined {
  if (bytes.length < offset + RECORD_HEADER_SIZE) return undefined;
  const view = viewOf(bytes);
  if (view.getUint32(offset) !== MAGIC) return undefined;
  if (!crcMatches(view, bytes, offset, offset + 32)) return undefined;
  const kind = view.getUint32(offset + 4);
  const payloadLength = getU64(view, offset + 8);
  const txid = getU64(view, offset + 16);
  if (!KINDS.has(kind)) return undefined;
  if (!Number.isSafeInteger(payloadLength) || !Number.isSafeInteger(txid)) return undefined;
  if (kind !== RECORD_KIND.transaction && payloadLength !== STATE_PAYLOAD_SIZE) return undefined;
  return {
    kind: kind as RecordKind,
    payloadLength,
    txid,
    checksumHi: view.getInt32(offset + 24),
    checksumLo: view.getInt32(offset + 28),
  };
}

/** A complete record without an LTX: header and state. */
export function encodeStateRecord(
  kind: RecordKind,
  position: { txid: number; checksumHi: number; checksumLo: number },
  state: LogState,
): Uint8Array {
  const bytes = new Uint8Array(STATE_RECORD_SIZE);
  const view = viewOf(bytes);
  encodeRecordHeader({ kind, payloadLength: STATE_PAYLOAD_SIZE, ...position }, bytes, view, 0);
  view.setUint32(RECORD_HEADER_SIZE, state.pageSize);
  view.setUint32(RECORD_HEADER_SIZE + 4, state.pageCount);
  setU64(view, RECORD_HEADER_SIZE + 8, state.timestampMs);
  setU64(view, RECORD_HEADER_SIZE + 16, state.durableTxid);
  writeCrc(view, bytes, RECORD_HEADER_SIZE, RECORD_HEADER_SIZE + 24);
  return bytes;
}

export function decodeStatePayload(bytes: Uint8Array, offset: number): LogState {
  const view = viewOf(bytes);
  if (bytes.length < offset + STATE_PAYLOAD_SIZE || !crcMatches(view, bytes, offset, offset + 24)) {
    throw new FormatError("LOG_DAMAGED", "a state record of the transaction log is damaged");
  }
  return {
    pageSize: view.getUint32(offset),
    pageCount: view.getUint32(offset + 4),
    timestampMs: getU64(view, offset + 8),
    durableTxid: getU64(view, offset + 16),
  };
}

/** `<16 hex>.seg`; lexicographic order is numeric order. */
export function segmentName(firstTxid: number): string {
  return `${firstTxid.toString(16).padStart(16, "0")}.seg`;
}

/** The first TXID of a segment by its file name; undefined for other files. */
export function parseSegmentName(name: string): number | undefined {
  const match = /^([0-9a-f]{16})\.seg$/.exec(name);
  if (match === null) return undefined;
  const txid = Number.parseInt(match[1] ?? "", 16);
  return Number.isSafeInteger(txid) ? txid : undefined;
}

/** A segment whose file the disk has failed is copied under this name first. */
export const COPY_SUFFIX = ".new";

/** A copy that a crash or a full disk has left incomplete: the segment itself is still there. */
export function isUnfinishedCopy(name: string): boolean {
  return name.endsWith(`.seg${COPY_SUFFIX}`);
}
