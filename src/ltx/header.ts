import { FormatError } from "../lib/errors.ts";
import { CHECKSUM_FLAG } from "../lib/position.ts";

/*
 * LTX header, big-endian, the same in all versions of the format:
 *   off size field              off size field
 *     0    4 magic "LTX1"        40    8 preApplyChecksum
 *     4    4 flags               48    8 walOffset
 *     8    4 pageSize            56    8 walSize
 *    12    4 commit              64    4 walSalt1
 *    16    8 minTxid             68    4 walSalt2
 *    24    8 maxTxid             72    8 nodeId
 *    32    8 timestampMs         80   20 reserved, zero, ignored on read
 */
export const LTX_HEADER_SIZE = 100;
export const LTX_TRAILER_SIZE = 16;
export const LTX_MAGIC = 0x4c545831;
/** The pages are one LZ4 frame. */
export const LTX_FLAG_COMPRESSED = 0x1;
/** Written by LTX 0.3.15 and later, not understood by LiteFS 0.5. */
const LTX_FLAG_NO_CHECKSUM = 0x2;

const MIN_PAGE_SIZE = 512;
const MAX_PAGE_SIZE = 65536;
const MAX_U32 = 0xffffffff;
const MAX_U64 = 0xffffffffffffffffn;

export interface LtxHeader {
  readonly flags: number;
  readonly pageSize: number;
  /** Size of the database in pages after this transaction; 0 deletes it. */
  readonly commit: number;
  readonly minTxid: number;
  readonly maxTxid: number;
  readonly timestampMs: number;
  /** Checksum of the database before; 0 for a snapshot, which replaces whatever was there. */
  readonly preApplyChecksum: bigint;
  /** Where in the application's WAL the transaction came from; zeros for any other origin. */
  readonly walOffset: number;
  readonly walSize: number;
  readonly walSalt1: number;
  readonly walSalt2: number;
  /** The node that made the transaction. */
  readonly nodeId: bigint;
}

/** A file that starts at the first transaction holds the whole database, by definition. */
export function isSnapshot(header: LtxHeader): boolean {
  return header.minTxid === 1;
}

/** Writes 100 bytes at `offset`. The header must be valid. */
export function encodeHeader(header: LtxHeader, out: Uint8Array, offset: number): void {
  validateHeader(header);
  const view = new DataView(out.buffer, out.byteOffset + offset, LTX_HEADER_SIZE);
  view.setUint32(0, LTX_MAGIC);
  view.setUint32(4, header.flags);
  view.setUint32(8, header.pageSize);
  view.setUint32(12, header.commit);
  setU64(view, 16, header.minTxid);
  setU64(view, 24, header.maxTxid);
  setU64(view, 32, header.timestampMs);
  view.setBigUint64(40, header.preApplyChecksum);
  setU64(view, 48, header.walOffset);
  setU64(view, 56, header.walSize);
  view.setUint32(64, header.walSalt1);
  view.setUint32(68, header.walSalt2);
  view.setBigUint64(72, header.nodeId);
  out.fill(0, offset + 80, offset + LTX_HEADER_SIZE);
}

