import type { LtxPage } from "../../../src/ltx/encode-ltx.ts";
import type { LtxHeader } from "../../../src/ltx/header.ts";

/** The golden file of two 512-byte pages that the LTX library of LiteFS encodes. */
export const GOLDEN_HEADER: LtxHeader = {
  flags: 1,
  pageSize: 512,
  commit: 2,
  minTxid: 1,
  maxTxid: 1,
  timestampMs: 1700000000000,
  preApplyChecksum: 0n,
  walOffset: 0,
  walSize: 0,
  walSalt1: 0,
  walSalt2: 0,
  nodeId: 0x1122334455667788n,
};

export const GOLDEN_POST_APPLY = 0xf69973e236246b07n;

export function goldenPages(): LtxPage[] {
  const first = new Uint8Array(512);
  first.set(new TextEncoder().encode("SQLite format 3\0"));
  return [
    { pgno: 1, data: first },
    { pgno: 2, data: new Uint8Array(512).fill(0xab) },
  ];
}

/** The header of an ordinary transaction. */
export function incremental(change: Partial<LtxHeader> = {}): LtxHeader {
  const preApplyChecksum = 0x8000000000001234n;
  return { ...GOLDEN_HEADER, flags: 0, minTxid: 7, maxTxid: 7, preApplyChecksum, ...change };
}

export function hex(text: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(text.replaceAll(/\s/g, ""), "hex"));
}
