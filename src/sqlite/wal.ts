import { assert } from "../lib/assert.ts";
import { isValidPageSize } from "./page-size.ts";
import { readUpTo, type ReadAt } from "./read-at.ts";
import { readUint32BE, writeUint32BE } from "./uint.ts";

/**
 * The write-ahead log: a header, then frames. All fields are big-endian; only the words the
 * checksum runs over are read in the byte order that the magic names.
 *
 * | header off | field                                   | frame off | field                          |
 * |------------|-----------------------------------------|-----------|--------------------------------|
 * | 0          | magic 0x377f0682 (LE words) or ..83 (BE)| 0         | page number                    |
 * | 4          | version 3007000                         | 4         | pages after commit, 0: no commit|
 * | 8          | page size                               | 8, 12     | salts of the header            |
 * | 12         | checkpoint sequence                     | 16, 20    | checksum                       |
 * | 16, 20     | salts                                   | 24        | the page                       |
 * | 24, 28     | checksum of the first 24 bytes          |           |                                |
 *
 * The checksum of a frame continues the one before it and covers the first 8 bytes of its header
 * and the page, so a frame is valid only when everything before it is.
 */
export interface WalHeader {
  readonly bigEndianChecksum: boolean;
  readonly pageSize: number;
  readonly checkpointSequence: number;
  readonly salt1: number;
  readonly salt2: number;
  readonly checksum1: number;
  readonly checksum2: number;
}

/** Mutable, so that one object serves a whole log. */
export interface FrameHeader {
  pgno: number;
  commit: number;
  salt1: number;
  salt2: number;
  checksum1: number;
  checksum2: number;
}

export const WAL_HEADER_SIZE: number = 32;
export const FRAME_HEADER_SIZE: number = 24;

const MAGIC_LITTLE_ENDIAN = 0x377f0682;
const MAGIC_BIG_ENDIAN = 0x377f0683;
const VERSION = 3007000;

/** The bytes of a frame header that its checksum covers: page number and commit size. */
const FRAME_CHECKSUM_BYTES = 8;

const SCAN_BUFFER_BYTES = 256 * 1024;

/** The running checksum of a WAL: two sums, each fed by the other. */
export class WalChecksum {
  /** Unsigned, ready to compare with decoded fields. */
  s0 = 0;
  s1 = 0;
  bigEndian: boolean;

  /** Two, because frame headers and pages often come from two buffers in turn. */
  #view: DataView | undefined;
  #previousView: DataView | undefined;

  constructor(bigEndian: boolean) {
    this.bigEndian = bigEndian;
  }

  set(s0: number, s1: number): void {
    this.s0 = s0;
    this.s1 = s1;
  }

  /**
   * Runs once per page of every commit: each intermediate sum is cut to int32, which keeps V8 in
   * integer registers, and a DataView is as fast as typed arrays at any alignment and byte order.
   */
  update(bytes: Uint8Array, start: number, lengthBytes: number): void {
    assert((lengthBytes & 7) === 0, "a WAL checksum covers pairs of 32-bit words");
    assert(start >= 0 && start + lengthBytes <= bytes.length, "WAL checksum past its buffer");
    const view = this.#viewOf(bytes.buffer);
    const littleEndian = !this.bigEndian;
    const first = bytes.byteOffset + start;
    const end = first + lengthBytes;
    let s0 = this.s0 | 0;
    let s1 = this.s1 | 0;
    for (let i = first; i < end; i += 8) {
      s0 = (((s0 + view.getInt32(i, littleEndian)) | 0) + s1) | 0;
      s1 = (((s1 + view.getInt32(i + 4, littleEndian)) | 0) + s0) | 0;
    }
    this.s0 = s0 >>> 0;
    this.s1 = s1 >>> 0;
  }

  #viewOf(buffer: ArrayBufferLike): DataView {
    if (this.#view?.buffer === buffer) return this.#view;
    const previous = this.#previousView;
    this.#previousView = this.#view;
    this.#view = previous?.buffer === buffer ? previous : new DataView(buffer);
    return this.#view;
  }
}

/** Undefined when the bytes are not a header SQLite would accept: it then ignores the whole log. */
export function decodeWalHeader(bytes: Uint8Array, offset: number): WalHeader | undefined {
  if (bytes.length - offset < WAL_HEADER_SIZE) return undefined;
  const magic = readUint32BE(bytes, offset);
  if (magic !== MAGIC_LITTLE_ENDIAN && magic !== MAGIC_BIG_ENDIAN) return undefined;
  if (readUint32BE(bytes, offset + 4) !== VERSION) return undefined;
  const pageSize = readUint32BE(bytes, offset + 8);
  if (!isValidPageSize(pageSize)) return undefined;

  const bigEndianChecksum = magic === MAGIC_BIG_ENDIAN;
  const checksum = new WalChecksum(bigEndianChecksum);
  checksum.update(bytes, offset, WAL_HEADER_SIZE - 8);
  const checksum1 = readUint32BE(bytes, offset + 24);
  const checksum2 = readUint32BE(bytes, offset + 28);
  if (checksum1 !== checksum.s0 || checksum2 !== checksum.s1) return undefined;
  return {
    bigEndianChecksum,
    pageSize,
    checkpointSequence: readUint32BE(bytes, offset + 12),
    salt1: readUint32BE(bytes, offset + 16),
    salt2: readUint32BE(bytes, offset + 20),
    checksum1,
    checksum2,
  };
}

