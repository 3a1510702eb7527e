import type { Database } from "../../../src/database/database.ts";
import { applyTransactions } from "../../../src/database/apply.ts";
import { checkpointLocalWal } from "../../../src/database/checkpoint.ts";
import { LocalWal } from "../../../src/database/local-wal.ts";
import { LogReader } from "../../../src/database/log/log-reader.ts";
import {
  decodeRecordHeader,
  encodeStateRecord,
  RECORD_HEADER_SIZE,
  RECORD_KIND,
  STATE_PAYLOAD_SIZE,
} from "../../../src/database/log/record.ts";
import { openDatabase } from "../../../src/database/recover.ts";
import { formatPosition, ZERO_POSITION } from "../../../src/lib/position.ts";
import type { Position } from "../../../src/lib/position.ts";
import { Crc64, halvesToBigint, pageChecksum } from "../../../src/ltx/crc64.ts";
import { decodeLtx } from "../../../src/ltx/decode-ltx.ts";
import { LTX_MAGIC } from "../../../src/ltx/header.ts";
import { FakeDisk } from "../../unit/database/support/fake-disk.ts";
import { FakeHost } from "../../unit/database/support/node.ts";
import { FakeKernel, FakeLocks, finish } from "../../unit/database/support/fake-mount.ts";
import type { Random } from "../random.ts";
import { directorySeeds, ltxSeeds } from "../seeds.ts";
import { invariant } from "../target.ts";
import type { FuzzTarget } from "../target.ts";
import { repairLtx } from "./ltx.ts";
import { journal, repairWal } from "./sqlite-files.ts";

const DIRECTORY = "/data/dbs/app.db";
/** Larger databases are not read in full: their size comes from a mutated field. */
const MAX_CHECKED_BYTES = 4 * 1024 * 1024;

export class FuzzHost extends FakeHost {
  constructor(isPrimary: boolean) {
    super();
    this.primary = isPrimary;
  }
  override retired(files: { closeAll(): void }): void {
    files.closeAll();
  }
}

/** Files in one input: u8 length and name, u32 length and content. */
export function packFiles(files: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const [name, content] of files) {
    const head = Buffer.alloc(1 + name.length + 4);
    head[0] = name.length;
    head.write(name, 1, "latin1");
    head.writeUInt32BE(content.length, 1 + name.length);
    parts.push(head, content);
  }
  return new Uint8Array(Buffer.concat(parts));
}

/** Takes whatever it is given: names become harmless, and lengths end with the input. */
export function unpackFiles(input: Uint8Array): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  for (let at = 0; at < input.length;) {
    const nameEnd = at + 1 + input[at]!;
    const name = Buffer.from(input.subarray(at + 1, nameEnd))
      .toString("latin1")
      .replaceAll(/[^a-z0-9./-]/gi, "_")
      .replaceAll(/\.{2,}|\/{2,}|^\/|\/$/g, "_");
    if (nameEnd + 4 > input.length) break;
    const length = new DataView(input.buffer, input.byteOffset + nameEnd).getUint32(0);
    at = nameEnd + 4 + length;
    if (name !== "" && !isBelow(files, name)) {
      files.set(name, input.slice(nameEnd + 4, Math.min(input.length, at)));
    }
  }
  return files;
}

/** A name cannot be a file and a directory. */
function isBelow(files: ReadonlyMap<string, Uint8Array>, name: string): boolean {
  return [...files.keys()].some(
    (other) => other.startsWith(`${name}/`) || name.startsWith(`${other}/`),
  );
}

const crc = new Crc64();

/** What a database that serves must be: its position is the checksum of what it holds. */
export function checkDatabase(db: Database): void {
  const { store } = db;
  if (db.status !== "ok" || db.hasOpenChanges) return;
  if (store.pageCount === 0 || store.pageCount * store.pageSize > MAX_CHECKED_BYTES) return;
  const page = new Uint8Array(store.pageSize);
  let hi = 0;
  let lo = 0;
  for (let pgno = 1; pgno <= store.pageCount; pgno++) {
    if (pgno === store.lockPgno) continue;
    store.readPage(pgno, page, 0);
    pageChecksum(crc, pgno, page, 0, store.pageSize);
    hi ^= crc.hi;
    lo ^= crc.lo;
  }
  const checksum = halvesToBigint(hi | (1 << 31), lo);
  invariant(checksum === db.position.checksum, "the position is not the checksum of the pages");
}

