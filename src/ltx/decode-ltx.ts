import { LtxDecoder, type LtxSummary } from "./decoder.ts";
import type { LtxPage } from "./encode-ltx.ts";

export interface DecodedLtx extends LtxSummary {
  readonly pages: readonly LtxPage[];
}

/**
 * Decodes and verifies a whole LTX file in memory, for small ones. Uncompressed pages are views of
 * `bytes`, not copies.
 */
export function decodeLtx(bytes: Uint8Array): DecodedLtx {
  const pages: LtxPage[] = [];
  const decoder = new LtxDecoder({
    onPage: (pgno, data) => {
      pages.push({ pgno, data: data.buffer === bytes.buffer ? data : data.slice() });
    },
  });
  decoder.push(bytes);
  return { ...decoder.end(), pages };
}
