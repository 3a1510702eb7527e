import { assert } from "../lib/assert.ts";
import { pageSizeFromUint16, pageSizeToUint16 } from "./page-size.ts";
import {
  readUint16LE,
  readUint32BE,
  readUint32LE,
  writeUint16LE,
  writeUint32BE,
  writeUint32LE,
} from "./uint.ts";
import { WalChecksum } from "./wal.ts";

/**
 * The start of `-shm`, in the byte order of the machine. Two copies of the header, then what
 * readers and checkpointers share:
 *
 * | off      | size | field                                                     |
 * |----------|------|-----------------------------------------------------------|
 * | 0 and 48 | 4    | version 3007000                                           |
 * | +4       | 4    | unused                                                    |
 * | +8       | 4    | change counter, +1 per transaction                        |
 * | +12      | 1    | 1 once initialised                                        |
 * | +13      | 1    | 1 when the WAL's checksums run over big-endian words      |
 * | +14      | 2    | page size, 1 means 65536                                  |
 * | +16      | 4    | last committed frame, from 1; 0: the WAL is empty         |
 * | +20      | 4    | database size in pages                                    |
 * | +24      | 8    | checksum of the last committed frame                      |
 * | +32      | 8    | salts: the bytes of the WAL header, hence big-endian      |
 * | +40      | 8    | checksum of the 40 bytes before                           |
 * | 96       | 4    | frames copied to the database (backfilled)                |
 * | 100      | 20   | five read marks; 0xffffffff: unused                       |
 * | 120      | 8    | never read or written, only locked                        |
 * | 128      | 4    | frames a checkpoint may have begun to copy                |
 * | 132      | 4    | unused                                                    |
 */
export interface WalIndexHeader {
  readonly change: number;
  readonly bigEndianChecksum: boolean;
  /** 0 before the first commit of a WAL that SQLite recovered as empty. */
  readonly pageSize: number;
  readonly maxFrame: number;
  readonly pageCount: number;
  readonly frameChecksum1: number;
  readonly frameChecksum2: number;
  readonly salt1: number;
  readonly salt2: number;
}

export interface WalCheckpointInfo {
  readonly backfill: number;
  readonly readMarks: readonly number[];
  readonly backfillAttempted: number;
}

/** One copy. */
export const WAL_INDEX_HEADER_SIZE: number = 48;
export const WAL_CHECKPOINT_INFO_OFFSET: number = 96;
/** Both copies and the checkpoint info: what stands before the first page number. */
export const WAL_INDEX_PREFIX_SIZE: number = 136;
export const WAL_READER_COUNT: number = 5;
export const READ_MARK_NOT_USED: number = 0xffffffff;

const VERSION = 3007000;
const CHECKSUMMED_BYTES = 40;

// SQLite keeps the wal-index in the byte order of the machine, this code in little-endian.
assert(
  new Uint8Array(Uint32Array.of(1).buffer)[0] === 1,
  "litefs runs on little-endian machines only",
);

/**
 * Writes one copy. Whoever publishes a header writes the copy at 48 first and the one at 0 last,
 * because readers read them in the other order and retry unless both agree.
 */
export function encodeWalIndexHeader(
  header: WalIndexHeader,
  out: Uint8Array,
  offset: number,
): void {
  assert(out.length - offset >= WAL_INDEX_HEADER_SIZE, "no room for a wal-index header");
  writeUint32LE(out, offset, VERSION);
  writeUint32LE(out, offset + 4, 0);
  writeUint32LE(out, offset + 8, header.change);
  out[offset + 12] = 1;
  out[offset + 13] = header.bigEndianChecksum ? 1 : 0;
  writeUint16LE(out, offset + 14, pageSizeToUint16(header.pageSize));
  writeUint32LE(out, offset + 16, header.maxFrame);
  writeUint32LE(out, offset + 20, header.pageCount);
  writeUint32LE(out, offset + 24, header.frameChecksum1);
  writeUint32LE(out, offset + 28, header.frameChecksum2);
  writeUint32BE(out, offset + 32, header.salt1);
  writeUint32BE(out, offset + 36, header.salt2);
  const checksum = headerChecksum(out, offset);
  writeUint32LE(out, offset + 40, checksum.s0);
  writeUint32LE(out, offset + 44, checksum.s1);
}

