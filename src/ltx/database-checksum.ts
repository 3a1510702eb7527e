import { CHECKSUM_FLAG } from "../lib/position.ts";
import { CHECKSUM_FLAG_HI, halvesToBigint } from "./crc64.ts";

/** An empty or deleted database: no pages, so FLAG alone. Never-written ones have checksum 0. */
export const EMPTY_DATABASE_CHECKSUM: bigint = CHECKSUM_FLAG;

/**
 * FLAG | XOR of the checksums of all pages but the lock page. XOR is its own inverse: changing a
 * page means toggling its old checksum out and its new one in.
 */
export class DatabaseChecksum {
  /** Upper half, FLAG always set. */
  hi: number = CHECKSUM_FLAG_HI;
  lo = 0;

  reset(): void {
    this.hi = CHECKSUM_FLAG_HI;
    this.lo = 0;
  }

  /** Adds or removes a page by the halves of its checksum, with or without FLAG. */
  toggle(pageHi: number, pageLo: number): void {
    this.hi = (this.hi ^ pageHi) | CHECKSUM_FLAG_HI;
    this.lo ^= pageLo;
  }

  toBigint(): bigint {
    return halvesToBigint(this.hi, this.lo);
  }
}
