import { Crc64 } from "./crc64.ts";

/**
 * Appends a block of a fixed length, known only by its CRC, to a running CRC. So a page is read
 * once, and its CRC serves both as page checksum and inside the LTX file checksum.
 *
 * Feeding a block is linear: feed(state, B) = feed(state, zeros) ^ feed(0, B). What zeros do to a
 * state is a 64x64 bit matrix, kept as one table of 256 entries for each byte of the state.
 */
export class Crc64Combiner {
  readonly lengthBytes: number;
  readonly #tableHi = new Int32Array(8 * 256);
  readonly #tableLo = new Int32Array(8 * 256);

  constructor(lengthBytes: number) {
    this.lengthBytes = lengthBytes;
    const zeros = new Uint8Array(lengthBytes);
    const crc = new Crc64();
    for (let bit = 0; bit < 64; bit++) {
      crc.lo = bit < 32 ? 1 << bit : 0;
      crc.hi = bit < 32 ? 0 : 1 << (bit - 32);
      crc.updateBytes(zeros, 0, lengthBytes);
      this.#fillBit(bit, crc.hi, crc.lo);
    }
  }

  /** Every entry is the XOR of its bits' images: entries below 2^k are known when bit k comes. */
  #fillBit(bit: number, hi: number, lo: number): void {
    const table = (bit >>> 3) * 256;
    const step = 1 << (bit & 7);
    for (let i = 0; i < step; i++) {
      this.#tableHi[table + step + i] = this.#tableHi[table + i]! ^ hi;
      this.#tableLo[table + step + i] = this.#tableLo[table + i]! ^ lo;
    }
  }

  /**
   * `running` holds the register (not finished) after A and gets the register after A‖B;
   * `blockHi/blockLo` is the finished CRC of B, without FLAG.
   */
  combine(running: Crc64, blockHi: number, blockLo: number): void {
    // B's own CRC started from all-ones, so the state to shift is what differs from all-ones.
    const hi = ~running.hi;
    const lo = ~running.lo;
    const a = lo & 0xff;
    const b = 0x100 + ((lo >>> 8) & 0xff);
    const c = 0x200 + ((lo >>> 16) & 0xff);
    const d = 0x300 + (lo >>> 24);
    const e = 0x400 + (hi & 0xff);
    const f = 0x500 + ((hi >>> 8) & 0xff);
    const g = 0x600 + ((hi >>> 16) & 0xff);
    const h = 0x700 + (hi >>> 24);
    const th = this.#tableHi;
    const tl = this.#tableLo;
    running.hi = ~blockHi ^ th[a]! ^ th[b]! ^ th[c]! ^ th[d]! ^ th[e]! ^ th[f]! ^ th[g]! ^ th[h]!;
    running.lo = ~blockLo ^ tl[a]! ^ tl[b]! ^ tl[c]! ^ tl[d]! ^ tl[e]! ^ tl[f]! ^ tl[g]! ^ tl[h]!;
  }
}

const pageCombiners = new Map<number, Crc64Combiner>();

/** The combiner for page frames (page number and page); at most eight page sizes exist. */
export function pageFrameCombiner(pageSize: number): Crc64Combiner {
  let combiner = pageCombiners.get(pageSize);
  if (combiner === undefined) {
    combiner = new Crc64Combiner(4 + pageSize);
    pageCombiners.set(pageSize, combiner);
  }
  return combiner;
}
