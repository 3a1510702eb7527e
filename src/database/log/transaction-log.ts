import * as path from "node:path";
import { assert } from "../../lib/assert.ts";
import { halvesToBigint } from "../../ltx/crc64.ts";
import type { LtxHeader } from "../../ltx/header.ts";
import type { Position } from "../../lib/position.ts";
import type { Files, OpenFile } from "../files.ts";
import { encodeStateRecord, RECORD_KIND, segmentName, STATE_RECORD_SIZE } from "./record.ts";
import type { FileMark, LogMark, LogState, RecordKind } from "./record.ts";
import { markBoot } from "./boot-mark.ts";
import { LaidSpace } from "./laid-space.ts";
import { writeReceived } from "./received-record.ts";
import type { LtxBytes } from "./received-record.ts";
import { countBytes, countTransactions, NO_LOG, openSegments } from "./recover-log.ts";
import type { RecoveredLog, Segment, SettledLog } from "./recover-log.ts";
import type { ExpectedEnd } from "./rewrite-segment.ts";
import { rewriteSegment } from "./rewrite-segment.ts";
import { TransactionWriter } from "./transaction-writer.ts";

/** Long enough that rotation is rare, short enough that the last one is verified in milliseconds. */
const SEGMENT_MAX_BYTES = 16 * 1024 * 1024;
/** How much log may have to be applied again after a crash, besides one WAL. */
const DURABLE_RECORD_EVERY_BYTES = 4 * 1024 * 1024;

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
  /** Since the segment was opened or begun. */
  #wasSynced = false;
  readonly #laidSpace = new LaidSpace();
  #state: LogState;
  #mark: FileMark | undefined;
  #bytesSinceDurable = 0;
  #isBootMarked = false;
  /** Once what was appended cannot be made durable, nothing more is taken. */
  #failure: unknown;
  /** Whether, when it was opened, the machine may have started anew since the last append. */
  isNewBoot: boolean;
  /** The names of the newest segment and of the directories above it survive a power cut. */
  #isPlaceDurable = false;
  /** Nothing was appended since the database file was noted to have all that is here. */
  isCaughtUp: boolean = false;
  /** The mark stands again behind a note that would end it: the next journal will be no better. */
  #staysUnsynced = false;
  /** What was refused could not be cut off yet: it goes before anything else comes. */
  #isCutOwed = false;
  /** The state in memory is newer than the last record, which could not be written yet. */
  #isStateOwed = false;
  /** A segment that was begun in vain, and could not be removed yet. */
  #stray: string | undefined;
  /** The disk had failed to keep a segment, and a copy of it was made in time. */
  onRewritten: (segment: string, error: unknown) => void = () => undefined;
  /** The log takes nothing more. */
  onFailed: (error: unknown) => void = () => undefined;
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

  /** Goes on with a log that was settled, without reading it. */
  static resume(files: Files, directory: string, settled: SettledLog): TransactionLog {
    return new TransactionLog(files, directory, {
      ...settled,
      segments: [...settled.segments],
      mark: undefined,
      isCaughtUp: true,
      // Not that it is durable is taken for granted, so that the next sync syncs.
      boot: "this",
      tornBytes: 0,
    });
  }

  /** In the place of a log that cannot be read: takes nothing until it is opened anew. */
  static standIn(files: Files, directory: string, failure: unknown): TransactionLog {
    const log = new TransactionLog(files, directory, NO_LOG);
    log.#failure = failure;
    return log;
  }

  private constructor(files: Files, directory: string, recovered: RecoveredLog) {
    this.#files = files;
    this.#directory = directory;
    this.#segments = recovered.segments;
    this.#endOffset = recovered.endOffset;
    this.#state = recovered.state;
    this.#mark = recovered.mark;
    this.isNewBoot = recovered.boot !== "this";
    this.#trust(recovered);
    this.tornBytes = recovered.tornBytes;
    this.txid = recovered.txid;
    this.checksumHi = recovered.checksumHi;
    this.checksumLo = recovered.checksumLo;
  }

  /** A process before this one may have been killed before it synced what is read here. */
  #trust(recovered: RecoveredLog): void {
    const isDurable = recovered.boot === "another";
    this.#dirty = recovered.segments.length > 0 && !isDurable;
    this.#isPlaceDurable = recovered.segments.length > 0 && isDurable;
    this.isCaughtUp = recovered.isCaughtUp;
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
    return countTransactions(this.#segments, this.txid);
  }
  get sizeBytes(): number {
    return countBytes(this.#segments, this.#endOffset);
  }

  /**
   * Everything there is to know of a log that owes nothing: its last record says that the database
   * file has all of it. Otherwise undefined.
   */
  get settled(): SettledLog | undefined {
    const owes = this.#isCutOwed || this.#isStateOwed || this.#stray !== undefined;
    if (owes || this.#failure !== undefined || this.#mark !== undefined) return undefined;
    if (this.#state.durableTxid !== this.txid) return undefined;
    const last = this.#segments.at(-1);
    // A segment that was begun and not used says so in its first record.
    const isUnused = this.#endOffset === STATE_RECORD_SIZE && (last?.firstTxid ?? 0) > this.txid;
    if (last === undefined || !(this.isCaughtUp || isUnused)) return undefined;
    return { segments: this.#segments, ...this.#expectedEnd, state: this.#state };
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
    this.#advance(header, postHi, postLo, endOffset);
  }

  /** Forgets a transaction that was begun or even finished, because its commit was refused. */
  truncateTo(mark: LogMark): void {
    this.#endOffset = mark.endOffset;
    this.txid = mark.txid;
    this.checksumHi = mark.checksumHi;
    this.checksumLo = mark.checksumLo;
    this.#state = mark.state;
    this.#laidSpace.forget();
    // Until the cut is synced a power cut brings back what was refused, or the zeros behind it.
    this.#dirty = true;
    try {
      this.#openLast().truncate(mark.endOffset);
      this.#isCutOwed = false;
    } catch {
      // What was refused may stand there as if it were committed: nothing may follow it.
      this.#isCutOwed = true;
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
    const position = { txid: header.maxTxid, checksumHi: postHi, checksumLo: postLo };
    const endOffset = writeReceived(file, this.#endOffset, position, ltx);
    this.#advance(header, postHi, postLo, endOffset);
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
      this.#seal();
      this.#startSegment(position.txid + 1, position, state, RECORD_KIND.base);
    }
    this.#mark = undefined;
    this.sync();
  }

  /** Notes that the database file is about to be changed outside of any transaction. */
  appendLoose(): void {
    this.#appendMark(RECORD_KIND.loose);
  }

  /**
   * Notes that a rollback journal is about to be used that is not synced before it counts: a power
   * cut may leave a part of it, which would undo what it should not, or nothing of it.
   */
  appendUnsynced(): void {
    if (!this.isLoose) this.#appendMark(RECORD_KIND.unsynced);
  }

  #appendMark(mark: FileMark): void {
    if (this.#mark === mark && !this.#isStateOwed) return;
    this.#appendState(mark, this.#state);
    this.#mark = mark;
    this.sync();
  }

  /**
   * Notes that the database file is complete and durable through a TXID, so that recovery need
   * not apply what comes before. Costs a record, so it is kept in memory until it is worth it. Ends
   * a mark, unless the file stays as unsynced as it was.
   */
  noteDurable(txid: number, when: "now" | "worthwhile", staysUnsynced: boolean = false): void {
    const endsMark = this.isLoose || (this.isUnsynced && !staysUnsynced);
    if (txid < this.#state.durableTxid) return;
    if (txid === this.#state.durableTxid && !endsMark) return;
    this.#state = { ...this.#state, durableTxid: txid };
    if (when === "worthwhile" && !this.needsDurable && !endsMark) return;
    this.#isStateOwed = true;
    this.#staysUnsynced = this.isUnsynced && staysUnsynced;
    try {
      // Not into a new segment: who has taken a mark may still have to go back to it.
      this.#openForAppend(false);
    } catch (error) {
      // It is true all the same, and is written before anything else is.
      if (this.#failure !== undefined) throw error;
    }
  }

  /** Recovery would have to apply so much again that syncing the database file is worth it. */
  get needsDurable(): boolean {
    return this.#bytesSinceDurable >= DURABLE_RECORD_EVERY_BYTES;
  }

  /** Everything appended so far survives a power cut when this returns. */
  sync(): void {
    this.#sync("goes-on");
  }

  /** At its end a segment is not given space for more. */
  #sync(segment: "goes-on" | "ends"): void {
    if (!this.#dirty) return;
    if (this.#failure !== undefined) throw this.#failure;
    // Not #openForAppend: a full segment is synced before, and because, it is followed by a new one.
    const file = this.#openLast();
    if (segment === "goes-on") this.#laidSpace.beforeSync(file, this.#endOffset);
    try {
      file.sync();
    } catch (error) {
      this.#rewriteLast(error);
    }
    if (!this.#isPlaceDurable) this.#syncPlace();
    this.#dirty = false;
    this.#wasSynced = true;
  }

  /**
   * Linux reports a failed write-back once and then forgets it: a second sync of the same file
   * proves nothing. What the log should hold goes into a new one, if all of it can still be read.
   */
  #rewriteLast(error: unknown): void {
    const name = this.#segments.at(-1)?.name ?? "";
    try {
      rewriteSegment(this.#files, this.#directory, name, this.#expectedEnd);
    } catch {
      this.#failure = error;
      this.onFailed(error);
      throw error;
    }
    this.#laidSpace.forget();
    this.#closeFile();
    this.onRewritten(name, error);
  }

  /** After a failure: tries once more to bring what is in the log onto the disk. */
  retry(): void {
    if (this.#failure !== undefined && this.#dirty) {
      const name = this.#segments.at(-1)?.name ?? "";
      rewriteSegment(this.#files, this.#directory, name, this.#expectedEnd);
    } else if (this.#isCutOwed) this.#openLast().truncate(this.#endOffset);
    this.reopen(this.#directory);
  }

  get #expectedEnd(): ExpectedEnd {
    const { txid, checksumHi, checksumLo } = this;
    return { txid, checksumHi, checksumLo, endOffset: this.#endOffset };
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
      if (second.firstTxid > this.#state.durableTxid || this.isLoose) break;
      if (second.startTimestampMs >= olderThanMs) break;
      // Recovery must never look for what goes here.
      if (removed === 0) this.#makeStateDurable();
      this.#files.remove(path.join(this.#directory, first.name));
      this.#segments = this.#segments.slice(1);
      removed += second.firstTxid - first.firstTxid;
    }
    return removed;
  }

  /** What is durable is often kept in memory only; see `noteDurable`. */
  #makeStateDurable(): void {
    this.#staysUnsynced = this.isUnsynced;
    this.#isStateOwed = true;
    this.#openForAppend();
    this.sync();
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

  /** Bytes of a segment that hold records; the newest may be longer. */
  recordBytes(segmentPath: string, file: OpenFile): number {
    const isNewest = path.basename(segmentPath) === this.#segments.at(-1)?.name;
    return isNewest ? this.#endOffset : file.size();
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
    this.isNewBoot ||= recovered.boot !== "this";
    this.#trust(recovered);
    this.#failure = undefined;
    this.#isCutOwed = false;
    this.#isStateOwed = false;
    this.#stray = undefined;
    this.#isBootMarked = false;
    this.#wasSynced = false;
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
    if (this.#dirty && !this.isCaughtUp && this.#failure === undefined) this.#sync("ends");
    this.#closeFile();
  }

  #advance(header: LtxHeader, hi: number, lo: number, endOffset: number): void {
    this.#dirty = true;
    this.isCaughtUp = false;
    this.#bytesSinceDurable += endOffset - this.#endOffset;
    this.#endOffset = endOffset;
    this.txid = header.maxTxid;
    this.checksumHi = hi;
    this.checksumLo = lo;
    const { pageSize, commit: pageCount, timestampMs } = header;
    this.#state = { ...this.#state, pageSize, pageCount, timestampMs };
  }

  #appendState(kind: RecordKind, state: LogState): void {
    const file = this.#openForAppend();
    this.#appendRecord(encodeStateRecord(kind, this, state), file);
  }

  #appendRecord(record: Uint8Array, file: OpenFile = this.#openForAppend()): void {
    file.writeAt(record, 0, record.length, this.#endOffset);
    this.#endOffset += record.length;
    this.#dirty = true;
    this.isCaughtUp = false;
  }

  /** What an earlier failure has left is out of the way, or nothing is written. */
  #requireUsable(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#stray !== undefined) this.#removeStray(this.#stray);
  }

  #openForAppend(mayRotate: boolean = true): OpenFile {
    this.#requireUsable();
    const last = this.#segments.at(-1);
    if (last === undefined) {
      const position = { txid: this.txid, hi: this.checksumHi, lo: this.checksumLo };
      this.#startSegment(this.txid + 1, position, this.#state, RECORD_KIND.head);
    } else if (mayRotate && this.#endOffset >= SEGMENT_MAX_BYTES && last.firstTxid <= this.txid) {
      this.#rotate();
    }
    const file = this.#openLast();
    this.#markBoot();
    if (this.#isCutOwed) {
      file.truncate(this.#endOffset);
      this.#isCutOwed = false;
    }
    if (this.#isStateOwed) {
      this.#appendRecord(encodeStateRecord(RECORD_KIND.durable, this, this.#state), file);
      this.#isStateOwed = false;
      this.#bytesSinceDurable = 0;
      if (this.#staysUnsynced) {
        this.#appendRecord(encodeStateRecord(RECORD_KIND.unsynced, this, this.#state), file);
      } else {
        this.#mark = undefined;
        this.isCaughtUp = this.#state.durableTxid === this.txid;
      }
    }
    return file;
  }

  /** Before anything is written that a power cut could take, or the next start would trust it. */
  #markBoot(): void {
    if (this.#isBootMarked) return;
    markBoot(this.#files, this.#directory);
    this.#isBootMarked = true;
  }

  #openLast(): OpenFile {
    if (this.#file === undefined) {
      const name = this.#segments.at(-1)?.name ?? "";
      this.#file = this.#files.open(path.join(this.#directory, name), { create: true });
    }
    assert(this.#file !== undefined, "an open segment");
    return this.#file;
  }

  /** Nothing may stand behind the last record of a segment that is followed by another. */
  #seal(): void {
    this.#requireUsable();
    if (this.#segments.length > 0) {
      const file = this.#openLast();
      this.#laidSpace.forget();
      if (file.size() > this.#endOffset) {
        file.truncate(this.#endOffset);
        this.#dirty = true;
      }
      this.#isCutOwed = false;
      // The process before this one may have cut it, and been killed before it synced that.
      this.#dirty ||= !this.#wasSynced;
    }
    this.#sync("ends");
    this.#closeFile();
  }

  #rotate(): void {
    this.#seal();
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
    const checksums = { txid: position.txid, checksumHi: position.hi, checksumLo: position.lo };
    const record = encodeStateRecord(kind, checksums, state);
    // Only the last segment is read at the start.
    const mark = kind === RECORD_KIND.head ? this.#mark : undefined;
    const repeated =
      mark === undefined ? new Uint8Array(0) : encodeStateRecord(mark, checksums, state);
    const beginning = Buffer.concat([record, repeated]);
    const file = this.#createSegment(name, beginning);
    this.isCaughtUp = false;
    const previous = this.#segments.at(-1);
    if (previous !== undefined) previous.sizeBytes = this.#endOffset;
    const segment = { name, firstTxid, sizeBytes: 0, startTimestampMs: state.timestampMs };
    this.#segments = [...this.#segments.filter((other) => other.name !== name), segment];
    this.#file = file;
    this.#wasSynced = true;
    this.#endOffset = beginning.length;
    this.txid = position.txid;
    this.checksumHi = position.hi;
    this.checksumLo = position.lo;
    this.#state = state;
  }

  #createSegment(name: string, record: Uint8Array): OpenFile {
    this.#files.mkdir(this.#directory);
    this.#markBoot();
    const file = this.#files.open(path.join(this.#directory, name), { create: true });
    assert(file !== undefined, "a created segment");
    try {
      file.truncate(0);
      file.writeAt(record, 0, record.length, 0);
      file.sync();
      if (this.#isPlaceDurable) this.#files.syncDirectory(this.#directory);
      else this.#syncPlace();
      return file;
    } catch (error) {
      file.close();
      // It would be taken for the end of the log, and what goes on in the one before be forgotten.
      this.#stray = name;
      try {
        this.#removeStray(name);
      } catch {
        // Nothing is appended until it is gone.
      }
      throw error;
    }
  }

  #removeStray(name: string): void {
    this.#files.remove(path.join(this.#directory, name));
    this.#files.syncDirectory(this.#directory);
    this.#stray = undefined;
  }

  /** The directories of a new database must survive a power cut as well. */
  #syncPlace(): void {
    const database = path.dirname(this.#directory);
    this.#files.syncDirectory(this.#directory);
    this.#files.syncDirectory(database);
    this.#files.syncDirectory(path.dirname(database));
    this.#isPlaceDurable = true;
  }

  #closeFile(): void {
    if (this.#file === undefined) return;
    // Or a segment that is sealed later could have the zeros again after a power cut.
    if (this.#laidSpace.cut(this.#file, this.#endOffset)) this.#dirty = true;
    this.#file.close();
    this.#file = undefined;
  }
}