/** Every transaction that a replica would be sent, as far as the log reaches. */
function readLog(disk: FakeDisk, db: Database): void {
  const reader = new LogReader(disk, DIRECTORY);
  const end = { ...db.log.end, position: db.position };
  let after: Position = ZERO_POSITION;
  for (let i = 0; i < 1000; i++) {
    const read = reader.read(after, end, 65536);
    if (read.kind === "unavailable") return;
    if (read.kind === "large") read.ltx.read(0, 100);
    if (read.end.txid === after.txid) return;
    invariant(read.end.txid > after.txid, "the log leads back");
    after = read.end;
  }
}

function open(disk: FakeDisk, isPrimary: boolean): Database {
  disk.mkdir(DIRECTORY);
  const db = openDatabase("app.db", new FuzzHost(isPrimary), disk, DIRECTORY);
  db.kernel = new FakeKernel();
  return db;
}

export const dataDirectory: FuzzTarget = {
  name: "data-directory",
  seeds: () => [...directorySeeds().map(packFiles), ...ownDirectories()],
  maxBytes: 128 * 1024,
  repair: (input, random) => repairDirectory(input, random),
  run(input) {
    const disk = new FakeDisk();
    const files = unpackFiles(input);
    for (const [name, content] of files) disk.put(`${DIRECTORY}/${name}`, content);
    const hasLog = [...files.keys()].some((name) => name.startsWith("log"));
    const db = open(disk, true);
    // With a log of ours a start reads nothing of the database itself.
    if (!hasLog) checkDatabase(db);
    readLog(disk, db);
    const before = `${db.status} ${formatPosition(db.position)}`;
    if (db.status === "quarantined") return;
    db.close();
    const again = open(disk.kill(), true);
    invariant(
      `${again.status} ${formatPosition(again.position)}` === before,
      `a second start differs: ${before}, then ${again.status} ${again.reason}`,
    );
  },
};

/** Directories with a log: what a start makes of LiteFS's, and a few transactions applied. */
function ownDirectories(): Uint8Array[] {
  return ["raw-4096", "delete-1024"].map((history) => {
    const disk = new FakeDisk();
    const db = open(disk, false);
    const local = new LocalWal(db, new FakeLocks());
    const transactions = ltxSeeds(history as "raw-4096").slice(0, 6);
    finish(applyTransactions(db, local, new FakeLocks(), transactions));
    db.close();
    return packFiles(filesOf(disk));
  });
}

function filesOf(disk: FakeDisk): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  const visit = (below: string): void => {
    for (const name of disk.list(`${DIRECTORY}/${below}`)) {
      const file = `${below}${name}`;
      if (disk.isDirectory(`${DIRECTORY}/${file}`)) visit(`${file}/`);
      else files.set(file, disk.content(`${DIRECTORY}/${file}`));
    }
  };
  visit("");
  return files;
}

function repairDirectory(input: Uint8Array, random: Random): Uint8Array {
  const files = unpackFiles(input);
  for (const [name, content] of files) {
    if (random.chance(0.2)) continue;
    if (name === "wal") files.set(name, repairWal(content, random));
    else if (name === "journal") files.set(name, journal.repair?.(content, random) ?? content);
    else if (name.endsWith(".ltx")) files.set(name, repairLtx(content, random));
    else if (name.endsWith(".seg")) repairSegment(content, random);
  }
  return packFiles(files);
}

