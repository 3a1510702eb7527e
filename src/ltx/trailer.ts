import { FormatError } from "../lib/errors.ts";
import { isChecksum, LTX_TRAILER_SIZE } from "./header.ts";

/*
 * LTX trailer, big-endian, never compressed:
 *   off size field
 *     0    8 postApplyChecksum   of the database after the transaction
 *     8    8 fileChecksum        FLAG | CRC of everything before it, pages uncompressed
 */
export interface LtxTrailer {
  readonly postApplyChecksum: bigint;
  readonly fileChecksum: bigint;
}

export function encodeTrailer(trailer: LtxTrailer, out: Uint8Array, offset: number): void {
  const view = new DataView(out.buffer, out.byteOffset + offset, LTX_TRAILER_SIZE);
  view.setBigUint64(0, trailer.postApplyChecksum);
  view.setBigUint64(8, trailer.fileChecksum);
}

/** Reads the 16 bytes at `offset`, which must exist. */
export function decodeTrailer(bytes: Uint8Array, offset: number): LtxTrailer {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, LTX_TRAILER_SIZE);
  const postApplyChecksum = view.getBigUint64(0);
  const fileChecksum = view.getBigUint64(8);
  if (!isChecksum(postApplyChecksum)) throw invalid("post-apply");
  if (!isChecksum(fileChecksum)) throw invalid("file");
  return { postApplyChecksum, fileChecksum };
}

function invalid(which: string): FormatError {
  return new FormatError(
    "LTX_INVALID",
    `LTX file has an invalid trailer: its ${which} checksum lacks the flag bit`,
  );
}
