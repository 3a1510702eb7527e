import * as crypto from "node:crypto";
import * as path from "node:path";
import { writeFileAtomically } from "./files.ts";
import type { FileIdentity, Files } from "./files.ts";
import { segmentName } from "./log/record.ts";
import type { ShelvedDatabase } from "./shelved-database.ts";

/**
 * A shelved database as a line of text: JSON, an array of
 *
 * | index | value                                                                                |
 * |-------|--------------------------------------------------------------------------------------|
 * | 0     | name                                                                                 |
 * | 1–3   | TXID, and the halves of the checksum as int32                                        |
 * | 4–6   | page size, page count, time of the last transaction in ms                            |
 * | 7     | bytes of the last segment                                                            |
 * | 8, 9  | inode and time of change of the database file, and of the last segment               |
 * | 10    | for each segment its first TXID, bytes (0: see 7) and time of the last before it in ms |
 *
 * Thousands of them are kept like this in memory, where an object would take four times as much.
 */
type Fields = readonly [
  name: string,
  txid: number,
  checksumHi: number,
  checksumLo: number,
  pageSize: number,
  pageCount: number,
  timestampMs: number,
  endOffset: number,
  file: readonly [inode: number, modifiedMs: number],
  segment: readonly [inode: number, modifiedMs: number],
  segments: readonly (readonly [firstTxid: number, sizeBytes: number, startTimestampMs: number])[],
];

export function encodeShelved({ name, log, file, segment }: ShelvedDatabase): string {
  const { txid, checksumHi, checksumLo, endOffset } = log;
  const { pageSize, pageCount, timestampMs } = log.state;
  const fields: Fields = [
    name,
    txid,
    checksumHi,
    checksumLo,
    pageSize,
    pageCount,
    timestampMs,
    endOffset,
    [file.inode, file.modifiedMs],
    [segment.inode, segment.modifiedMs],
    log.segments.map((s) => [s.firstTxid, s.sizeBytes, s.startTimestampMs]),
  ];
  return JSON.stringify(fields);
}

/** Of a line that `encodeShelved` has written. */
export function decodeShelved(line: string): ShelvedDatabase {
  const fields = JSON.parse(line) as Fields;
  const [name, txid, checksumHi, checksumLo, pageSize, pageCount, timestampMs, endOffset] = fields;
  const identity = (of: Fields[8], sizeBytes: number): FileIdentity => {
    return { inode: of[0], sizeBytes, modifiedMs: of[1] };
  };
  return {
    name,
    log: {
      txid,
      checksumHi,
      checksumLo,
      endOffset,
      state: { pageSize, pageCount, timestampMs, durableTxid: txid },
      segments: fields[10].map(([firstTxid, sizeBytes, startTimestampMs]) => ({
        name: segmentName(firstTxid),
        firstTxid,
        sizeBytes,
        startTimestampMs,
      })),
    },
    file: identity(fields[8], pageSize * pageCount),
    segment: identity(fields[9], endOffset),
  };
}

/**
 * In the data directory. The first line is a JSON array of the ID of the boot of the machine in which
 * it was written and the SHA-256 of the other lines, and each of these is a database.
 */
export function shelfPath(dataDirectory: string): string {
  return path.join(dataDirectory, "shelf");
}

export interface ShelfHead {
  /** The machine has been up since it was written. */
  readonly isOfThisBoot: boolean;
  readonly digest: string;
}

export interface Shelf extends ShelfHead {
  /** By name. */
  readonly lines: ReadonlyMap<string, string>;
}

/** Durable when this returns; the digest by which it is known. */
export function writeShelf(files: Files, dataDirectory: string, lines: readonly string[]): string {
  const body = Buffer.from(lines.map((line) => `${line}\n`).join(""));
  const digest = digestOf(body);
  const head = Buffer.from(`${JSON.stringify([files.bootId(), digest])}\n`);
  writeFileAtomically(files, shelfPath(dataDirectory), Buffer.concat([head, body]));
  return digest;
}

/** Undefined when there is none, or when it is damaged. */
export function readShelf(files: Files, dataDirectory: string): Shelf | undefined {
  const bytes = readStart(files, shelfPath(dataDirectory), Infinity);
  const head = bytes && parseHead(files, bytes);
  if (bytes === undefined || head === undefined) return undefined;
  const body = bytes.subarray(bytes.indexOf(0x0a) + 1);
  if (digestOf(body) !== head.digest) return undefined;
  const all = body.toString("utf8").split("\n").slice(0, -1);
  const lines = new Map(all.map((line) => [(JSON.parse(line) as Fields)[0], line]));
  return { ...head, lines };
}

/** Undefined when there is none; the digest is what it should be. */
export function readShelfHead(files: Files, dataDirectory: string): ShelfHead | undefined {
  const bytes = readStart(files, shelfPath(dataDirectory), HEAD_MAX_BYTES);
  return bytes && parseHead(files, bytes);
}

const HEAD_MAX_BYTES = 256;

function parseHead(files: Files, bytes: Buffer): ShelfHead | undefined {
  try {
    const text = bytes.toString("utf8", 0, Math.max(0, bytes.indexOf(0x0a)));
    const [boot, digest] = JSON.parse(text) as unknown[];
    if (typeof digest !== "string") return undefined;
    return { isOfThisBoot: boot === files.bootId(), digest };
  } catch {
    // Not ours, or damaged: then it is no shelf.
    return undefined;
  }
}

function digestOf(bytes: Uint8Array): string {
  return crypto.createHash("sha256").update(bytes).digest("hex");
}

function readStart(files: Files, name: string, maxBytes: number): Buffer | undefined {
  const file = files.open(name, { readOnly: true });
  if (file === undefined) return undefined;
  try {
    const bytes = Buffer.allocUnsafe(Math.min(maxBytes, file.size()));
    const count = file.readAt(bytes, 0, bytes.length, 0);
    return bytes.subarray(0, count);
  } finally {
    file.close();
  }
}
