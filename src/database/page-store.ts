import { Crc64, pageChecksum } from "../ltx/crc64.ts";
import { FRAME_HEADER_SIZE, frameOffset } from "../sqlite/wal.ts";
import { lockPgno } from "../sqlite/locks.ts";
import type { DatabaseFiles } from "./database-files.ts";
import { PageChecksums } from "./page-checksums.ts";
import type { Snapshot } from "./snapshot.ts";
import { WalFrames } from "./wal-frames.ts";

const crc = new Crc64();
/** Pages pass through here one at a time when only their checksum is wanted. */
const scratch = new Uint8Array(65536);

/**
 * The committed pages of one database, wherever they are: the newest frame in the local WAL, or
 * else the database file. What an open transaction has written is not visible here.
 */
export class PageStore {
  files: DatabaseFiles;
  readonly frames: WalFrames = new WalFrames();
  readonly checksums: PageChecksums = new PageChecksums();
  #snapshots: Set<Snapshot> | undefined;
  /** Bytes per page; 0 while the database has never been written. */
  pageSize = 0;
  /** Committed size in pages. */
  pageCount = 0;

  constructor(files: DatabaseFiles) {
    this.files = files;
  }

  /** Copies that are being read, and must be told of pages that change. */
  get snapshots(): Set<Snapshot> {
    this.#snapshots ??= new Set<Snapshot>();
    return this.#snapshots;
  }

  get hasSnapshots(): boolean {
    return this.#snapshots !== undefined && this.#snapshots.size > 0;
  }

  /** Gives back what nobody needs while nobody has the database open. */
  rest(): void {
    this.frames.rest();
    if (!this.hasSnapshots) this.#snapshots = undefined;
  }

  get lockPgno(): number {
    return lockPgno(this.pageSize);
  }

  /** Copies the committed version of a page; zeros where the files end before it. */
  readPage(pgno: number, out: Uint8Array, at: number): void {
    const frame = this.frames.newest(pgno);
    const count =
      frame >= 0 ? this.#readFrame(frame, out, at) : this.readDatabasePage(pgno, out, at);
    if (count < this.pageSize) out.fill(0, at + count, at + this.pageSize);
  }

  readDatabasePage(pgno: number, out: Uint8Array, at: number): number {
    const file = this.files.get("database");
    return file?.readAt(out, at, this.pageSize, (pgno - 1) * this.pageSize) ?? 0;
  }

  readFrame(frameIndex: number, out: Uint8Array, at: number): void {
    this.#readFrame(frameIndex, out, at);
  }

  #readFrame(frameIndex: number, out: Uint8Array, at: number): number {
    const file = this.files.get("wal");
    const offset = frameOffset(frameIndex, this.pageSize) + FRAME_HEADER_SIZE;
    return file?.readAt(out, at, this.pageSize, offset) ?? 0;
  }

  /** Leaves the checksum of a committed page in `checksums.hi/lo`. */
  loadChecksum(pgno: number): void {
    if (this.checksums.get(pgno)) return;
    this.readPage(pgno, scratch, 0);
    pageChecksum(crc, pgno, scratch, 0, this.pageSize);
    this.checksums.set(pgno, crc.hi, crc.lo);
    this.checksums.hi = crc.hi;
    this.checksums.lo = crc.lo;
  }

  /** Must be called before the committed version of a page becomes unreachable. */
  preserve(pgno: number): void {
    if (!this.hasSnapshots) return;
    for (const snapshot of this.snapshots) {
      try {
        snapshot.preserve(pgno, this);
      } catch {
        // There is no room for the copy. Its reader is told, and the commit goes on.
        snapshot.abandon();
        this.snapshots.delete(snapshot);
      }
    }
  }

  /** The same for all pages that a smaller database loses. */
  preserveBeyond(pageCount: number): void {
    if (!this.hasSnapshots) return;
    for (let pgno = pageCount + 1; pgno <= this.pageCount; pgno++) this.preserve(pgno);
  }

  /** XOR of the checksums of the pages that a smaller database loses. */
  checksumBeyond(pageCount: number): { hi: number; lo: number } {
    let hi = 0;
    let lo = 0;
    for (let pgno = pageCount + 1; pgno <= this.pageCount; pgno++) {
      if (pgno === this.lockPgno) continue;
      this.loadChecksum(pgno);
      hi ^= this.checksums.hi;
      lo ^= this.checksums.lo;
    }
    return { hi, lo };
  }

  /** The committed state is no longer what running snapshots began with. */
  abandonSnapshots(): void {
    if (!this.hasSnapshots) return;
    for (const snapshot of this.snapshots) snapshot.abandon();
    this.snapshots.clear();
  }

  /**
   * Copies what the database file lacks out of the WAL, so that the WAL may go. Returns the pages of
   * the file that are others than before.
   */
  writeBack(): readonly number[] {
    const { unwritten } = this.frames;
    if (this.pageCount === 0) return [];
    const file = this.files.getOrCreate("database");
    const written: number[] = [];
    for (const pgno of [...unwritten].sort((a, b) => a - b)) {
      if (pgno <= this.pageCount) {
        this.readPage(pgno, scratch, 0);
        file.writeAt(scratch, 0, this.pageSize, (pgno - 1) * this.pageSize);
        written.push(pgno);
      }
      unwritten.delete(pgno);
    }
    // It may have grown over pages that nobody has written, at its end as well.
    const sizeBytes = this.pageCount * this.pageSize;
    const oldSizeBytes = file.size();
    if (oldSizeBytes < sizeBytes) written.push(this.pageCount);
    if (oldSizeBytes !== sizeBytes) file.truncate(sizeBytes);
    return written;
  }
}
