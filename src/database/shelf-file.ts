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
 * In the data directory. The first line holds the ID of the boot of the machine in which it was
 * written, as a JSON array, and each other line a database.
 */
export function shelfPath(dataDirectory: string): string {
  return path.join(dataDirectory, "shelf");
}

/** Durable when this returns; the digest by which it is known. */
export function writeShelf(files: Files, dataDirectory: string, lines: Iterable<string>): string {
  const text = [JSON.stringify([files.bootId()]), ...lines].map((line) => `${line}\n`).join("");
  const bytes = Buffer.from(text);
  writeFileAtomically(files, shelfPath(dataDirectory), bytes);
  return digestOf(bytes);
}

export interface Shelf {
  /** Whether the machine has been up since it was written. */
  readonly isOfThisBoot: boolean;
  /** By name. */
  readonly lines: Map<string, string>;
}

/** Undefined when there is none. */
export function readShelf(files: Files, dataDirectory: string): Shelf | undefined {
  const bytes = readWhole(files, shelfPath(dataDirectory));
  if (bytes === undefined) return undefined;
  const [boot, ...all] = bytes.toString("utf8").split("\n").slice(0, -1);
  const lines = new Map(all.map((line) => [(JSON.parse(line) as Fields)[0], line]));
  return { isOfThisBoot: boot === JSON.stringify([files.bootId()]), lines };
}

/** Whether there is one that was written since the machine has started. */
export function isShelfOfThisBoot(files: Files, dataDirectory: string): boolean {
  const first = Buffer.from(`${JSON.stringify([files.bootId()])}\n`);
  return (
    readWhole(files, shelfPath(dataDirectory))?.subarray(0, first.length).equals(first) === true
  );
}

/** To tell whether a shelf is the one that was left; undefined when there is none. */
export function digestOfShelf(files: Files, dataDirectory: string): string | undefined {
  const bytes = readWhole(files, shelfPath(dataDirectory));
  return bytes && digestOf(bytes);
}

function digestOf(bytes: Uint8Array): string {
  return crypto.createHash("sha256").update(bytes).digest("hex");
}

function readWhole(files: Files, name: string): Buffer | undefined {
  const file = files.open(name, { readOnly: true });
  if (file === undefined) return undefined;
  try {
    const bytes = Buffer.allocUnsafe(file.size());
    const count = file.readAt(bytes, 0, bytes.length, 0);
    return bytes.subarray(0, count);
  } finally {
    file.close();
  }
}
