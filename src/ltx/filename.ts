import { formatTxid } from "../lib/position.ts";

export interface TxidRange {
  readonly minTxid: number;
  readonly maxTxid: number;
}

/** `<min>-<max>.ltx`, 16 lower-case hex digits each: names sort in the order of transactions. */
export function formatLtxFilename(minTxid: number, maxTxid: number): string {
  return `${formatTxid(minTxid)}-${formatTxid(maxTxid)}.ltx`;
}

/** The reverse of formatLtxFilename; undefined when the name is not that of an LTX file. */
export function parseLtxFilename(name: string): TxidRange | undefined {
  const match = /^([0-9a-f]{16})-([0-9a-f]{16})\.ltx$/.exec(name);
  if (match === null) return undefined;
  const minTxid = Number(BigInt(`0x${match[1]}`));
  const maxTxid = Number(BigInt(`0x${match[2]}`));
  if (!Number.isSafeInteger(maxTxid) || minTxid < 1 || minTxid > maxTxid) return undefined;
  return { minTxid, maxTxid };
}
