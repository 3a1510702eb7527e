import { FormatError } from "../lib/errors.ts";
import type { Position } from "../lib/position.ts";
import { readU32, readU64, writeU32, writeU64 } from "./integers.ts";

/*
 * What a borrower of the right to write sends in the body of its POST /halt, for as long as it has the
 * right, if both ends know of it; big-endian, repeated:
 *
 *   | offset | size | field                                             |
 *   |--------|------|---------------------------------------------------|
 *   | 0      | 1    | 1: a transaction, 2: a sync of the log            |
 *   | 1      | 1    | of a transaction: 1 when it must be synced, or 0  |
 *   | 2      | 4    | a number, which the answer repeats                |
 *   | 6      | 4    | length of the payload                             |
 *   | 10     |      | an LTX file, or u64 TXID and u64 checksum         |
 *
 * Each is answered by a line of text: what became of it, the number, and perhaps a reason.
 */
const HEADER_BYTES = 10;
const POSITION_BYTES = 16;
const KIND = { commit: 1, sync: 2 } as const;
/** A larger transaction has a request of its own, which goes through a file. */
export const MAX_LOAN_PAYLOAD_BYTES: number = 1024 * 1024;

export type LoanFrame =
  | {
      readonly kind: "commit";
      readonly number: number;
      readonly isDurable: boolean;
      readonly ltx: Uint8Array<ArrayBuffer>;
    }
  | { readonly kind: "sync"; readonly number: number; readonly position: Position };

/** `ltx` must not be larger than MAX_LOAN_PAYLOAD_BYTES. */
export function encodeLoanCommit(number: number, isDurable: boolean, ltx: Uint8Array): Uint8Array {
  const out = new Uint8Array(HEADER_BYTES + ltx.length);
  writeHeader(out, KIND.commit, isDurable, number);
  out.set(ltx, HEADER_BYTES);
  return out;
}

export function encodeLoanSync(number: number, { txid, checksum }: Position): Uint8Array {
  const out = new Uint8Array(HEADER_BYTES + POSITION_BYTES);
  writeHeader(out, KIND.sync, false, number);
  writeU64(out, HEADER_BYTES, txid);
  new DataView(out.buffer).setBigUint64(HEADER_BYTES + 8, checksum);
  return out;
}

function writeHeader(out: Uint8Array, kind: number, isDurable: boolean, number: number): void {
  out[0] = kind;
  out[1] = isDurable ? 1 : 0;
  writeU32(out, 2, number);
  writeU32(out, 6, out.length - HEADER_BYTES);
}

/** Takes the body apart, whatever portions it comes in. */
export class LoanFrameParser {
  #portions: Uint8Array[] = [];
  #length = 0;
  /** How much must be there before anything can be said. */
  #needed = HEADER_BYTES;

  /** Throws a FormatError for what no borrower of ours sends. */
  push(portion: Uint8Array): LoanFrame[] {
    this.#length += portion.length;
    if (this.#length < this.#needed) {
      // A copy, since the portion is its owner's again.
      this.#portions.push(copyOf(portion, 0, portion.length));
      return [];
    }
    const isFirst = this.#portions.length === 0;
    const bytes = isFirst ? portion : Buffer.concat([...this.#portions, portion]);
    const frames: LoanFrame[] = [];
    let at = 0;
    for (;;) {
      this.#needed = HEADER_BYTES;
      if (bytes.length - at < HEADER_BYTES) break;
      this.#needed += payloadLength(bytes, at);
      if (bytes.length - at < this.#needed) break;
      frames.push(decode(bytes, at, this.#needed));
      at += this.#needed;
    }
    this.#portions = at < bytes.length ? [copyOf(bytes, at, bytes.length)] : [];
    this.#length = bytes.length - at;
    return frames;
  }
}

/** Not `slice`, which of a Buffer, as sockets give them, is a view of what they share. */
function copyOf(bytes: Uint8Array, start: number, end: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes.subarray(start, end));
}

function payloadLength(bytes: Uint8Array, at: number): number {
  const kind = bytes[at];
  const length = readU32(bytes, at + 6);
  if (kind !== KIND.commit && kind !== KIND.sync) invalid(`a frame of kind ${kind}`);
  if (bytes[at + 1]! > 1) invalid(`a frame with flags ${bytes[at + 1]}`);
  if (length > MAX_LOAN_PAYLOAD_BYTES) invalid(`a frame of ${length} bytes`);
  if (kind === KIND.sync && length !== POSITION_BYTES) invalid(`a position of ${length} bytes`);
  return length;
}

function decode(bytes: Uint8Array, at: number, lengthBytes: number): LoanFrame {
  const number = readU32(bytes, at + 2);
  const start = at + HEADER_BYTES;
  if (bytes[at] === KIND.commit) {
    const isDurable = bytes[at + 1] === 1;
    return { kind: "commit", number, isDurable, ltx: copyOf(bytes, start, at + lengthBytes) };
  }
  const txid = readU64(bytes, start, "a TXID");
  const view = new DataView(bytes.buffer, bytes.byteOffset + start + 8, 8);
  return { kind: "sync", number, position: { txid, checksum: view.getBigUint64(0) } };
}

function invalid(what: string): never {
  throw new FormatError("LOAN_FRAME_INVALID", `a borrower of the right to write sent ${what}`);
}
