import * as path from "node:path";
import { assert } from "../../lib/assert.ts";
import { CHECKSUM_FLAG_HI, Crc64, halvesToBigint } from "../../ltx/crc64.ts";
import { pageFrameCombiner, type Crc64Combiner } from "../../ltx/crc64-combine.ts";
import { encodeHeader, LTX_HEADER_SIZE, LTX_TRAILER_SIZE } from "../../ltx/header.ts";
import type { LtxHeader } from "../../ltx/header.ts";
import type { Position } from "../../lib/position.ts";
import type { Files, OpenFile } from "../files.ts";
import {
  encodeRecordHeader,
  encodeStateRecord,
  RECORD_HEADER_SIZE,
  RECORD_KIND,
  segmentName,
} from "./record.ts";
import type { FileMark, LogState, RecordKind } from "./record.ts";
import { markBoot } from "./boot-mark.ts";
import { openSegments } from "./recover-log.ts";
import type { Segment } from "./recover-log.ts";

/** Long enough that rotation is rare, short enough that the last one is verified in milliseconds. */
const SEGMENT_MAX_BYTES = 16 * 1024 * 1024;
/** How much log may have to be applied again after a crash, besides one WAL. */
const DURABLE_RECORD_EVERY_BYTES = 4 * 1024 * 1024;
const BUFFER_BYTES = 1024 * 1024;

/**
 * The transaction log of one database, append-only. It is the truth: a transaction is committed
 * when its record is complete here, and the database file and the WAL are caches of it.
 *
 * One writer, the mount thread. Readers on other threads read segment files up to `end`.
 */
export class TransactionLog {
  readonly #files: Files;
  #directory: string;
  #segments: Segment[];
  #file: OpenFile | undefined;
  /** Bytes of the last segment that hold complete records. */
  #endOffset: number;
  #dirty = false;
  #state: LogState;
  #mark: FileMark | undefined;
  #bytesSinceDurable = 0;
  #isBootMarked = false;
  /** Once the end of the log is in doubt, it takes nothing more until it is opened anew. */
  #failure: unknown;
  /** Whether, when it was opened, the machine had started anew since the last append. */
  readonly isNewBoot: boolean;
  /** Bytes that a power cut had made unreachable when the log was opened. */
  readonly tornBytes: number;
  /** The position after the last record; checksum as int32 halves because commits XOR them. */
  txid: number;
  checksumHi: number;
  checksumLo: number;

  /** Opens the log of a database and drops what a crash left incomplete at its end. */
  static open(files: Files, directory: string): TransactionLog {
    return new TransactionLog(files, directory, openSegments(files, directory));
  }

  private constructor(files: Files, directory: string, recovered: ReturnType<typeof openSegments>) {
    this.#files = files;
    this.#directory = directory;
    this.#segments = recovered.segments;
    this.#endOffset = recovered.endOffset;
    this.#state = recovered.state;
    this.#mark = recovered.mark;
    this.isNewBoot = recovered.isNewBoot;
    this.tornBytes = recovered.tornBytes;
    this.txid = recovered.txid;
    this.checksumHi = recovered.checksumHi;
    this.checksumLo = recovered.checksumLo;
  }

