import { assert } from "../lib/assert.ts";
import { FormatError } from "../lib/errors.ts";
import type { Position } from "../lib/position.ts";
import { decodeDatabaseName, isDatabaseName, MAX_DATABASE_NAME_BYTES } from "./database-name.ts";
import { readU32, readU64, writeU32, writeU64 } from "./integers.ts";

/*
 * Position map, the request body of POST /stream, big-endian:
 *   u32 entry count; per entry, sorted by name:
 *   u32 name length, name, u64 TXID, u64 checksum
 */
const COUNT_BYTES = 4;
const ENTRY_FIXED_BYTES = 20;

export interface PositionMapEntry {
  readonly name: string;
  readonly position: Position;
}

export function encodePositionMap(entries: readonly PositionMapEntry[]): Uint8Array {
  const named = entries
    .map(({ name, position }) => {
      assert(isDatabaseName(name), `invalid database name ${JSON.stringify(name)}`);
      return { nameBytes: Buffer.from(name), position };
    })
    .sort((a, b) => Buffer.compare(a.nameBytes, b.nameBytes));
  let byteCount = COUNT_BYTES;
  for (const { nameBytes } of named) byteCount += ENTRY_FIXED_BYTES + nameBytes.length;
  const out = new Uint8Array(byteCount);
  const view = new DataView(out.buffer);
  writeU32(out, 0, named.length);
  let at = COUNT_BYTES;
  for (const { nameBytes, position } of named) {
    writeU32(out, at, nameBytes.length);
    out.set(nameBytes, at + 4);
    at += 4 + nameBytes.length;
    writeU64(out, at, position.txid);
    view.setBigUint64(at + 8, position.checksum);
    at += 16;
  }
  return out;
}

/** Bytes after the map are ignored, as LiteFS does. */
export function decodePositionMap(bytes: Uint8Array): PositionMapEntry[] {
  if (bytes.length < COUNT_BYTES) throw truncated();
  const count = readU32(bytes, 0);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const entries: PositionMapEntry[] = [];
  const names = new Set<string>();
  let at = COUNT_BYTES;
  for (let i = 0; i < count; i++) {
    if (bytes.length - at < ENTRY_FIXED_BYTES) throw truncated();
    const nameLength = readU32(bytes, at);
    if (nameLength < 1 || nameLength > MAX_DATABASE_NAME_BYTES) {
      throw invalid(
        `a database name of ${nameLength} bytes is outside 1…${MAX_DATABASE_NAME_BYTES}`,
      );
    }
    if (bytes.length - at < ENTRY_FIXED_BYTES + nameLength) throw truncated();
    const name = decodeDatabaseName(bytes.subarray(at + 4, at + 4 + nameLength));
    if (names.has(name)) throw invalid(`database ${JSON.stringify(name)} occurs twice`);
    names.add(name);
    at += 4 + nameLength;
    const txid = readU64(bytes, at, `a TXID of database ${JSON.stringify(name)}`);
    entries.push({ name, position: { txid, checksum: view.getBigUint64(at + 8) } });
    at += 16;
  }
  return entries;
}

function truncated(): FormatError {
  return new FormatError("POSITION_MAP_TRUNCATED", "the position map of a replica is cut short");
}

function invalid(what: string): FormatError {
  return new FormatError(
    "POSITION_MAP_INVALID",
    `the position map of a replica is invalid: ${what}`,
  );
}
