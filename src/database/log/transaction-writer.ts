import { CHECKSUM_FLAG_HI, Crc64 } from "../../ltx/crc64.ts";
import { pageFrameCombiner } from "../../ltx/crc64-combine.ts";
import type { Crc64Combiner } from "../../ltx/crc64-combine.ts";
import { encodeHeader, LTX_HEADER_SIZE, LTX_TRAILER_SIZE } from "../../ltx/header.ts";
import type { LtxHeader } from "../../ltx/header.ts";
import type { OpenFile } from "../files.ts";
import { encodeRecordHeader, RECORD_HEADER_SIZE, RECORD_KIND } from "./record.ts";

const BUFFER_BYTES = 1024 * 1024;
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
