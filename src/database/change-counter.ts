import { readUint32BE, writeUint32BE } from "../sqlite/uint.ts";

/**
 * The change counter of a database in a rollback mode, by which a connection tells whether the pages
 * it has cached still hold: offset 24 of page 1, and at offset 92 the counter at which the size in the
 * header was stored (SQLite file format, 1.3). Within one history SQLite counts it up. Two things
 * break that, and then a connection takes wrong pages for right ones and writes them back:
 *
 * - A history that forks. A primary is deposed, or a power cut takes what it has not synced, with
 *   transactions that others have seen; the history that goes on counts up from the same place. So its
 *   first transaction jumps, further than any history is likely to have come.
 * - `locking_mode=EXCLUSIVE`. SQLite counts the first transaction only, since nobody else could look;
 *   but on replicas they look after each. So each counts.
 */
export const COUNTER_OFFSET = 24;
export const SIZE_COUNTER_OFFSET = 92;

/** Within one history the counter of two neighbouring transactions differs by less, by far. */
const MAX_STEP = 1 << 20;
const MIN_JUMP = 1 << 24;

/** What the counter must be after a transaction; undefined when what SQLite wrote will do. */
export function counterAfter(
  before: number,
  written: number,
  jump: number | undefined,
): number | undefined {
  if (jump !== undefined) return (before + jump) >>> 0;
  const step = (written - before) >>> 0;
  return step > 0 && step <= MAX_STEP ? undefined : (before + 1) >>> 0;
}

/** Of two nodes, or of one at two times, most probably not the same. */
export function jumpOf(nodeId: bigint, nowMs: number): number {
  let hash = 0;
  // Neighbouring times must come to lie far apart, and nodes must not share a sequence.
  for (const part of [Number(nodeId & 0xffffffffn), Number(nodeId >> 32n), nowMs]) {
    hash = Math.imul(hash ^ (part | 0), 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return MIN_JUMP + (hash >>> 2);
}

/** Replaces the counter in page 1, and the size's if that is of the same transaction. */
export function setCounter(page: Uint8Array, counter: number): void {
  const written = readUint32BE(page, COUNTER_OFFSET);
  if (readUint32BE(page, SIZE_COUNTER_OFFSET) === written) {
    writeUint32BE(page, SIZE_COUNTER_OFFSET, counter);
  }
  writeUint32BE(page, COUNTER_OFFSET, counter);
}