/** Returns the header with the checksum it was written with, where the first frame continues. */
export function encodeWalHeader(
  header: Omit<WalHeader, "checksum1" | "checksum2">,
  out: Uint8Array,
  offset: number,
): WalHeader {
  assert(out.length - offset >= WAL_HEADER_SIZE, "no room for a WAL header");
  assert(isValidPageSize(header.pageSize), `invalid WAL page size ${header.pageSize}`);
  writeUint32BE(out, offset, header.bigEndianChecksum ? MAGIC_BIG_ENDIAN : MAGIC_LITTLE_ENDIAN);
  writeUint32BE(out, offset + 4, VERSION);
  writeUint32BE(out, offset + 8, header.pageSize);
  writeUint32BE(out, offset + 12, header.checkpointSequence);
  writeUint32BE(out, offset + 16, header.salt1);
  writeUint32BE(out, offset + 20, header.salt2);
  const checksum = new WalChecksum(header.bigEndianChecksum);
  checksum.update(out, offset, WAL_HEADER_SIZE - 8);
  writeUint32BE(out, offset + 24, checksum.s0);
  writeUint32BE(out, offset + 28, checksum.s1);
  return { ...header, checksum1: checksum.s0, checksum2: checksum.s1 };
}

/** Frames count from 0 here; SQLite's own frame numbers (wal-index, read marks) count from 1. */
export function frameOffset(frameIndex: number, pageSize: number): number {
  return WAL_HEADER_SIZE + frameIndex * (FRAME_HEADER_SIZE + pageSize);
}

/** Fields only; whether the frame is valid needs the page and the checksum before it. */
export function decodeFrameHeader(bytes: Uint8Array, offset: number, out: FrameHeader): void {
  assert(bytes.length - offset >= FRAME_HEADER_SIZE, "a WAL frame header was cut off");
  out.pgno = readUint32BE(bytes, offset);
  out.commit = readUint32BE(bytes, offset + 4);
  out.salt1 = readUint32BE(bytes, offset + 8);
  out.salt2 = readUint32BE(bytes, offset + 12);
  out.checksum1 = readUint32BE(bytes, offset + 16);
  out.checksum2 = readUint32BE(bytes, offset + 20);
}

export function encodeFrameHeader(
  frame: Readonly<FrameHeader>,
  out: Uint8Array,
  offset: number,
): void {
  assert(out.length - offset >= FRAME_HEADER_SIZE, "no room for a WAL frame header");
  writeUint32BE(out, offset, frame.pgno);
  writeUint32BE(out, offset + 4, frame.commit);
  writeUint32BE(out, offset + 8, frame.salt1);
  writeUint32BE(out, offset + 12, frame.salt2);
  writeUint32BE(out, offset + 16, frame.checksum1);
  writeUint32BE(out, offset + 20, frame.checksum2);
}

/** Writes the header of a frame whose page already follows it, and advances the checksum. */
export function sealFrame(
  frame: Readonly<Omit<FrameHeader, "checksum1" | "checksum2">>,
  checksum: WalChecksum,
  pageSize: number,
  out: Uint8Array,
  offset: number,
): void {
  assert(out.length - offset >= FRAME_HEADER_SIZE + pageSize, "no room for a WAL frame");
  encodeFrameHeader({ ...frame, checksum1: 0, checksum2: 0 }, out, offset);
  checksum.update(out, offset, FRAME_CHECKSUM_BYTES);
  checksum.update(out, offset + FRAME_HEADER_SIZE, pageSize);
  writeUint32BE(out, offset + 16, checksum.s0);
  writeUint32BE(out, offset + 20, checksum.s1);
}

/**
 * SQLite's rule (walDecodeFrame): the salts of the header, a page number and the running checksum.
 * Decodes into `out`; advances `checksum` over the frame, valid or not.
 */
export function verifyFrame(
  header: WalHeader,
  checksum: WalChecksum,
  bytes: Uint8Array,
  offset: number,
  out: FrameHeader,
): boolean {
  decodeFrameHeader(bytes, offset, out);
  if (out.salt1 !== header.salt1 || out.salt2 !== header.salt2 || out.pgno === 0) return false;
  checksum.update(bytes, offset, FRAME_CHECKSUM_BYTES);
  checksum.update(bytes, offset + FRAME_HEADER_SIZE, header.pageSize);
  return out.checksum1 === checksum.s0 && out.checksum2 === checksum.s1;
}

