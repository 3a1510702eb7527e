import { assert } from "../lib/assert.ts";
import { Crc64, CHECKSUM_FLAG_HI, halvesToBigint, pageCrc } from "./crc64.ts";
import { pageFrameCombiner, type Crc64Combiner } from "./crc64-combine.ts";
import { DatabaseChecksum, EMPTY_DATABASE_CHECKSUM } from "./database-checksum.ts";
import {
  encodeHeader,
  isChecksum,
  isSnapshot,
  LTX_FLAG_COMPRESSED,
  LTX_HEADER_SIZE,
  LTX_TRAILER_SIZE,
  type LtxHeader,
} from "./header.ts";
import { Lz4FrameEncoder, type ByteSink } from "./lz4-frame-encoder.ts";
import { PageOrder } from "./page-order.ts";
import { encodeTrailer, type LtxTrailer } from "./trailer.ts";

/** What belongs to the file being written. */
interface OpenFile {
  readonly header: LtxHeader;
  readonly order: PageOrder;
  readonly combiner: Crc64Combiner;
  readonly compressed: boolean;
}

/**
 * Writes LTX files: `writeHeader`, any number of `writePage`, `close`, and from the start again
 * for the next file, with the same buffers. Calls out of order and pages against the format's
 * rules are bugs of the caller. The sink's bytes are valid only during its call.
 */
export class LtxEncoder {
  readonly #sink: ByteSink;
  readonly #scratch = new Uint8Array(LTX_HEADER_SIZE);
  readonly #scratchView = new DataView(this.#scratch.buffer);
  readonly #fileCrc = new Crc64();
  readonly #pageCrc = new Crc64();
  readonly #pagesChecksum = new DatabaseChecksum();
  #lz4: Lz4FrameEncoder | undefined;
  #file: OpenFile | undefined;

  constructor(sink: ByteSink) {
    this.#sink = sink;
  }

  writeHeader(header: LtxHeader): void {
    assert(this.#file === undefined, "LTX header written twice");
    encodeHeader(header, this.#scratch, 0);
    this.#fileCrc.reset();
    this.#fileCrc.updateBytes(this.#scratch, 0, LTX_HEADER_SIZE);
    this.#pagesChecksum.reset();
    const compressed = (header.flags & LTX_FLAG_COMPRESSED) !== 0;
    const combiner = pageFrameCombiner(header.pageSize);
    this.#file = { header, order: new PageOrder(header), combiner, compressed };
    this.#sink(this.#scratch);
    if (compressed) {
      this.#lz4 ??= new Lz4FrameEncoder(this.#sink);
      this.#lz4.begin();
    }
  }

  /**
   * Who already has the page's finished CRC without FLAG (`pageCrc`) passes its halves, and the
   * page is not read for it again.
   */
  writePage(pgno: number, page: Uint8Array, crcHi?: number, crcLo?: number): void {
    const file = this.#file;
    assert(file !== undefined, "LTX page written without a header");
    assert(page.length === file.header.pageSize, "LTX page has another size than its header says");
    const objection = file.order.next(pgno);
    assert(objection === undefined, `LTX page out of order: ${objection}`);
    if (crcHi === undefined || crcLo === undefined) {
      pageCrc(this.#pageCrc, pgno, page, 0, page.length);
    } else {
      this.#pageCrc.hi = crcHi;
      this.#pageCrc.lo = crcLo;
    }
    file.combiner.combine(this.#fileCrc, this.#pageCrc.hi, this.#pageCrc.lo);
    this.#pagesChecksum.toggle(this.#pageCrc.hi, this.#pageCrc.lo);
    this.#writePgno(file, pgno);
    this.#writeBody(file, page);
  }

  /**
   * Ends the file. A snapshot's post-apply checksum follows from its pages and may be left out;
   * when it is given, it must agree.
   */
  close(postApplyChecksum: bigint | undefined): LtxTrailer {
    const file = this.#file;
    assert(file !== undefined, "LTX file closed without a header");
    const objection = file.order.end();
    assert(objection === undefined, `LTX file is incomplete: ${objection}`);
    const postApply = postApplyChecksum ?? this.#pagesChecksum.toBigint();
    this.#checkPostApply(file.header, postApplyChecksum);
    this.#writePgno(file, 0);
    if (file.compressed) this.#lz4?.end();
    const trailer = { postApplyChecksum: postApply, fileChecksum: this.#finishFileCrc(postApply) };
    encodeTrailer(trailer, this.#scratch, 0);
    this.#file = undefined;
    this.#sink(this.#scratch.subarray(0, LTX_TRAILER_SIZE));
    return trailer;
  }

  /** Forgets an unfinished file, after an error for example. */
  abandon(): void {
    this.#file = undefined;
  }

  #checkPostApply(header: LtxHeader, given: bigint | undefined): void {
    if (isSnapshot(header)) {
      const agrees = given === undefined || given === this.#pagesChecksum.toBigint();
      assert(agrees, "LTX snapshot does not have the checksum it should");
      return;
    }
    assert(given !== undefined && isChecksum(given), "LTX file needs a post-apply checksum");
    if (header.commit === 0) {
      assert(given === EMPTY_DATABASE_CHECKSUM, "LTX deletion must leave an empty database");
    }
  }

  #finishFileCrc(postApply: bigint): bigint {
    this.#fileCrc.updateU32BE(0);
    this.#scratchView.setBigUint64(0, postApply);
    this.#fileCrc.updateBytes(this.#scratch, 0, 8);
    this.#fileCrc.finish();
    return halvesToBigint(this.#fileCrc.hi | CHECKSUM_FLAG_HI, this.#fileCrc.lo);
  }

  #writePgno(file: OpenFile, pgno: number): void {
    this.#scratchView.setUint32(0, pgno);
    this.#writeBody(file, this.#scratch.subarray(0, 4));
  }

  #writeBody(file: OpenFile, bytes: Uint8Array): void {
    if (file.compressed) this.#lz4?.write(bytes);
    else this.#sink(bytes);
  }
}
