import { bigintHi, bigintLo } from "../ltx/crc64.ts";
import { LtxDecoder } from "../ltx/decoder.ts";
import type { LtxSummary } from "../ltx/decoder.ts";
import type { LtxHeader } from "../ltx/header.ts";
import type { OpenFile } from "./files.ts";
import { readLtxFile } from "./ltx-to-file.ts";
import type { LtxBytes } from "./log/transaction-log.ts";

const PIECE_BYTES = 1024 * 1024;

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
  /** Called when it is in the log, before readers see it. */
  readonly onLogged?: () => void;
  /** Visits the pages in ascending order; `page` is valid only during the call. */
  readonly eachPage: (visit: (pgno: number, page: Uint8Array) => void) => void;
}

/** Throws a FormatError unless the bytes are one whole, valid LTX file. */
export function decodeReceived(ltx: Uint8Array): ReceivedTransaction {
  const pgnos: number[] = [];
  const checksums: number[] = [];
  let pages = new Uint8Array(Math.max(65536, ltx.length));
  let used = 0;
  const decoder = new LtxDecoder({
    onPage(pgno, data, hi, lo) {
      if (used + data.length > pages.length) {
        const grown = new Uint8Array(pages.length * 2);
        grown.set(pages);
        pages = grown;
      }
      pages.set(data, used);
      used += data.length;
      pgnos.push(pgno);
      checksums.push(hi, lo);
    },
  });
  decoder.push(ltx);
  const summary = decoder.end();
  const { pageSize } = summary.header;
  return {
    ...fieldsOf(summary),
    pgnos,
    checksums,
    bytes: { lengthBytes: ltx.length, pieces: () => [ltx] },
    eachPage: (visit) => {
      for (const [i, pgno] of pgnos.entries()) {
        visit(pgno, pages.subarray(i * pageSize, (i + 1) * pageSize));
      }
    },
  };
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
