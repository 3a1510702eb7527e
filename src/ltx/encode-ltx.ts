import { LtxEncoder } from "./encoder.ts";
import type { LtxHeader } from "./header.ts";

export interface LtxPage {
  readonly pgno: number;
  readonly data: Uint8Array;
}

/** A whole LTX file in memory, for small ones. See `LtxEncoder.close` for the checksum. */
export function encodeLtx(
  header: LtxHeader,
  pages: Iterable<LtxPage>,
  postApplyChecksum: bigint | undefined,
): Uint8Array {
  const chunks: Uint8Array[] = [];
  const encoder = new LtxEncoder((bytes) => chunks.push(bytes.slice()));
  encoder.writeHeader(header);
  for (const { pgno, data } of pages) encoder.writePage(pgno, data);
  encoder.close(postApplyChecksum);
  return new Uint8Array(Buffer.concat(chunks));
}
