import { FormatError } from "../lib/errors.ts";
import { readU32, writeU32 } from "./integers.ts";
import { decodePositionMap, encodePositionMap } from "./position-map.ts";
import type { PositionMapEntry } from "./position-map.ts";

/*
 * Acknowledgements, the request body of POST /acks, big-endian; repeated without an end:
 *   u32 length of what follows, and a position map of so many bytes
 */
const LENGTH_BYTES = 4;
/** A replica tells of few databases at a time. */
export const MAX_ACKNOWLEDGEMENT_BYTES: number = 1024 * 1024;

/** What a replica has on its disk. */
export function encodeAcknowledgement(entries: readonly PositionMapEntry[]): Uint8Array {
  const map = encodePositionMap(entries);
  const out = new Uint8Array(LENGTH_BYTES + map.length);
  writeU32(out, 0, map.length);
  out.set(map, LENGTH_BYTES);
  return out;
}

/** Takes the body apart, whatever portions it comes in. */
export class AcknowledgementParser {
  #rest: Uint8Array = new Uint8Array(0);

  push(portion: Uint8Array): PositionMapEntry[] {
    let bytes = portion;
    if (this.#rest.length > 0) {
      bytes = new Uint8Array(this.#rest.length + portion.length);
      bytes.set(this.#rest);
      bytes.set(portion, this.#rest.length);
    }
    const entries: PositionMapEntry[] = [];
    let at = 0;
    while (bytes.length - at >= LENGTH_BYTES) {
      const length = readU32(bytes, at);
      if (length > MAX_ACKNOWLEDGEMENT_BYTES) {
        throw new FormatError(
          "ACKNOWLEDGEMENT_INVALID",
          `a replica sent an acknowledgement of ${length} bytes, at most ${MAX_ACKNOWLEDGEMENT_BYTES} are allowed`,
        );
      }
      const end = at + LENGTH_BYTES + length;
      if (bytes.length < end) break;
      for (const entry of decodePositionMap(bytes.subarray(at + LENGTH_BYTES, end))) {
        entries.push(entry);
      }
      at = end;
    }
    // A copy: the portion is its owner's again. `slice` of a Buffer would be a view of it.
    this.#rest = new Uint8Array(bytes.subarray(at));
    return entries;
  }
}
