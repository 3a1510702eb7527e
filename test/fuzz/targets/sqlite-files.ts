import { committedPageCount, parseDatabaseHeader } from "../../../src/sqlite/database-header.ts";
import {
  encodeJournalHeader,
  journalPageChecksum,
  readJournal,
  readSuperJournalName,
} from "../../../src/sqlite/journal.ts";
import type { ReadAt } from "../../../src/sqlite/read-at.ts";
import { readUint32BE, writeUint32BE, writeUint32LE } from "../../../src/sqlite/uint.ts";
import {
  decodeWalCheckpointInfo,
  decodeWalIndexHeaderPair,
  encodeWalIndexHeader,
  WAL_CHECKPOINT_INFO_OFFSET,
  WAL_INDEX_HEADER_SIZE,
  WAL_INDEX_PREFIX_SIZE,
} from "../../../src/sqlite/wal-index-header.ts";
import {
  decodeWalHeader,
  encodeWalHeader,
  FRAME_HEADER_SIZE,
  scanWal,
  sealFrame,
  WAL_HEADER_SIZE,
  WalChecksum,
} from "../../../src/sqlite/wal.ts";
import type { Random } from "../random.ts";
import { databaseSeed, directorySeeds, walSeed } from "../seeds.ts";
import { invariant } from "../target.ts";
import type { FuzzTarget } from "../target.ts";

function fileOf(bytes: Uint8Array): ReadAt {
  return {
    readAt(out, outOffset, lengthBytes, offsetBytes) {
      const part = bytes.subarray(offsetBytes, offsetBytes + lengthBytes);
      out.set(part, outOffset);
      return part.length;
    },
  };
}

function filesNamed(name: string): Uint8Array[] {
  return directorySeeds().flatMap((files) => files.get(name) ?? []);
}

/** A power of two, or the value as it is when it is one of those that SQLite allows. */
function pageSizeOr(value: number, random: Random): number {
  const isValid = value >= 512 && value <= 65536 && (value & (value - 1)) === 0;
  return isValid ? value : random.pick([512, 1024, 4096, 65536]);
}

export const journal: FuzzTarget = {
  name: "journal",
  seeds: () => [...filesNamed("journal"), madeJournal()],
  repair(input, random) {
    if (input.length < 32) return input;
    const pageSize = pageSizeOr(readUint32BE(input, 24), random);
    const nonce = readUint32BE(input, 12);
    encodeJournalHeader(
      {
        recordCount: readUint32BE(input, 8),
        nonce,
        initialPageCount: readUint32BE(input, 16),
        sectorSize: random.chance(0.9) ? 512 : readUint32BE(input, 20),
        pageSize,
      },
      input,
      0,
    );
    for (let at = 512; at + 8 + pageSize <= input.length; at += 8 + pageSize) {
      const sum = journalPageChecksum(nonce, input, at + 4, pageSize);
      if (random.chance(0.95)) writeUint32BE(input, at + 4 + pageSize, sum);
    }
    return input;
  },
  run(input) {
    const file = fileOf(input);
    let recordCount = 0;
    const scan = readJournal(file, input.length, 4096, (pgno, page) => {
      recordCount++;
      invariant(pgno >= 1 && page.length >= 512, "a record without page");
    });
    invariant((scan?.recordCount ?? 0) === recordCount, "records are counted wrongly");
    readSuperJournalName(file, input.length);
  },
};

/** Two records and the name of a super-journal. */
function madeJournal(): Uint8Array {
  const bytes = Buffer.alloc(512 + 2 * 520 + 60);
  const header = { recordCount: 2, nonce: 7, initialPageCount: 3, sectorSize: 512, pageSize: 512 };
  encodeJournalHeader(header, bytes, 0);
  for (const [i, pgno] of [1, 3].entries()) {
    const at = 512 + i * 520;
    bytes.writeUInt32BE(pgno, at);
    bytes.writeUInt32BE(journalPageChecksum(7, bytes, at + 4, 512), at + 516);
  }
  const name = Buffer.from("/litefs/a.db-mj0123456789");
  const at = 512 + 2 * 520 + 8;
  name.copy(bytes, at);
  bytes.writeUInt32BE(name.length, at + name.length);
  bytes.writeUInt32BE(
    name.reduce((sum, byte) => sum + byte, 0),
    at + name.length + 4,
  );
  bytes.set([0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7], at + name.length + 8);
  return new Uint8Array(bytes.subarray(0, at + name.length + 16));
}

