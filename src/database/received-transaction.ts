import { bigintHi, bigintLo } from "../ltx/crc64.ts";
import { LtxDecoder } from "../ltx/decoder.ts";
import type { LtxSummary } from "../ltx/decoder.ts";
import { LTX_FLAG_COMPRESSED, LTX_HEADER_SIZE } from "../ltx/header.ts";
import type { LtxHeader } from "../ltx/header.ts";
import type { OpenFile } from "./files.ts";
import { readLtxFile } from "./ltx-to-file.ts";
import type { LtxBytes } from "./log/received-record.ts";

const PIECE_BYTES = 1024 * 1024;
/** In front of each page of an LTX file. */
const PGNO_BYTES = 4;

/**
 * A transaction from the primary, checked from its first byte to its last. Its pages are in memory,
 * or, of a large one, in a file that is read again for each use.
 */
export interface ReceivedTransaction {
  readonly header: LtxHeader;
  readonly postHi: number;
  readonly postLo: number;
  readonly pgnos: readonly number[];
  /** Checksums with FLAG: hi and lo alternating. */
  readonly checksums: readonly number[];
  readonly bytes: LtxBytes;
  /** Of a transaction that another node has forwarded: whether it may still write. */
  readonly isPermitted?: () => boolean;
  /**
   * Called when it is in the log, before readers see it. `readersWait`: whoever begins to read now waits
   * until he sees it.
   */
  readonly onLogged?: (readersWait: boolean) => void;
  /** Visits the pages in ascending order; `page` is valid only during the call. */
  readonly eachPage: (visit: (pgno: number, page: Uint8Array) => void) => void;
}

/** Throws a FormatError unless the bytes are one whole, valid LTX file. They must stay as they are. */
export function decodeReceived(ltx: Uint8Array): ReceivedTransaction {
  const pgnos: number[] = [];
  const checksums: number[] = [];
  let unpacked: PageBuffer | undefined;
  const decoder = new LtxDecoder({
    onHeader({ flags }) {
      if ((flags & LTX_FLAG_COMPRESSED) !== 0) unpacked = new PageBuffer(ltx.length);
    },
    onPage(pgno, data, hi, lo) {
      unpacked?.add(data);
      pgnos.push(pgno);
      checksums.push(hi, lo);
    },
  });
  decoder.push(ltx);
  const summary = decoder.end();
  const { pageSize } = summary.header;
  // Pages that are not compressed stay where they are. To copy those of each transaction, into 64 KiB
  // at least, kept the garbage collector of a replica busier than all of the rest.
  const [bytes, first, distance] =
    unpacked === undefined
      ? [ltx, LTX_HEADER_SIZE + PGNO_BYTES, PGNO_BYTES + pageSize]
      : [unpacked.bytes, 0, pageSize];
  return {
    ...fieldsOf(summary),
    pgnos,
    checksums,
    bytes: { lengthBytes: ltx.length, pieces: () => [ltx] },
    eachPage: (visit) => {
      for (const [i, pgno] of pgnos.entries()) {
        const at = first + i * distance;
        visit(pgno, bytes.subarray(at, at + pageSize));
      }
    },
  };
}

/** Pages one behind the other, in memory that grows. */
class PageBuffer {
  bytes: Uint8Array;
  #used = 0;

  constructor(sizeBytes: number) {
    this.bytes = new Uint8Array(sizeBytes);
  }

  add(page: Uint8Array): void {
    const end = this.#used + page.length;
    if (end > this.bytes.length) {
      const grown = new Uint8Array(Math.max(this.bytes.length * 2, end));
      grown.set(this.bytes);
      this.bytes = grown;
    }
    this.bytes.set(page, this.#used);
    this.#used = end;
  }
}

/** The same for a file, which must stay open and unchanged; only page numbers are kept of it. */
export function openReceived(file: OpenFile): ReceivedTransaction {
  const pgnos: number[] = [];
  const checksums: number[] = [];
  const lengthBytes = file.size();
  const summary = readLtxFile(file, 0, lengthBytes, (pgno, _data, hi, lo) => {
    pgnos.push(pgno);
    checksums.push(hi, lo);
  });
  return {
    ...fieldsOf(summary),
    pgnos,
    checksums,
    bytes: { lengthBytes, pieces: () => piecesOf(file, lengthBytes) },
    eachPage: (visit) => {
      readLtxFile(file, 0, lengthBytes, visit);
    },
  };
}

function fieldsOf({ header, trailer }: LtxSummary): {
  header: LtxHeader;
  postHi: number;
  postLo: number;
} {
  return {
    header,
    postHi: bigintHi(trailer.postApplyChecksum),
    postLo: bigintLo(trailer.postApplyChecksum),
  };
}

function* piecesOf(file: OpenFile, lengthBytes: number): Generator<Uint8Array> {
  const piece = new Uint8Array(PIECE_BYTES);
  for (let done = 0; done < lengthBytes;) {
    const count = file.readAt(piece, 0, Math.min(PIECE_BYTES, lengthBytes - done), done);
    if (count === 0) return;
    yield piece.subarray(0, count);
    done += count;
  }
}
