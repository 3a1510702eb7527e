/**
 * Where a database stands: the number of its last transaction and the checksum of all its pages
 * after it. TXIDs are numbers here (2^53 transactions at 10,000/s last 28,000 years); checksums
 * are opaque 64-bit values and therefore bigints. {0, 0n} is a database that was never written.
 */
export interface Position {
  readonly txid: number;
  readonly checksum: bigint;
}

export const ZERO_POSITION: Position = { txid: 0, checksum: 0n };

/** Set in every page and database checksum, so that a valid one is never zero. */
export const CHECKSUM_FLAG = 0x8000000000000000n;

/** 16 lower-case hex digits. */
export function formatTxid(txid: number): string {
  return txid.toString(16).padStart(16, "0");
}

/** 16 lower-case hex digits. */
export function formatChecksum(checksum: bigint): string {
  return checksum.toString(16).padStart(16, "0");
}

/** `<txid>/<checksum>`, 33 characters, as in `<db>-pos`. */
export function formatPosition(position: Position): string {
  return `${formatTxid(position.txid)}/${formatChecksum(position.checksum)}`;
}

/** The reverse of formatPosition; undefined when the text is not a position. */
export function parsePosition(text: string): Position | undefined {
  const match = /^([0-9a-fA-F]{16})\/([0-9a-fA-F]{16})$/.exec(text);
  if (match === null) return undefined;
  const txid = Number(BigInt(`0x${match[1]}`));
  if (!Number.isSafeInteger(txid)) return undefined;
  return { txid, checksum: BigInt(`0x${match[2]}`) };
}

export function positionsEqual(a: Position, b: Position): boolean {
  return a.txid === b.txid && a.checksum === b.checksum;
}