export const wal: FuzzTarget = {
  name: "wal",
  seeds: () => [walSeed(), ...filesNamed("wal").filter((bytes) => bytes.length < 50_000)],
  repair: repairWal,
  run(input) {
    let frames = 0;
    const scan = scanWal(fileOf(input), input.length, () => frames++);
    if (scan === undefined) return;
    invariant(scan.validFrames === frames, "frames are counted wrongly");
    invariant(scan.committedFrames <= frames, "more frames are committed than valid");
    invariant(scan.pgnos.length === scan.committedFrames, "page numbers are missing");
  },
};

/** Salts and checksums of the header and of all frames that follow. */
export function repairWal(input: Uint8Array, random: Random): Uint8Array {
  if (input.length < WAL_HEADER_SIZE) return input;
  const pageSize = pageSizeOr(readUint32BE(input, 8), random);
  const header = encodeWalHeader(
    {
      bigEndianChecksum: (input[3]! & 1) === 1,
      pageSize,
      checkpointSequence: readUint32BE(input, 12),
      salt1: readUint32BE(input, 16),
      salt2: readUint32BE(input, 20),
    },
    input,
    0,
  );
  invariant(decodeWalHeader(input, 0) !== undefined, "an encoded WAL header is not valid");
  const checksum = new WalChecksum(header.bigEndianChecksum);
  checksum.set(header.checksum1, header.checksum2);
  const frameSize = FRAME_HEADER_SIZE + pageSize;
  for (let at = WAL_HEADER_SIZE; at + frameSize <= input.length; at += frameSize) {
    if (random.chance(0.05)) continue;
    const frame = {
      pgno: readUint32BE(input, at),
      commit: readUint32BE(input, at + 4),
      salt1: header.salt1,
      salt2: header.salt2,
    };
    sealFrame(frame, checksum, pageSize, input, at);
  }
  return input;
}

export const walIndex: FuzzTarget = {
  name: "wal-index",
  seeds: () => [...filesNamed("shm").map((bytes) => bytes.slice(0, 512)), madeWalIndex()],
  maxBytes: 1024,
  repair(input) {
    if (input.length < 2 * WAL_INDEX_HEADER_SIZE) return input;
    const checksum = new WalChecksum(false);
    checksum.update(input, 0, 40);
    writeUint32LE(input, 40, checksum.s0);
    writeUint32LE(input, 44, checksum.s1);
    input.copyWithin(WAL_INDEX_HEADER_SIZE, 0, WAL_INDEX_HEADER_SIZE);
    return input;
  },
  run(input) {
    if (input.length >= WAL_INDEX_PREFIX_SIZE) {
      decodeWalCheckpointInfo(input, WAL_CHECKPOINT_INFO_OFFSET);
    }
    const header = decodeWalIndexHeaderPair(input, 0);
    if (header === undefined || header.pageSize === 0) return;
    const bytes = new Uint8Array(2 * WAL_INDEX_HEADER_SIZE);
    encodeWalIndexHeader(header, bytes, 0);
    encodeWalIndexHeader(header, bytes, WAL_INDEX_HEADER_SIZE);
    const again = decodeWalIndexHeaderPair(bytes, 0);
    invariant(
      JSON.stringify(again) === JSON.stringify(header),
      "the header differs after a round trip",
    );
  },
};

function madeWalIndex(): Uint8Array {
  const bytes = new Uint8Array(WAL_INDEX_PREFIX_SIZE);
  const header = {
    change: 1,
    bigEndianChecksum: false,
    pageSize: 4096,
    maxFrame: 3,
    pageCount: 2,
    frameChecksum1: 5,
    frameChecksum2: 6,
    salt1: 7,
    salt2: 8,
  };
  encodeWalIndexHeader(header, bytes, 0);
  encodeWalIndexHeader(header, bytes, WAL_INDEX_HEADER_SIZE);
  return bytes;
}

export const databaseHeader: FuzzTarget = {
  name: "database-header",
  seeds: () => [databaseSeed("raw-4096").slice(0, 100), databaseSeed("delete-1024").slice(0, 100)],
  maxBytes: 256,
  run(input) {
    const header = parseDatabaseHeader(input);
    if (header instanceof Error) throw header;
    for (const sizeBytes of [0, 1, header.pageSize, 2 ** 45]) {
      const pageCount = committedPageCount(header, sizeBytes);
      invariant(Number.isSafeInteger(pageCount) && pageCount >= 0, "a page count is no count");
    }
  },
};
