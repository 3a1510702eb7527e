import { assert } from "../lib/assert.ts";
import { FormatError } from "../lib/errors.ts";
import { Crc64, CHECKSUM_FLAG_HI, halvesToBigint, pageCrc } from "./crc64.ts";
import { pageFrameCombiner, type Crc64Combiner } from "./crc64-combine.ts";
import { DatabaseChecksum, EMPTY_DATABASE_CHECKSUM } from "./database-checksum.ts";
import {
  decodeHeader,
  isSnapshot,
  LTX_FLAG_COMPRESSED,
  LTX_HEADER_SIZE,
  LTX_TRAILER_SIZE,
  type LtxHeader,
} from "./header.ts";
import { LayoutHint } from "./layout-hint.ts";
import { Lz4FrameDecoder } from "./lz4-frame-decoder.ts";
import { PageOrder } from "./page-order.ts";
import { decodeTrailer, type LtxTrailer } from "./trailer.ts";

export interface LtxDecoderHandlers {
  readonly onHeader?: (header: LtxHeader) => void;
  /** `data` is valid only during the call. The halves are the page checksum, with FLAG. */
  readonly onPage?: (
    pgno: number,
    data: Uint8Array,
    checksumHi: number,
    checksumLo: number,
  ) => void;
  readonly onTrailer?: (trailer: LtxTrailer) => void;
}

export interface LtxSummary {
  readonly header: LtxHeader;
  readonly trailer: LtxTrailer;
  readonly pageCount: number;
  /** FLAG | XOR of the checksums of the pages in the file; for a snapshot, the database's. */
  readonly pagesChecksum: bigint;
}

/** What belongs to the page block, once the header is known. */
interface Body {
  readonly header: LtxHeader;
  readonly order: PageOrder;
  readonly combiner: Crc64Combiner;
  readonly lz4: Lz4FrameDecoder | undefined;
  readonly hint: LayoutHint | undefined;
}

type State = "header" | "pages" | "pages-end" | "trailer" | "done" | "failed";

/**
 * Reads an LTX file pushed in any portions, in bounded memory, and checks all that the format
 * promises: pages out of order or out of bounds, missing pages of a snapshot and stray bytes are
 * found, too, which LiteFS lets pass.
 *
 * The file checksum comes last. Until `end` has returned, nothing that a handler got may be
 * trusted; apply from a verified copy, or keep what was there.
 */
export class LtxDecoder {
  readonly #handlers: LtxDecoderHandlers;
  readonly #fileCrc = new Crc64();
  readonly #pageCrc = new Crc64();
  readonly #pagesChecksum = new DatabaseChecksum();
  #state: State = "header";
  /** The piece being gathered when a push ends inside it: header, page frame or trailer. */
  #piece = new Uint8Array(LTX_HEADER_SIZE);
  #pieceBytes = 0;
  #body: Body | undefined;
  #trailer: LtxTrailer | undefined;
  #pageCount = 0;

  constructor(handlers: LtxDecoderHandlers) {
    this.#handlers = handlers;
  }

