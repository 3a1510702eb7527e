import * as path from "node:path";
import { nodeFiles } from "../database/files.ts";
import type { OpenFile } from "../database/files.ts";
import {
  decodeRecordHeader,
  decodeStatePayload,
  parseSegmentName,
  RECORD_HEADER_SIZE,
  RECORD_KIND,
  STATE_PAYLOAD_SIZE,
} from "../database/log/record.ts";
import type { RecordHeader } from "../database/log/record.ts";
import { isCutShort } from "../database/log/recover-log.ts";
import { readLtxFile } from "../database/ltx-to-file.ts";
import { errorText, FormatError } from "../lib/errors.ts";
import { formatPosition, positionsEqual, ZERO_POSITION } from "../lib/position.ts";
import type { Position } from "../lib/position.ts";
import { halvesToBigint } from "../ltx/crc64.ts";
import { parseLtxFilename } from "../ltx/filename.ts";

export interface LogCheck {
  /** Transactions in the log, those that LiteFS left included. */
  readonly transactionCount: number;
  readonly end: Position;
  /** Whether the position that was asked for is one the log passes through. */
  readonly hasPosition: boolean;
  readonly problems: readonly string[];
}

/**
 * Reads the whole transaction log of a database, without changing it: every transaction must be
 * valid and begin where the one before ended. A node may be appending meanwhile, so an incomplete
 * record at the very end is no problem here; whether the log reaches a position is told apart.
 */
export function checkLog(databaseDirectory: string, wanted: Position): LogCheck {
  const chain = new Chain(wanted);
  const directory = path.join(databaseDirectory, "log");
  const names = nodeFiles
    .list(directory)
    .filter((name) => parseSegmentName(name) !== undefined)
    .sort();
  for (const [i, name] of names.entries()) {
    const file = nodeFiles.open(path.join(directory, name), { readOnly: true });
    // Retention has removed it since the directory was listed.
    if (file === undefined) continue;
    try {
      checkSegment(file, name, i === names.length - 1, chain);
    } finally {
      file.close();
    }
  }
  const legacy = checkLegacy(path.join(databaseDirectory, "ltx"), chain.problems);
  return {
    transactionCount: chain.transactionCount + legacy,
    end: chain.position ?? ZERO_POSITION,
    hasPosition: chain.hasWanted,
    problems: chain.problems,
  };
}

/** Where the log stands while it is read from its first record to its last. */
class Chain {
  readonly #wanted: Position;
  readonly problems: string[] = [];
  transactionCount = 0;
  position: Position | undefined;
  hasWanted = false;

  constructor(wanted: Position) {
    this.#wanted = wanted;
    this.hasWanted = positionsEqual(wanted, ZERO_POSITION);
  }

  moveTo(position: Position): void {
    this.position = position;
    if (positionsEqual(position, this.#wanted)) this.hasWanted = true;
  }
}

function checkSegment(file: OpenFile, name: string, isLast: boolean, chain: Chain): void {
  const sizeBytes = file.size();
  const bytes = new Uint8Array(RECORD_HEADER_SIZE + STATE_PAYLOAD_SIZE);
  let offset = 0;
  while (offset < sizeBytes) {
    const count = file.readAt(bytes, 0, bytes.length, offset);
    const record = decodeRecordHeader(bytes.subarray(0, count), 0);
    const end = offset + RECORD_HEADER_SIZE + (record?.payloadLength ?? 0);
    if (record === undefined || isCutShort(file, offset, end, sizeBytes)) {
      if (!isLast) chain.problems.push(`log/${name} is damaged at offset ${offset}`);
      return;
    }
    const problem =
      record.kind === RECORD_KIND.transaction
        ? checkTransaction(file, offset, record, chain)
        : checkState(bytes, record, chain);
    if (problem !== undefined) chain.problems.push(`log/${name} at offset ${offset}: ${problem}`);
    chain.moveTo(positionOf(record));
    offset = end;
  }
}

/** A record without a transaction must stand where the log stands; a base begins a new history. */
function checkState(bytes: Uint8Array, record: RecordHeader, chain: Chain): string | undefined {
  try {
    decodeStatePayload(bytes, RECORD_HEADER_SIZE);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return error.message;
  }
  if (record.kind === RECORD_KIND.base || chain.position === undefined) return undefined;
  const position = positionOf(record);
  if (positionsEqual(position, chain.position)) return undefined;
  return `stands at ${formatPosition(position)}, the log at ${formatPosition(chain.position)}`;
}

function checkTransaction(
  file: OpenFile,
  offset: number,
  record: RecordHeader,
  chain: Chain,
): string | undefined {
  chain.transactionCount++;
  try {
    const payload = offset + RECORD_HEADER_SIZE;
    const { header, trailer } = readLtxFile(file, payload, record.payloadLength, () => undefined);
    const post = { txid: header.maxTxid, checksum: trailer.postApplyChecksum };
    const expected = positionOf(record);
    if (!positionsEqual(post, expected)) {
      return `transaction ends at ${formatPosition(post)}, not ${formatPosition(expected)}`;
    }
    const pre = { txid: header.minTxid - 1, checksum: header.preApplyChecksum };
    if (chain.position === undefined || positionsEqual(pre, chain.position)) return undefined;
    return `transaction begins at ${formatPosition(pre)}, not ${formatPosition(chain.position)}`;
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return `transaction ${record.txid} is damaged: ${error.message}`;
  }
}

function positionOf(record: RecordHeader): Position {
  return { txid: record.txid, checksum: halvesToBigint(record.checksumHi, record.checksumLo) };
}

/** LTX files that LiteFS left. Returns how many there are. */
function checkLegacy(directory: string, problems: string[]): number {
  let previous: Position | undefined;
  let count = 0;
  for (const name of nodeFiles.list(directory).sort()) {
    if (parseLtxFilename(name) === undefined) continue;
    const file = nodeFiles.open(path.join(directory, name), { readOnly: true });
    if (file === undefined) continue;
    count++;
    try {
      const { header, trailer } = readLtxFile(file, 0, file.size(), () => undefined);
      const pre = { txid: header.minTxid - 1, checksum: header.preApplyChecksum };
      if (previous !== undefined && !positionsEqual(pre, previous)) {
        problems.push(`ltx/${name} does not continue ${formatPosition(previous)}`);
      }
      previous = { txid: header.maxTxid, checksum: trailer.postApplyChecksum };
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      problems.push(`ltx/${name} is damaged: ${errorText(error)}`);
      previous = undefined;
    } finally {
      file.close();
    }
  }
  return count;
}
