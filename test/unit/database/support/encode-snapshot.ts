import { encodeLtx } from "../../../../src/ltx/encode-ltx.ts";
import { contentChecksum } from "./harness.ts";
import type { Content } from "./mini-pager.ts";

/** A snapshot of a content as a primary sends it. */
export function encodeSnapshot(of: Content, pageSize: number, txid: number): Uint8Array {
  const header = {
    flags: 0,
    pageSize,
    commit: of.pageCount,
    minTxid: 1,
    maxTxid: txid,
    timestampMs: 1_700_000_000_000,
    preApplyChecksum: 0n,
    walOffset: 0,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: 1n,
  };
  const pages = Array.from({ length: of.pageCount }, (_, i) => ({
    pgno: i + 1,
    data: of.page(i + 1, pageSize),
  }));
  return encodeLtx(header, pages, contentChecksum(of, pageSize));
}
