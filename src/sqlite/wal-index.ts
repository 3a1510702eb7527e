import { assert } from "../lib/assert.ts";
import { WAL_INDEX_PREFIX_SIZE } from "./wal-index-header.ts";

/**
 * `-shm` after its header: 32 KiB blocks that say which page each WAL frame holds.
 *
 * | block | page numbers (u32)        | hash table (8192 × u16)| frames (from 1)           |
 * |-------|---------------------------|------------------------|---------------------------|
 * | 0     | 4062 from byte 136        | byte 16384             | 1-4062                    |
 * | n     | 4096 from byte 0          | byte 16384             | 4063+(n-1)·4096 and on    |
 *
 * A slot holds the place of a frame in its block, from 1; 0 is free. A page is looked up from slot
 * pgno·383 mod 8192 on until a free slot.
 */
export const WAL_INDEX_BLOCK_SIZE: number = 32768;
export const HASHTABLE_NPAGE: number = 4096;
export const HASHTABLE_NPAGE_ONE: number = HASHTABLE_NPAGE - WAL_INDEX_PREFIX_SIZE / 4;
export const HASHTABLE_NSLOT: number = 8192;
export const HASHTABLE_HASH_1: number = 383;
export const HASHTABLE_OFFSET: number = HASHTABLE_NPAGE * 4;

/** The part of a block that others must be told about. */
export interface DirtyBlock {
  readonly block: number;
  /** Page numbers, as bytes from the start of the block; end exclusive. */
  readonly pgnoStart: number;
  readonly pgnoEnd: number;
  /** Changed hash slots in ascending order; undefined stands for the whole table. */
  readonly hashSlots: Uint16Array | undefined;
}

/** Bytes from the start of a block, end exclusive. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

interface Block {
  readonly bytes: Uint8Array;
  readonly pgnos: Uint32Array;
  readonly slots: Uint16Array;
}

/** A list of more slots costs more to push than the 16 KiB table. */
const MAX_LISTED_SLOTS = 512;

/**
 * The blocks of one WAL as SQLite would have built them (walIndexAppend), in memory. Holds nothing
 * while the WAL is empty. The first 136 bytes of block 0 belong to the caller and are zero in a new
 * block.
 */
export class WalIndexBlocks {
  #blocks: Block[] = [];
  #frameCount = 0;

  get frameCount(): number {
    return this.#frameCount;
  }

  get blockCount(): number {
    return this.#blocks.length;
  }

  /** A live view of 32 KiB. */
  block(index: number): Uint8Array {
    return this.#at(index).bytes;
  }

