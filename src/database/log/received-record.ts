import type { OpenFile } from "../files.ts";
import { encodeRecordHeader, RECORD_HEADER_SIZE, RECORD_KIND } from "./record.ts";

/** The bytes of an LTX file, wherever they are. */
export interface LtxBytes {
  readonly lengthBytes: number;
  pieces(): Iterable<Uint8Array>;
}

/** Up to here copying a transaction is cheaper than a second system call. */
const ONE_WRITE_MAX_BYTES = 64 * 1024;
/** One for all logs of the thread. */
const buffer = new Uint8Array(ONE_WRITE_MAX_BYTES);
const bufferView = new DataView(buffer.buffer);

/** Writes a whole LTX file as one record. Returns the offset after it. */
export function writeReceived(
  file: OpenFile,
  offset: number,
  position: { txid: number; checksumHi: number; checksumLo: number },
  ltx: LtxBytes,
): number {
  const payloadLength = ltx.lengthBytes;
  const kind = RECORD_KIND.transaction;
  const endOffset = offset + RECORD_HEADER_SIZE + payloadLength;
  const isSmall = RECORD_HEADER_SIZE + payloadLength <= ONE_WRITE_MAX_BYTES;
  let at = RECORD_HEADER_SIZE;
  for (const piece of ltx.pieces()) {
    if (isSmall) buffer.set(piece, at);
    else file.writeAt(piece, 0, piece.length, offset + at);
    at += piece.length;
  }
  // The header comes last: until it is there the record does not exist.
  encodeRecordHeader({ kind, payloadLength, ...position }, buffer, bufferView, 0);
  file.writeAt(buffer, 0, isSmall ? at : RECORD_HEADER_SIZE, offset);
  return endOffset;
}