  get position(): Position {
    return { txid: this.txid, checksum: halvesToBigint(this.checksumHi, this.checksumLo) };
  }
  get state(): LogState {
    return this.#state;
  }
  /** True when the database file was being written outside of transactions at the last stop. */
  get isLoose(): boolean {
    return this.#mark === RECORD_KIND.loose;
  }
  /** True when the database file was being written without syncs at the last stop. */
  get isUnsynced(): boolean {
    return this.#mark === RECORD_KIND.unsynced;
  }
  get isEmpty(): boolean {
    return this.#segments.length === 0;
  }
  /** Where the last complete record ends: segment file name and offset. */
  get end(): { readonly segment: string; readonly offsetBytes: number } {
    const last = this.#segments.at(-1);
    return { segment: last === undefined ? "" : last.name, offsetBytes: this.#endOffset };
  }
  get transactionCount(): number {
    const first = this.#segments[0];
    return first === undefined ? 0 : this.txid - first.firstTxid + 1;
  }
  get sizeBytes(): number {
    let bytes = this.#endOffset;
    for (const segment of this.#segments.slice(0, -1)) bytes += segment.sizeBytes;
    return bytes;
  }

  /**
   * Appends one transaction whose pages the caller feeds in ascending order:
   * begin, addPage …, finish. Anything thrown in between leaves the log as it was before `begin`
   * once `abort` was called.
   */
  begin(header: LtxHeader): TransactionWriter {
    const file = this.#openForAppend();
    return new TransactionWriter(file, this.#endOffset, header);
  }

  /** Makes the transaction of a writer part of the log. */
  finish(writer: TransactionWriter, header: LtxHeader, postHi: number, postLo: number): void {
    const endOffset = writer.finish(postHi, postLo);
    this.#advance(header.maxTxid, postHi, postLo, endOffset, {
      ...this.#state,
      pageSize: header.pageSize,
      pageCount: header.commit,
      timestampMs: header.timestampMs,
    });
  }

  /** Forgets a transaction that was begun or even finished, because its commit was refused. */
  truncateTo(mark: LogMark): void {
    this.#endOffset = mark.endOffset;
    this.txid = mark.txid;
    this.checksumHi = mark.checksumHi;
    this.checksumLo = mark.checksumLo;
    this.#state = mark.state;
    try {
      this.#openLast().truncate(mark.endOffset);
    } catch (error) {
      // What was refused stands there as if it were committed: nothing may follow it.
      this.#failure = error;
      throw error;
    }
  }

  mark(): LogMark {
    this.#openForAppend();
    return {
      endOffset: this.#endOffset,
      txid: this.txid,
      checksumHi: this.checksumHi,
      checksumLo: this.checksumLo,
      state: this.#state,
    };
  }

  /** Appends a complete LTX file that was verified to continue the position. */
  appendReceived(header: LtxHeader, postHi: number, postLo: number, ltx: LtxBytes): void {
    const file = this.#openForAppend();
    const record = new Uint8Array(RECORD_HEADER_SIZE);
    encodeRecordHeader(
      {
        kind: RECORD_KIND.transaction,
        payloadLength: ltx.lengthBytes,
        txid: header.maxTxid,
        checksumHi: postHi,
        checksumLo: postLo,
      },
      record,
      new DataView(record.buffer),
      0,
    );
    let to = this.#endOffset + RECORD_HEADER_SIZE;
    for (const piece of ltx.pieces()) {
      file.writeAt(piece, 0, piece.length, to);
      to += piece.length;
    }
    file.writeAt(record, 0, RECORD_HEADER_SIZE, this.#endOffset);
    const endOffset = this.#endOffset + RECORD_HEADER_SIZE + ltx.lengthBytes;
    this.#advance(header.maxTxid, postHi, postLo, endOffset, {
      ...this.#state,
      pageSize: header.pageSize,
      pageCount: header.commit,
      timestampMs: header.timestampMs,
    });
  }

  /**
   * The database jumps to a position whose pages are not in this log: they are in the database
   * file already, or in a snapshot file beside the segments. Starts a new segment.
   */
  appendBase(position: { txid: number; hi: number; lo: number }, state: LogState): void {
    if (this.#segments.at(-1)?.firstTxid === position.txid + 1) {
      // The segment of that name is in use; what it says must stand until this is there.
      const { txid, hi: checksumHi, lo: checksumLo } = position;
      this.#appendRecord(
        encodeStateRecord(RECORD_KIND.base, { txid, checksumHi, checksumLo }, state),
      );
      this.txid = txid;
      this.checksumHi = checksumHi;
      this.checksumLo = checksumLo;
      this.#state = state;
    } else {
      if (this.#dirty) this.sync();
      this.#closeFile();
      this.#startSegment(position.txid + 1, position, state, RECORD_KIND.base);
    }
    this.#mark = undefined;
    this.sync();
  }

  /** Notes that the database file is about to be changed outside of any transaction. */
  appendLoose(): void {
    this.#appendMark(RECORD_KIND.loose);
  }