  append(pgno: number): void {
    assert(pgno >= 1 && pgno <= 0xffffffff, `invalid page number ${pgno} for the wal-index`);
    const frame = this.#frameCount + 1;
    const index = blockOfFrame(frame);
    if (index === this.#blocks.length) this.#blocks.push(newBlock(index));
    const { pgnos, slots } = this.#at(index);
    const place = frame - framesBefore(index);
    pgnos[place - 1] = pgno;
    // At most half of the slots are in use, so a free one is near.
    let slot = hashOf(pgno);
    while (slots[slot] !== 0) slot = (slot + 1) & (HASHTABLE_NSLOT - 1);
    slots[slot] = place;
    this.#frameCount = frame;
  }

  /**
   * Forgets the frames after `frameCount` (walCleanupHash) and says what of the last remaining
   * block to push. With the current count it forgets nothing, but the push wipes what a writer that
   * died in the middle of a transaction left in `-shm`. Undefined when no frame remains: the first
   * frame appended to a block makes all of it dirty, so stale blocks need no push.
   */
  truncate(frameCount: number): DirtyBlock | undefined {
    assert(frameCount >= 0 && frameCount <= this.#frameCount, "wal-index truncated to more frames");
    this.#frameCount = frameCount;
    if (frameCount === 0) {
      this.#blocks = [];
      return undefined;
    }
    const index = blockOfFrame(frameCount);
    this.#blocks.length = index + 1;
    const { pgnos, slots } = this.#at(index);
    const limit = frameCount - framesBefore(index);
    for (let slot = 0; slot < HASHTABLE_NSLOT; slot++) {
      if (slots[slot]! > limit) slots[slot] = 0;
    }
    pgnos.fill(0, limit);
    return {
      block: index,
      pgnoStart: pgnoOffset(index, limit + 1),
      pgnoEnd: HASHTABLE_OFFSET,
      hashSlots: undefined,
    };
  }

  /** The WAL starts over. */
  reset(): void {
    this.truncate(0);
  }

  /** The newest frame of the page among the first `maxFrame`, or 0 (walFindFrame). */
  find(pgno: number, maxFrame: number = this.#frameCount): number {
    const lastFrame = Math.min(maxFrame, this.#frameCount);
    if (lastFrame <= 0) return 0;
    for (let index = blockOfFrame(lastFrame); index >= 0; index--) {
      const { pgnos, slots } = this.#at(index);
      const limit = lastFrame - framesBefore(index);
      let found = 0;
      let slot = hashOf(pgno);
      for (let place = slots[slot]!; place !== 0; place = slots[slot]!) {
        // Later frames of a page sit later in the chain, so the last match is the newest.
        if (place <= limit && pgnos[place - 1] === pgno) found = place;
        slot = (slot + 1) & (HASHTABLE_NSLOT - 1);
      }
      if (found !== 0) return framesBefore(index) + found;
    }
    return 0;
  }

  /** What to push after frames `firstFrame` to `lastFrame` (from 1, inclusive) were appended. */
  dirtyBlocks(firstFrame: number, lastFrame: number = this.#frameCount): DirtyBlock[] {
    assert(firstFrame >= 1 && lastFrame <= this.#frameCount, "dirty frames outside the wal-index");
    const dirty: DirtyBlock[] = [];
    for (let frame = firstFrame; frame <= lastFrame;) {
      const block = blockOfFrame(frame);
      const blockLast = Math.min(lastFrame, framesBefore(block + 1));
      dirty.push(this.#dirtyBlock(block, frame, blockLast));
      frame = blockLast + 1;
    }
    return dirty;
  }

  #dirtyBlock(index: number, firstFrame: number, lastFrame: number): DirtyBlock {
    const firstPlace = firstFrame - framesBefore(index);
    const lastPlace = lastFrame - framesBefore(index);
    if (firstPlace === 1) {
      // The file may still hold this block from before the WAL started over: all of it goes.
      return {
        block: index,
        pgnoStart: pgnoOffset(index, 1),
        pgnoEnd: HASHTABLE_OFFSET,
        hashSlots: undefined,
      };
    }
    const pgnoStart = pgnoOffset(index, firstPlace);
    const pgnoEnd = pgnoOffset(index, lastPlace + 1);
    const count = lastPlace - firstPlace + 1;
    if (count > MAX_LISTED_SLOTS) return { block: index, pgnoStart, pgnoEnd, hashSlots: undefined };

    const { pgnos, slots } = this.#at(index);
    const hashSlots = new Uint16Array(count);
    for (let i = 0; i < count; i++) {
      const place = firstPlace + i;
      let slot = hashOf(pgnos[place - 1]!);
      while (slots[slot] !== place) {
        assert(slots[slot] !== 0, "a wal-index frame is missing from its hash table");
        slot = (slot + 1) & (HASHTABLE_NSLOT - 1);
      }
      hashSlots[i] = slot;
    }
    return { block: index, pgnoStart, pgnoEnd, hashSlots: hashSlots.sort() };
  }

  #at(index: number): Block {
    const block = this.#blocks[index];
    assert(block !== undefined, `the wal-index has no block ${index}`);
    return block;
  }
}

/**
 * The bytes to push for a dirty block, in ascending order. Ranges closer than `mergeGapBytes` become
 * one, because a push has a fixed cost.
 */
export function dirtyByteRanges(dirty: DirtyBlock, mergeGapBytes: number): ByteRange[] {
  const ranges: { start: number; end: number }[] = [];
  const add = (start: number, end: number): void => {
    const last = ranges.at(-1);
    if (last !== undefined && start - last.end <= mergeGapBytes) last.end = Math.max(last.end, end);
    else if (start < end) ranges.push({ start, end });
  };
  add(dirty.pgnoStart, dirty.pgnoEnd);
  if (dirty.hashSlots === undefined) {
    add(HASHTABLE_OFFSET, WAL_INDEX_BLOCK_SIZE);
  } else {
    for (const slot of dirty.hashSlots) {
      add(HASHTABLE_OFFSET + 2 * slot, HASHTABLE_OFFSET + 2 * slot + 2);
    }
  }
  return ranges;
}

/** The block that describes a frame; frames count from 1 (walFramePage). */
export function blockOfFrame(frame: number): number {
  return Math.floor((frame + HASHTABLE_NPAGE - HASHTABLE_NPAGE_ONE - 1) / HASHTABLE_NPAGE);
}

function framesBefore(block: number): number {
  return block === 0 ? 0 : HASHTABLE_NPAGE_ONE + (block - 1) * HASHTABLE_NPAGE;
}

function pgnoOffset(block: number, place: number): number {
  return (block === 0 ? WAL_INDEX_PREFIX_SIZE : 0) + (place - 1) * 4;
}

/** A plain product of a large page number and 383 would lose low bits; 32 of them are enough. */
function hashOf(pgno: number): number {
  return Math.imul(pgno, HASHTABLE_HASH_1) & (HASHTABLE_NSLOT - 1);
}

function newBlock(index: number): Block {
  const buffer = new ArrayBuffer(WAL_INDEX_BLOCK_SIZE);
  return {
    bytes: new Uint8Array(buffer),
    pgnos: new Uint32Array(
      buffer,
      pgnoOffset(index, 1),
      index === 0 ? HASHTABLE_NPAGE_ONE : HASHTABLE_NPAGE,
    ),
    slots: new Uint16Array(buffer, HASHTABLE_OFFSET, HASHTABLE_NSLOT),
  };
}