/** One copy; undefined when it is not initialised, of another version or its checksum is wrong. */
export function decodeWalIndexHeader(
  bytes: Uint8Array,
  offset: number,
): WalIndexHeader | undefined {
  if (bytes.length - offset < WAL_INDEX_HEADER_SIZE) return undefined;
  if (bytes[offset + 12] === 0 || readUint32LE(bytes, offset) !== VERSION) return undefined;
  const checksum = headerChecksum(bytes, offset);
  if (readUint32LE(bytes, offset + 40) !== checksum.s0) return undefined;
  if (readUint32LE(bytes, offset + 44) !== checksum.s1) return undefined;
  const pageSizeField = readUint16LE(bytes, offset + 14);
  const pageSize = pageSizeField === 0 ? 0 : pageSizeFromUint16(pageSizeField);
  if (pageSize === undefined) return undefined;
  return {
    change: readUint32LE(bytes, offset + 8),
    bigEndianChecksum: bytes[offset + 13] !== 0,
    pageSize,
    maxFrame: readUint32LE(bytes, offset + 16),
    pageCount: readUint32LE(bytes, offset + 20),
    frameChecksum1: readUint32LE(bytes, offset + 24),
    frameChecksum2: readUint32LE(bytes, offset + 28),
    salt1: readUint32BE(bytes, offset + 32),
    salt2: readUint32BE(bytes, offset + 36),
  };
}

/** What SQLite accepts (walIndexTryHdr): two equal copies. Anything else is being written. */
export function decodeWalIndexHeaderPair(
  bytes: Uint8Array,
  offset: number,
): WalIndexHeader | undefined {
  if (bytes.length - offset < 2 * WAL_INDEX_HEADER_SIZE) return undefined;
  for (let i = offset; i < offset + WAL_INDEX_HEADER_SIZE; i++) {
    if (bytes[i] !== bytes[i + WAL_INDEX_HEADER_SIZE]) return undefined;
  }
  return decodeWalIndexHeader(bytes, offset);
}

/** Writes the 40 bytes at `offset`, which stands for byte 96 of `-shm`. */
export function encodeWalCheckpointInfo(
  info: WalCheckpointInfo,
  out: Uint8Array,
  offset: number,
): void {
  assert(info.readMarks.length === WAL_READER_COUNT, "a wal-index has five read marks");
  assert(
    out.length - offset >= WAL_INDEX_PREFIX_SIZE - WAL_CHECKPOINT_INFO_OFFSET,
    "no room for wal-index checkpoint info",
  );
  writeUint32LE(out, offset, info.backfill);
  for (const [i, mark] of info.readMarks.entries()) writeUint32LE(out, offset + 4 + 4 * i, mark);
  out.fill(0, offset + 24, offset + 32);
  writeUint32LE(out, offset + 32, info.backfillAttempted);
  writeUint32LE(out, offset + 36, 0);
}

export function decodeWalCheckpointInfo(bytes: Uint8Array, offset: number): WalCheckpointInfo {
  assert(
    bytes.length - offset >= WAL_INDEX_PREFIX_SIZE - WAL_CHECKPOINT_INFO_OFFSET,
    "wal-index checkpoint info was cut off",
  );
  const readMarks: number[] = [];
  for (let i = 0; i < WAL_READER_COUNT; i++) {
    readMarks.push(readUint32LE(bytes, offset + 4 + 4 * i));
  }
  return {
    backfill: readUint32LE(bytes, offset),
    readMarks,
    backfillAttempted: readUint32LE(bytes, offset + 32),
  };
}

/** Always over native words, whatever order the WAL's own checksums use. */
function headerChecksum(bytes: Uint8Array, offset: number): WalChecksum {
  const checksum = new WalChecksum(false);
  checksum.update(bytes, offset, CHECKSUMMED_BYTES);
  return checksum;
}