  /** Notes that the database file is about to be changed by somebody who does not sync. */
  appendUnsynced(): void {
    if (!this.isLoose) this.#appendMark(RECORD_KIND.unsynced);
  }

  #appendMark(mark: FileMark): void {
    if (this.#mark === mark) return;
    this.#appendState(mark, this.#state);
    this.#mark = mark;
    this.sync();
  }

  /**
   * Notes that the database file is complete and durable through a TXID, so that recovery need
   * not apply what comes before. Costs a record, so it is kept in memory until it is worth it.
   */
  noteDurable(txid: number, when: "now" | "worthwhile"): void {
    if (txid < this.#state.durableTxid) return;
    if (txid === this.#state.durableTxid && this.#mark === undefined) return;
    this.#state = { ...this.#state, durableTxid: txid };
    if (when === "worthwhile" && !this.needsDurable && this.#mark === undefined) return;
    this.#appendState(RECORD_KIND.durable, this.#state);
    this.#mark = undefined;
    this.#bytesSinceDurable = 0;
  }

  /** Recovery would have to apply so much again that syncing the database file is worth it. */
  get needsDurable(): boolean {
    return this.#bytesSinceDurable >= DURABLE_RECORD_EVERY_BYTES;
  }

  /** Everything appended so far survives a power cut when this returns. */
  sync(): void {
    if (!this.#dirty) return;
    if (this.#failure !== undefined) throw this.#failure;
    // Not #openForAppend: a full segment is synced before, and because, it is followed by a new one.
    try {
      this.#openLast().sync();
    } catch (error) {
      // Linux reports a failed write-back once and then forgets it: a second try proves nothing.
      this.#failure = error;
      throw error;
    }
    this.#dirty = false;
  }

  /**
   * Removes whole segments whose transactions are all older than the limit, durable in the
   * database file, and not the newest. Returns how many transactions went.
   */
  enforceRetention(olderThanMs: number): number {
    let removed = 0;
    while (this.#segments.length > 1) {
      const [first, second] = this.#segments;
      assert(first !== undefined && second !== undefined, "two segments");
      if (second.firstTxid > this.#state.durableTxid) break;
      if (second.startTimestampMs >= olderThanMs) break;
      this.#files.remove(path.join(this.#directory, first.name));
      this.#segments = this.#segments.slice(1);
      removed += second.firstTxid - first.firstTxid;
    }
    return removed;
  }

  /** Starts a new segment at the next append when the current one is old, so that it can go. */
  rotateIfOlderThan(olderThanMs: number): void {
    const last = this.#segments.at(-1);
    if (last === undefined || last.firstTxid > this.txid) return;
    if (last.startTimestampMs < olderThanMs) this.#rotate();
  }

  /** Paths of the segments that may hold transactions after a TXID, oldest first. */
  segmentPathsAfter(txid: number): readonly string[] {
    return this.#segments
      .filter((_, i) => (this.#segments[i + 1]?.firstTxid ?? Infinity) > txid + 1)
      .map((segment) => path.join(this.#directory, segment.name));
  }

  /** Reads everything again: the directory was exchanged. */
  reopen(directory: string): void {
    this.#closeFile();
    this.#directory = directory;
    const recovered = openSegments(this.#files, this.#directory);
    this.#segments = recovered.segments;
    this.#endOffset = recovered.endOffset;
    this.#state = recovered.state;
    this.#mark = recovered.mark;
    this.#dirty = false;
    this.#failure = undefined;
    this.#isBootMarked = false;
    this.#bytesSinceDurable = 0;
    this.txid = recovered.txid;
    this.checksumHi = recovered.checksumHi;
    this.checksumLo = recovered.checksumLo;
  }

  /** Gives the descriptor back while nobody uses the database; syncing still works later. */
  release(): void {
    this.#closeFile();
  }

  close(): void {
    if (this.#dirty && this.#failure === undefined) this.sync();
    this.#closeFile();
  }

  #advance(txid: number, hi: number, lo: number, endOffset: number, state: LogState): void {
    this.#dirty = true;
    this.#bytesSinceDurable += endOffset - this.#endOffset;
    this.#endOffset = endOffset;
    this.txid = txid;
    this.checksumHi = hi;
    this.checksumLo = lo;
    this.#state = state;
  }

  #appendState(kind: RecordKind, state: LogState): void {
    const file = this.#openForAppend();
    this.#appendRecord(encodeStateRecord(kind, this, state), file);
  }

  #appendRecord(record: Uint8Array, file: OpenFile = this.#openForAppend()): void {
    file.writeAt(record, 0, record.length, this.#endOffset);
    this.#endOffset += record.length;
    this.#dirty = true;
  }

  #openForAppend(): OpenFile {
    if (this.#failure !== undefined) throw this.#failure;
    const last = this.#segments.at(-1);
    if (last === undefined) {
      const position = { txid: this.txid, hi: this.checksumHi, lo: this.checksumLo };
      this.#startSegment(this.txid + 1, position, this.#state, RECORD_KIND.head);
    } else if (this.#endOffset >= SEGMENT_MAX_BYTES && last.firstTxid <= this.txid) {
      this.#rotate();
    }
    const file = this.#openLast();
    if (!this.#isBootMarked) {
      markBoot(this.#files, this.#directory);
      this.#isBootMarked = true;
    }
    return file;
  }

  #openLast(): OpenFile {
    if (this.#file === undefined) {
      const name = this.#segments.at(-1)?.name ?? "";
      this.#file = this.#files.open(path.join(this.#directory, name), { create: true });
    }
    assert(this.#file !== undefined, "an open segment");
    return this.#file;
  }

  #rotate(): void {
    this.sync();
    this.#closeFile();
    const position = { txid: this.txid, hi: this.checksumHi, lo: this.checksumLo };
    this.#startSegment(this.txid + 1, position, this.#state, RECORD_KIND.head);
  }

  /** The head goes in before the segment counts, so that an empty segment is never the last one. */
  #startSegment(
    firstTxid: number,
    position: { txid: number; hi: number; lo: number },
    state: LogState,
    kind: RecordKind,
  ): void {
    const name = segmentName(firstTxid);
    this.#files.mkdir(this.#directory);
    const file = this.#files.open(path.join(this.#directory, name), { create: true });
    assert(file !== undefined, "a created segment");
    const checksums = { txid: position.txid, checksumHi: position.hi, checksumLo: position.lo };
    const record = encodeStateRecord(kind, checksums, state);
    let endOffset = record.length;
    file.truncate(0);
    file.writeAt(record, 0, record.length, 0);
    if (this.#mark !== undefined && kind === RECORD_KIND.head) {
      // Only the last segment is read at the start.
      const mark = encodeStateRecord(this.#mark, checksums, state);
      file.writeAt(mark, 0, mark.length, endOffset);
      endOffset += mark.length;
    }
    file.sync();
    this.#files.syncDirectory(this.#directory);
    if (this.isEmpty) this.#syncParents();
    const previous = this.#segments.at(-1);
    if (previous !== undefined) previous.sizeBytes = this.#endOffset;
    const segment = { name, firstTxid, sizeBytes: 0, startTimestampMs: state.timestampMs };
    this.#segments = [...this.#segments.filter((other) => other.name !== name), segment];
    this.#file = file;
    this.#endOffset = endOffset;
    this.txid = position.txid;
    this.checksumHi = position.hi;
    this.checksumLo = position.lo;
    this.#state = state;
  }

  /** The directories of a new database must survive a power cut as well. */
  #syncParents(): void {
    const database = path.dirname(this.#directory);
    this.#files.syncDirectory(database);
    this.#files.syncDirectory(path.dirname(database));
  }

  #closeFile(): void {
    this.#file?.close();
    this.#file = undefined;
  }
}

/** The bytes of an LTX file, wherever they are. */
export interface LtxBytes {
  readonly lengthBytes: number;
  pieces(): Iterable<Uint8Array>;
}

/** What `truncateTo` needs to undo an append. */
export interface LogMark {
  readonly endOffset: number;
  readonly txid: number;
  readonly checksumHi: number;
  readonly checksumLo: number;
  readonly state: LogState;
}

/** One buffer for all logs of the thread: only one transaction is ever being written. */
const buffer = new Uint8Array(BUFFER_BYTES + 65536 + 4 + LTX_TRAILER_SIZE + 4);
const bufferView = new DataView(buffer.buffer);
const fileCrc = new Crc64();

/**
 * Writes one LTX file straight into the log. Small transactions become one write; large ones go
 * out in pieces of a mebibyte, so that memory stays bounded. Each page's CRC is computed once, by
 * the caller, and combined into the file checksum.
 */
export class TransactionWriter {
  readonly #file: OpenFile;
  readonly #startOffset: number;
  readonly #pageSize: number;
  readonly #combiner: Crc64Combiner;
  readonly #txid: number;
  /** File offset of buffer[0]. */
  #flushedTo: number;
  #used: number;

  constructor(file: OpenFile, startOffset: number, header: LtxHeader) {
    this.#file = file;
    this.#startOffset = startOffset;
    this.#flushedTo = startOffset;
    this.#pageSize = header.pageSize;
    this.#txid = header.maxTxid;
    this.#combiner = pageFrameCombiner(header.pageSize);
    encodeHeader(header, buffer, RECORD_HEADER_SIZE);
    fileCrc.reset();
    fileCrc.updateBytes(buffer, RECORD_HEADER_SIZE, RECORD_HEADER_SIZE + LTX_HEADER_SIZE);
    this.#used = RECORD_HEADER_SIZE + LTX_HEADER_SIZE;
  }

  /** `crcHi/crcLo` is the page's plain CRC without FLAG, as pageCrc leaves it. */
  addPage(pgno: number, page: Uint8Array, start: number, crcHi: number, crcLo: number): void {
    if (this.#used >= BUFFER_BYTES) this.#flush();
    bufferView.setUint32(this.#used, pgno);
    const at = this.#used + 4;
    if (start === 0 && page.length === this.#pageSize) buffer.set(page, at);
    else buffer.set(page.subarray(start, start + this.#pageSize), at);
    this.#used = at + this.#pageSize;
    this.#combiner.combine(fileCrc, crcHi, crcLo);
  }

  /** Writes the rest and the record header. Returns the offset after the record. */
  finish(postHi: number, postLo: number): number {
    bufferView.setUint32(this.#used, 0);
    bufferView.setInt32(this.#used + 4, postHi);
    bufferView.setInt32(this.#used + 8, postLo);
    fileCrc.updateBytes(buffer, this.#used, this.#used + 12);
    fileCrc.finish();
    bufferView.setInt32(this.#used + 12, fileCrc.hi | CHECKSUM_FLAG_HI);
    bufferView.setInt32(this.#used + 16, fileCrc.lo);
    this.#used += 4 + LTX_TRAILER_SIZE;
    const endOffset = this.#flushedTo + this.#used;
    const payloadLength = endOffset - this.#startOffset - RECORD_HEADER_SIZE;
    const header = {
      kind: RECORD_KIND.transaction,
      payloadLength,
      txid: this.#txid,
      checksumHi: postHi,
      checksumLo: postLo,
    };
    if (this.#flushedTo === this.#startOffset) {
      encodeRecordHeader(header, buffer, bufferView, 0);
      this.#file.writeAt(buffer, 0, this.#used, this.#startOffset);
    } else {
      this.#file.writeAt(buffer, 0, this.#used, this.#flushedTo);
      // The record header comes last: until it is there the record does not exist.
      encodeRecordHeader(header, buffer, bufferView, 0);
      this.#file.writeAt(buffer, 0, RECORD_HEADER_SIZE, this.#startOffset);
    }
    return endOffset;
  }

  #flush(): void {
    // The first piece must not leave an old record header behind it standing.
    if (this.#flushedTo === this.#startOffset) buffer.fill(0, 0, RECORD_HEADER_SIZE);
    this.#file.writeAt(buffer, 0, this.#used, this.#flushedTo);
    this.#flushedTo += this.#used;
    this.#used = 0;
  }
}
