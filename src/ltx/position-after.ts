import { FormatError } from "../lib/errors.ts";
import type { Position } from "../lib/position.ts";
import { decodeHeader, LTX_HEADER_SIZE, LTX_TRAILER_SIZE } from "./header.ts";
import { decodeTrailer } from "./trailer.ts";

/**
 * Where a database stands after an LTX file, as its header and its trailer say; undefined when there
 * are none. Nothing in between is looked at.
 */
export function positionAfter(ltx: Uint8Array): Position | undefined {
  if (ltx.length < LTX_HEADER_SIZE + LTX_TRAILER_SIZE) return undefined;
  try {
    const { maxTxid: txid } = decodeHeader(ltx, 0);
    const { postApplyChecksum: checksum } = decodeTrailer(ltx, ltx.length - LTX_TRAILER_SIZE);
    return { txid, checksum };
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}
