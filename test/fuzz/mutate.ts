import type { Random } from "./random.ts";

/** Values at which programs go wrong: borders of types, of pages, of SQLite's lock byte. */
const INTERESTING: readonly number[] = [
  0, 1, 2, 3, 16, 63, 64, 100, 127, 128, 255, 256, 511, 512, 1023, 1024, 4095, 4096, 32767, 32768,
  65535, 65536, 0x3fffffff, 0x40000000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
];
const INTERESTING_64: readonly bigint[] = [
  0n,
  1n,
  0x7fffffffn,
  0xffffffffn,
  0x100000000n,
  0x1fffffffffffffn,
  0x20000000000000n,
  0x7fffffffffffffffn,
  0x8000000000000000n,
  0xffffffffffffffffn,
];

export interface MutationSource {
  readonly random: Random;
  /** Another input, to take pieces from. */
  other(): Uint8Array;
  /** Pieces that mean something in the format. */
  readonly dictionary: readonly Uint8Array[];
  readonly maxBytes: number;
}

/** A changed copy: a few of the mutations below, one after the other. */
export function mutate(input: Uint8Array, source: MutationSource): Uint8Array {
  const { random } = source;
  let bytes: Uint8Array = input.slice();
  const count = 1 + (random.chance(0.5) ? 0 : random.below(6));
  for (let i = 0; i < count; i++) bytes = random.pick(MUTATIONS)(bytes, source);
  return bytes.length > source.maxBytes ? bytes.slice(0, source.maxBytes) : bytes;
}

type Mutation = (bytes: Uint8Array, source: MutationSource) => Uint8Array;

const MUTATIONS: readonly Mutation[] = [
  flipBit,
  flipBit,
  setByte,
  setInteger,
  setInteger,
  setInteger64,
  addToInteger,
  truncate,
  remove,
  duplicate,
  insertBytes,
  overwriteFromOther,
  splice,
  insertToken,
  overwriteToken,
];

/** Headers are where the structure is, so half of all places are near the start. */
function place(random: Random, length: number): number {
  return random.below(random.chance(0.5) ? Math.min(length, 128) : length);
}

function flipBit(bytes: Uint8Array, { random }: MutationSource): Uint8Array {
  if (bytes.length > 0) bytes[place(random, bytes.length)]! ^= 1 << random.below(8);
  return bytes;
}

function setByte(bytes: Uint8Array, { random }: MutationSource): Uint8Array {
  if (bytes.length > 0) bytes[place(random, bytes.length)] = random.below(256);
  return bytes;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function setInteger(bytes: Uint8Array, { random }: MutationSource): Uint8Array {
  const width = random.pick([1, 2, 4]);
  if (bytes.length < width) return bytes;
  const at = place(random, bytes.length - width + 1);
  const value = random.pick(INTERESTING);
  const view = viewOf(bytes);
  if (width === 1) view.setUint8(at, value);
  else if (width === 2) view.setUint16(at, value, random.chance(0.5));
  else view.setUint32(at, value, random.chance(0.5));
  return bytes;
}

function setInteger64(bytes: Uint8Array, { random }: MutationSource): Uint8Array {
  if (bytes.length < 8) return bytes;
  const at = place(random, bytes.length - 7);
  viewOf(bytes).setBigUint64(at, random.pick(INTERESTING_64), random.chance(0.5));
  return bytes;
}

function addToInteger(bytes: Uint8Array, { random }: MutationSource): Uint8Array {
  const width = random.pick([1, 2, 4]);
  if (bytes.length < width) return bytes;
  const at = place(random, bytes.length - width + 1);
  const by = random.below(33) - 16;
  const little = random.chance(0.5);
  const view = viewOf(bytes);
  if (width === 1) view.setUint8(at, view.getUint8(at) + by);
  else if (width === 2) view.setUint16(at, view.getUint16(at, little) + by, little);
  else view.setUint32(at, view.getUint32(at, little) + by, little);
  return bytes;
}

function truncate(bytes: Uint8Array, { random }: MutationSource): Uint8Array {
  return bytes.slice(0, place(random, bytes.length + 1));
}

/** A piece's start and end, mostly a small one. */
function piece(random: Random, length: number): readonly [start: number, end: number] {
  const start = place(random, length);
  const size = random.chance(0.7) ? random.below(17) : random.below(length);
  return [start, Math.min(length, start + size)];
}

function remove(bytes: Uint8Array, { random }: MutationSource): Uint8Array {
  const [start, end] = piece(random, bytes.length);
  return joined(bytes.subarray(0, start), bytes.subarray(end));
}

function duplicate(bytes: Uint8Array, { random }: MutationSource): Uint8Array {
  const [start, end] = piece(random, bytes.length);
  const times = random.chance(0.9) ? 1 : 1 + random.below(64);
  const copies = Array.from({ length: times }, () => bytes.subarray(start, end));
  return joined(bytes.subarray(0, end), ...copies, bytes.subarray(end));
}

function insertBytes(bytes: Uint8Array, { random }: MutationSource): Uint8Array {
  const at = place(random, bytes.length + 1);
  const count = 1 + random.below(random.chance(0.9) ? 16 : 1024);
  const inserted = new Uint8Array(count);
  if (random.chance(0.5)) inserted.fill(random.below(256));
  else for (let i = 0; i < count; i++) inserted[i] = random.below(256);
  return joined(bytes.subarray(0, at), inserted, bytes.subarray(at));
}

function overwriteFromOther(bytes: Uint8Array, source: MutationSource): Uint8Array {
  const { random } = source;
  const other = source.other();
  const [start, end] = piece(random, other.length);
  const at = place(random, bytes.length);
  bytes.set(other.subarray(start, Math.min(end, start + bytes.length - at)), at);
  return bytes;
}

function splice(bytes: Uint8Array, source: MutationSource): Uint8Array {
  const { random } = source;
  const other = source.other();
  return joined(
    bytes.subarray(0, random.below(bytes.length + 1)),
    other.subarray(random.below(other.length + 1)),
  );
}

function insertToken(bytes: Uint8Array, { random, dictionary }: MutationSource): Uint8Array {
  if (dictionary.length === 0) return bytes;
  const at = random.below(bytes.length + 1);
  return joined(bytes.subarray(0, at), random.pick(dictionary), bytes.subarray(at));
}

function overwriteToken(bytes: Uint8Array, { random, dictionary }: MutationSource): Uint8Array {
  if (dictionary.length === 0) return bytes;
  const token = random.pick(dictionary);
  const at = random.below(bytes.length + 1);
  return joined(bytes.subarray(0, at), token, bytes.subarray(at + token.length));
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