/** Reads and validates the 100 bytes at `offset`. */
export function decodeHeader(bytes: Uint8Array, offset: number): LtxHeader {
  if (offset + LTX_HEADER_SIZE > bytes.length) {
    const count = Math.max(0, bytes.length - offset);
    throw new FormatError("LTX_TRUNCATED", `LTX file ends inside its header, after ${count} bytes`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, LTX_HEADER_SIZE);
  if (view.getUint32(0) !== LTX_MAGIC) throw invalid("it does not start with the magic 'LTX1'");
  const header: LtxHeader = {
    flags: view.getUint32(4),
    pageSize: view.getUint32(8),
    commit: view.getUint32(12),
    minTxid: getI64(view, 16),
    maxTxid: getI64(view, 24),
    timestampMs: getI64(view, 32),
    preApplyChecksum: view.getBigUint64(40),
    walOffset: getI64(view, 48),
    walSize: getI64(view, 56),
    walSalt1: view.getUint32(64),
    walSalt2: view.getUint32(68),
    nodeId: view.getBigUint64(72),
  };
  validateHeader(header);
  return header;
}

/** Throws a FormatError unless the header follows the rules of LiteFS 0.5. */
export function validateHeader(header: LtxHeader): void {
  validateFlags(header.flags);
  if (!isPageSize(header.pageSize)) throw invalid(`its page size ${header.pageSize} is invalid`);
  if (!isInteger(header.commit, MAX_U32)) throw invalid(`its commit ${header.commit} is invalid`);
  if (!isInteger(header.minTxid) || header.minTxid < 1) {
    throw invalid(`its first TXID ${header.minTxid} is outside 1…2^53-1`);
  }
  if (!isInteger(header.maxTxid) || header.maxTxid < header.minTxid) {
    throw invalid(`its last TXID ${header.maxTxid} does not follow its first ${header.minTxid}`);
  }
  if (!Number.isSafeInteger(header.timestampMs)) throw invalid("its timestamp is out of range");
  validatePreApplyChecksum(header);
  validateWalFields(header);
  if (header.nodeId < 0n || header.nodeId > MAX_U64) throw invalid("its node id is not 64 bits");
}

function validateFlags(flags: number): void {
  if ((flags & ~LTX_FLAG_COMPRESSED) === 0) return;
  if ((flags & ~(LTX_FLAG_COMPRESSED | LTX_FLAG_NO_CHECKSUM)) !== 0) {
    throw invalid(`its flags 0x${flags.toString(16)} are unknown`);
  }
  throw new FormatError(
    "LTX_UNSUPPORTED_LAYOUT",
    "LTX file has the no-checksum flag 0x2 of LTX 0.3.15 and later (layouts V1n, V2 and V3); " +
      "only files of LiteFS 0.5 (layout V1) can be read",
  );
}

function validatePreApplyChecksum(header: LtxHeader): void {
  const checksum = header.preApplyChecksum;
  if (isSnapshot(header)) {
    if (checksum !== 0n) throw invalid("a snapshot must not have a pre-apply checksum");
  } else if (!isChecksum(checksum)) {
    throw invalid("its pre-apply checksum lacks the flag bit");
  }
}

function validateWalFields(header: LtxHeader): void {
  const { walOffset, walSize, walSalt1, walSalt2 } = header;
  if (!isInteger(walOffset) || !isInteger(walSize)) throw invalid("its WAL range is out of range");
  if (!isInteger(walSalt1, MAX_U32) || !isInteger(walSalt2, MAX_U32)) {
    throw invalid("its WAL salts are out of range");
  }
  const hasSalt = walSalt1 !== 0 || walSalt2 !== 0;
  if (walOffset === 0 && (walSize !== 0 || hasSalt)) {
    throw invalid("it has a WAL size or salt without a WAL offset");
  }
  if (walOffset !== 0 && walSize === 0) throw invalid("it has a WAL offset without a WAL size");
}

/** 64 bits with FLAG. */
export function isChecksum(value: bigint): boolean {
  return value >= CHECKSUM_FLAG && value <= MAX_U64;
}

function isPageSize(value: number): boolean {
  return value >= MIN_PAGE_SIZE && value <= MAX_PAGE_SIZE && (value & (value - 1)) === 0;
}

function isInteger(value: number, max: number = Number.MAX_SAFE_INTEGER): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value <= max;
}

/** Writes a safe integer, also a negative one, as 64-bit two's complement. */
function setU64(view: DataView, offset: number, value: number): void {
  view.setInt32(offset, Math.floor(value / 2 ** 32));
  view.setUint32(offset + 4, value >>> 0);
}

/** Values beyond 2^53 come out inexact and unsafe, and validation refuses them. */
function getI64(view: DataView, offset: number): number {
  return view.getInt32(offset) * 2 ** 32 + view.getUint32(offset + 4);
}

function invalid(what: string): FormatError {
  return new FormatError("LTX_INVALID", `LTX file has an invalid header: ${what}`);
}