  push(chunk: Uint8Array): void {
    this.#guarded(() => {
      let at = 0;
      if (this.#state === "header") at = this.#pushHeader(chunk);
      if (this.#state === "pages" || this.#state === "pages-end") at = this.#pushBody(chunk, at);
      if (this.#state === "trailer") at = this.#pushTrailer(chunk, at);
      if (at < chunk.length) throw invalid("bytes follow its trailer");
    });
  }

  /** Must be called after the last push: only here is the file known to be complete. */
  end(): LtxSummary {
    return this.#guarded(() => {
      const body = this.#body;
      if (this.#state !== "done" || body === undefined || this.#trailer === undefined) {
        const place = body === undefined ? "header" : this.#placeInBody();
        throw new FormatError("LTX_TRUNCATED", `LTX file ends inside its ${place}`);
      }
      return {
        header: body.header,
        trailer: this.#trailer,
        pageCount: this.#pageCount,
        pagesChecksum: this.#pagesChecksum.toBigint(),
      };
    });
  }

  #placeInBody(): string {
    return this.#state === "trailer" ? "trailer" : `pages, after ${this.#pageCount} whole ones`;
  }

  /** After any error the decoder is dead: what follows would be read at the wrong place. */
  #guarded<T>(step: () => T): T {
    assert(this.#state !== "failed", "LTX decoder used after it failed");
    try {
      return step();
    } catch (error) {
      this.#state = "failed";
      if (error instanceof FormatError) throw this.#body?.hint?.explain(error) ?? error;
      throw error;
    }
  }

  #pushHeader(chunk: Uint8Array): number {
    const at = this.#gather(chunk, 0, LTX_HEADER_SIZE);
    if (this.#pieceBytes < LTX_HEADER_SIZE) return at;
    this.#pieceBytes = 0;
    const header = decodeHeader(this.#piece, 0);
    this.#fileCrc.updateBytes(this.#piece, 0, LTX_HEADER_SIZE);
    const compressed = (header.flags & LTX_FLAG_COMPRESSED) !== 0;
    this.#body = {
      header,
      order: new PageOrder(header),
      combiner: pageFrameCombiner(header.pageSize),
      lz4: compressed ? new Lz4FrameDecoder((bytes) => this.#takePages(bytes)) : undefined,
      hint: compressed ? undefined : new LayoutHint(),
    };
    this.#state = "pages";
    this.#handlers.onHeader?.(header);
    return at;
  }

  #pushBody(chunk: Uint8Array, start: number): number {
    const { lz4, hint } = this.#mustBody();
    if (lz4 === undefined) {
      hint?.watch(chunk, start);
      const at = this.#pushPages(chunk, start);
      if (this.#state === "pages-end") this.#state = "trailer";
      return at;
    }
    const at = lz4.push(chunk, start);
    if (lz4.done) {
      if (this.#state !== "pages-end") throw invalid("its pages lack their end mark");
      this.#state = "trailer";
    }
    return at;
  }

  #takePages(bytes: Uint8Array): void {
    if (this.#pushPages(bytes, 0) < bytes.length) throw invalid("bytes follow its last page");
  }

  /** Takes page frames until the chunk or the page block ends. */
  #pushPages(chunk: Uint8Array, start: number): number {
    const frameBytes = 4 + this.#mustBody().header.pageSize;
    let at = start;
    while (at < chunk.length && this.#state === "pages") {
      if (this.#pieceBytes === 0 && chunk.length - at >= frameBytes) {
        at += this.#takeFrame(chunk, at);
        continue;
      }
      at = this.#gather(chunk, at, this.#pieceBytes < 4 ? 4 : frameBytes);
      if (this.#pieceBytes === 4 && readU32(this.#piece, 0) === 0) {
        this.#pieceBytes = 0;
        this.#endPages();
      } else if (this.#pieceBytes === frameBytes) {
        this.#pieceBytes = 0;
        this.#takeFrame(this.#piece, 0);
      }
    }
    return at;
  }

  /** Takes one page frame, or the zero page number that ends them; gives its length. */
  #takeFrame(bytes: Uint8Array, start: number): number {
    const { header, order, combiner } = this.#mustBody();
    const pgno = readU32(bytes, start);
    if (pgno === 0) {
      this.#endPages();
      return 4;
    }
    const objection = order.next(pgno);
    if (objection !== undefined) throw invalid(objection);
    const crc = this.#pageCrc;
    pageCrc(crc, pgno, bytes, start + 4, header.pageSize);
    combiner.combine(this.#fileCrc, crc.hi, crc.lo);
    this.#pagesChecksum.toggle(crc.hi, crc.lo);
    this.#pageCount++;
    const end = start + 4 + header.pageSize;
    this.#handlers.onPage?.(
      pgno,
      bytes.subarray(start + 4, end),
      crc.hi | CHECKSUM_FLAG_HI,
      crc.lo,
    );
    return end - start;
  }

  #endPages(): void {
    const objection = this.#mustBody().order.end();
    if (objection !== undefined) throw invalid(objection);
    this.#fileCrc.updateU32BE(0);
    this.#state = "pages-end";
  }

  #pushTrailer(chunk: Uint8Array, start: number): number {
    const at = this.#gather(chunk, start, LTX_TRAILER_SIZE);
    if (this.#pieceBytes < LTX_TRAILER_SIZE) return at;
    const trailer = decodeTrailer(this.#piece, 0);
    this.#fileCrc.updateBytes(this.#piece, 0, 8);
    this.#fileCrc.finish();
    const computed = halvesToBigint(this.#fileCrc.hi | CHECKSUM_FLAG_HI, this.#fileCrc.lo);
    if (computed !== trailer.fileChecksum) throw mismatch("its file checksum does not match");
    this.#checkPostApply(trailer.postApplyChecksum);
    this.#trailer = trailer;
    this.#state = "done";
    this.#handlers.onTrailer?.(trailer);
    return at;
  }

  #checkPostApply(postApply: bigint): void {
    const { header } = this.#mustBody();
    if (isSnapshot(header) && postApply !== this.#pagesChecksum.toBigint()) {
      throw mismatch("its post-apply checksum is not that of its pages");
    }
    if (header.commit === 0 && postApply !== EMPTY_DATABASE_CHECKSUM) {
      throw mismatch("it deletes the database but has another post-apply checksum");
    }
  }

  /** Moves bytes into the piece until it has `needed`; gives where it stopped. */
  #gather(chunk: Uint8Array, start: number, needed: number): number {
    if (this.#piece.length < needed) {
      const larger = new Uint8Array(needed);
      larger.set(this.#piece.subarray(0, this.#pieceBytes));
      this.#piece = larger;
    }
    const end = Math.min(chunk.length, start + needed - this.#pieceBytes);
    this.#piece.set(chunk.subarray(start, end), this.#pieceBytes);
    this.#pieceBytes += end - start;
    return end;
  }

  #mustBody(): Body {
    assert(this.#body !== undefined, "LTX body read before its header");
    return this.#body;
  }
}

function readU32(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
  );
}

function invalid(what: string): FormatError {
  return new FormatError("LTX_INVALID", `LTX file is invalid: ${what}`);
}

function mismatch(what: string): FormatError {
  return new FormatError("LTX_CHECKSUM_MISMATCH", `LTX file is damaged: ${what}`);
}