/** The checksums of all record headers and states. */
function repairSegment(bytes: Uint8Array, random: Random): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const seal = (start: number, end: number): void => {
    crc.reset();
    crc.updateBytes(bytes, start, end);
    crc.finish();
    view.setInt32(end, crc.hi);
    view.setInt32(end + 4, crc.lo);
  };
  for (let at = 0; at + RECORD_HEADER_SIZE <= bytes.length;) {
    if (random.chance(0.05)) return;
    view.setUint32(at, 0x4c465231);
    seal(at, at + 32);
    const payload = at + RECORD_HEADER_SIZE;
    const length = Number(view.getBigUint64(at + 8));
    if (payload + 4 > bytes.length) return;
    const isState = view.getUint32(at + 4) !== RECORD_KIND.transaction;
    if (isState && payload + STATE_PAYLOAD_SIZE <= bytes.length) seal(payload, payload + 24);
    else if (length <= bytes.length - payload && view.getUint32(payload) === LTX_MAGIC) {
      const ltx = bytes.slice(payload, payload + length);
      const repaired = repairLtx(ltx, random);
      if (repaired.length === length) bytes.set(repaired, payload);
    }
    at = payload + length;
  }
}

export const logRecords: FuzzTarget = {
  name: "log-records",
  seeds: () => {
    const position = { txid: 7, checksumHi: -5, checksumLo: 9 };
    const state = { pageSize: 4096, pageCount: 3, timestampMs: 1e12, durableTxid: 6 };
    return Object.values(RECORD_KIND).map((kind) => encodeStateRecord(kind, position, state));
  },
  maxBytes: 1024,
  repair(input, random) {
    repairSegment(input, random);
    return input;
  },
  run(input) {
    const header = decodeRecordHeader(input, 0);
    if (header === undefined) return;
    const { payloadLength, txid } = header;
    invariant(Number.isSafeInteger(payloadLength) && payloadLength >= 0, "a length is no length");
    invariant(Number.isSafeInteger(txid) && txid >= 0, "a TXID is no TXID");
  },
};

/** Four bytes say behind which transaction of a history the rest, one LTX file, is applied. */
export const apply: FuzzTarget = {
  name: "apply",
  seeds: () =>
    HISTORIES.flatMap((history, h) =>
      ltxSeeds(history)
        .slice(0, 8)
        .map((file, i) => new Uint8Array(Buffer.concat([Uint8Array.of(h, i, 0, 0), file]))),
    ),
  repair(input, random) {
    const repaired = repairLtx(input.slice(4), random);
    return new Uint8Array(Buffer.concat([input.subarray(0, 4), repaired]));
  },
  run(input) {
    if (input.length < 4) return;
    const history = transactionsOf(HISTORIES[input[0]! % HISTORIES.length] ?? "raw-4096");
    const disk = new FakeDisk();
    const db = open(disk, false);
    const locks = new FakeLocks();
    const local = new LocalWal(db, locks);
    finish(applyTransactions(db, local, locks, history.slice(0, input[1]! % history.length)));
    const before = db.position;
    const result = finish(applyTransactions(db, local, locks, [input.slice(4)]));
    if (result.kind === "applied") {
      // LTX checksums promise what the database becomes, so whatever is applied must be that.
      const { header, trailer } = decodeLtx(input.slice(4));
      // What it has had before is not applied again.
      const isKnown = header.maxTxid < before.txid;
      if (isKnown && formatPosition(db.position) === formatPosition(before)) return;
      invariant(db.position.txid === header.maxTxid, "applied to another TXID");
      invariant(db.position.checksum === trailer.postApplyChecksum, "applied to another checksum");
    } else {
      invariant(formatPosition(db.position) === formatPosition(before), "refused, but moved");
    }
    checkDatabase(db);
    finish(checkpointLocalWal(db, local, locks));
    checkDatabase(db);
    invariant(locks.held.size === 0, "locks are left behind");
  },
};

const HISTORIES = ["raw-4096", "delete-1024", "drop-4096"] as const;
const transactions = new Map<string, Uint8Array[]>();

function transactionsOf(history: (typeof HISTORIES)[number]): Uint8Array[] {
  let files = transactions.get(history);
  if (files === undefined) {
    files = ltxSeeds(history).slice(0, 9);
    transactions.set(history, files);
  }
  return files;
}