/** Frame indexes from 0, `endFrame` exclusive; its last frame carries `commit`. */
export interface WalTransaction {
  readonly firstFrame: number;
  readonly endFrame: number;
  /** Size of the database in pages after this transaction. */
  readonly commit: number;
}

export interface WalScan {
  readonly header: WalHeader;
  /** Frames up to the first invalid one; those past `committedFrames` have no effect. */
  readonly validFrames: number;
  readonly committedFrames: number;
  /** Running checksum after the last committed frame; that of the header when there is none. */
  readonly checksum1: number;
  readonly checksum2: number;
  /** Size of the database in pages after the last commit; 0 when there is none. */
  readonly commitPageCount: number;
  /** Page numbers of the committed frames, by frame index. */
  readonly pgnos: Uint32Array;
  readonly transactions: readonly WalTransaction[];
}

/** Called for every valid frame, committed or not yet; everything handed over is reused. */
export type OnFrame = (
  frame: Readonly<FrameHeader>,
  frameIndex: number,
  buffer: Uint8Array,
  pageOffset: number,
) => void;

/**
 * What SQLite's recovery would find in a log (walIndexRecover). Undefined when the header is not
 * valid, which means that the log holds nothing. Memory: one read buffer, 4 bytes a frame and one
 * small object a transaction.
 */
export function scanWal(
  file: ReadAt,
  fileSizeBytes: number,
  onFrame?: OnFrame,
): WalScan | undefined {
  const headerBytes = new Uint8Array(WAL_HEADER_SIZE);
  if (readUpTo(file, headerBytes, 0, WAL_HEADER_SIZE, 0) < WAL_HEADER_SIZE) return undefined;
  const header = decodeWalHeader(headerBytes, 0);
  if (header === undefined) return undefined;

  const collector = new ScanCollector(header);
  const frameSize = FRAME_HEADER_SIZE + header.pageSize;
  const frameCount = Math.max(0, Math.floor((fileSizeBytes - WAL_HEADER_SIZE) / frameSize));
  const framesPerRead = Math.max(1, Math.floor(SCAN_BUFFER_BYTES / frameSize));
  const buffer = new Uint8Array(Math.min(frameCount, framesPerRead) * frameSize);
  const checksum = new WalChecksum(header.bigEndianChecksum);
  checksum.set(header.checksum1, header.checksum2);
  const frame: FrameHeader = newFrameHeader();

  for (let index = 0; index < frameCount;) {
    const wanted = Math.min(frameCount - index, framesPerRead);
    const offset = frameOffset(index, header.pageSize);
    const readBytes = readUpTo(file, buffer, 0, wanted * frameSize, offset);
    const frames = Math.floor(readBytes / frameSize);
    for (let i = 0; i < frames; i++, index++) {
      if (!verifyFrame(header, checksum, buffer, i * frameSize, frame)) return collector.result();
      collector.add(frame);
      onFrame?.(frame, index, buffer, i * frameSize + FRAME_HEADER_SIZE);
    }
    if (frames < wanted) break;
  }
  return collector.result();
}

export function newFrameHeader(): FrameHeader {
  return { pgno: 0, commit: 0, salt1: 0, salt2: 0, checksum1: 0, checksum2: 0 };
}

class ScanCollector {
  readonly #header: WalHeader;
  readonly #transactions: WalTransaction[] = [];
  #pgnos = new Uint32Array(64);
  #validFrames = 0;
  #committedFrames = 0;
  #checksum1: number;
  #checksum2: number;

  constructor(header: WalHeader) {
    this.#header = header;
    this.#checksum1 = header.checksum1;
    this.#checksum2 = header.checksum2;
  }

  add(frame: Readonly<FrameHeader>): void {
    if (this.#validFrames === this.#pgnos.length) {
      const grown = new Uint32Array(this.#pgnos.length * 2);
      grown.set(this.#pgnos);
      this.#pgnos = grown;
    }
    this.#pgnos[this.#validFrames++] = frame.pgno;
    if (frame.commit === 0) return;
    this.#transactions.push({
      firstFrame: this.#committedFrames,
      endFrame: this.#validFrames,
      commit: frame.commit,
    });
    this.#committedFrames = this.#validFrames;
    this.#checksum1 = frame.checksum1;
    this.#checksum2 = frame.checksum2;
  }

  result(): WalScan {
    return {
      header: this.#header,
      validFrames: this.#validFrames,
      committedFrames: this.#committedFrames,
      checksum1: this.#checksum1,
      checksum2: this.#checksum2,
      commitPageCount: this.#transactions.at(-1)?.commit ?? 0,
      pgnos: this.#pgnos.slice(0, this.#committedFrames),
      transactions: this.#transactions,
    };
  }
}
