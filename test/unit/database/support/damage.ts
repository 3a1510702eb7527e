import * as fs from "node:fs";
import { expect } from "vitest";
import { LocalWal } from "../../../../src/database/local-wal.ts";
import { applySnapshot } from "../../../../src/database/replace.ts";
import { Scrub } from "../../../../src/database/scrub.ts";
import { formatPosition } from "../../../../src/lib/position.ts";
import { encodeSnapshot } from "./encode-snapshot.ts";
import { FakeDisk, Random } from "./fake-disk.ts";
import { FakeLocks, finish } from "./fake-mount.ts";
import { checkConsistent, contentChecksum, contentOf, DIRECTORY, open } from "./harness.ts";
import { Content, MiniPager } from "./mini-pager.ts";

const PAGE_SIZE = 512;

/** One file and what happens to it; yields nothing for files to which it cannot happen. */
export type Damage = (disk: FakeDisk, file: string) => Generator<() => void>;

export const steps: readonly (readonly [string, Damage])[] = [
  ["a flipped bit", flippedBits],
  ["a truncated file", truncations],
  ["a missing file", missing],
  ["a directory in the place of a file", directories],
  ["an extra file", extraFiles],
];

function* flippedBits(disk: FakeDisk, file: string): Generator<() => void> {
  const content = disk.content(file);
  // A stride that meets every field of the formats sooner or later.
  for (let offset = 0; offset < content.length; offset += content.length > 4000 ? 61 : 7) {
    yield () => {
      const bytes = content.slice();
      bytes[offset] = (bytes[offset] ?? 0) ^ (1 << (offset % 8));
      disk.put(file, bytes);
    };
  }
}

function* truncations(disk: FakeDisk, file: string): Generator<() => void> {
  const content = disk.content(file);
  for (let size = 0; size < content.length; size += 151) {
    yield () => disk.put(file, content.slice(0, size));
  }
}

function* missing(disk: FakeDisk, file: string): Generator<() => void> {
  yield () => disk.remove(file);
}

function* directories(disk: FakeDisk, file: string): Generator<() => void> {
  yield () => {
    disk.remove(file);
    disk.mkdir(`${file}/below`);
  };
}

function* extraFiles(disk: FakeDisk, file: string): Generator<() => void> {
  for (const name of [`${file}.bak`, `${file}~`, `${DIRECTORY}/notes.txt`]) {
    yield () => disk.put(name, new Uint8Array(100).fill(7));
  }
}

type Scenario = "wal" | "delete" | "segments" | "snapshot";

interface Made {
  readonly disk: FakeDisk;
  readonly history: ReadonlyMap<string, Content>;
}

/** A database as a killed process leaves it, and every position it has had. */
function make(scenario: Scenario): Made {
  const disk = new FakeDisk();
  const db = open(disk);
  const history = new Map<string, Content>([[formatPosition(db.position), new Content()]]);
  const note = (): void => void history.set(formatPosition(db.position), contentOf(db));
  const pager = new MiniPager(db, new Random(3), { pageSize: PAGE_SIZE });
  const pgnos = [1, 2, 3, 4, 5, 6, 7, 8];
  pager.transaction({ pgnos, pageCount: 8 });
  note();
  if (scenario === "snapshot") {
    takeSnapshot(disk, db, history);
    return { disk, history };
  }
  pager.changeMode(scenario === "delete" ? "delete" : "wal");
  note();
  for (let i = 0; i < 6; i++) {
    if (scenario === "segments") db.log.rotateIfOlderThan(Infinity);
    pager.transaction({ pgnos: [2, 3 + (i % 5)], pageCount: 8 });
    note();
    if (i === 3 && scenario !== "delete") pager.checkpoint();
  }
  return { disk, history };
}

/** Killed after the log has been exchanged, before the database file has the pages. */
function takeSnapshot(
  disk: FakeDisk,
  db: ReturnType<typeof open>,
  history: Map<string, Content>,
): void {
  const other = open(new FakeDisk());
  const pager = new MiniPager(other, new Random(9), { pageSize: PAGE_SIZE });
  pager.transaction({ pgnos: [1, 2, 3, 4, 5], pageCount: 5 });
  const content = contentOf(other);
  const checksum = contentChecksum(content, PAGE_SIZE);
  const received = `${DIRECTORY}/snapshot.ltx.tmp`;
  disk.put(received, encodeSnapshot(content, PAGE_SIZE, 40));
  const locks = new FakeLocks();
  disk.failFrom(1, "EIO", (file, kind) => kind === "write" && file.endsWith("/database"));
  finish(applySnapshot(db, new LocalWal(db, locks), locks, received));
  disk.recover();
  history.set(formatPosition({ txid: 40, checksum }), content);
}

export interface DamageResult {
  readonly cases: number;
  readonly quarantined: number;
}

export function damagedIn(scenario: Scenario, damage: Damage): DamageResult {
  const { disk: template } = make(scenario);
  let cases = 0;
  let quarantined = 0;
  for (const file of filesBelow(template, DIRECTORY)) {
    // The wal-index is never read, and what was kept aside is nobody's any more.
    if (file.endsWith("/shm") || file.includes("/diverged/")) continue;
    const count = [...damage(template, file)].length;
    for (let index = 0; index < count; index++) {
      // Made anew: opening a database changes its files.
      const { disk, history } = make(scenario);
      [...damage(disk, file)][index]?.();
      cases++;
      const mayShorten = file.includes("/log/") && (damage === truncations || damage === missing);
      if (isQuarantined(disk, history, mayShorten, `${file}, case ${index}`)) quarantined++;
    }
  }
  return { cases, quarantined };
}

/** Opens the database after the damage, reads all of it, and judges the result. */
function isQuarantined(
  disk: FakeDisk,
  history: ReadonlyMap<string, Content>,
  mayShorten: boolean,
  context: string,
): boolean {
  const db = open(disk.kill());
  const scrub = new Scrub(db);
  while (scrub.step(1_000_000).kind === "more");
  if (db.status === "quarantined") {
    expect(db.reason, context).toMatch(/^[^\n]{20,}$/);
    return true;
  }
  if (db.store.pageCount === 0) return false;
  const content = history.get(formatPosition(db.position));
  if (content === undefined) {
    // Without its log a database begins anew, with what the file holds.
    expect(db.position.txid, context).toBe(1);
    checkConsistent(db);
    return false;
  }
  const now = contentOf(db);
  for (let pgno = 1; pgno <= content.pageCount; pgno++) {
    const isSame = Buffer.compare(now.page(pgno, PAGE_SIZE), content.page(pgno, PAGE_SIZE)) === 0;
    if (!isSame) expect.fail(`${context}: page ${pgno} is wrong at ${formatPosition(db.position)}`);
  }
  // A log that ends earlier than it did, between two records, is a log all the same.
  if (mayShorten) return false;
  const newest = [...history.keys()].at(-1);
  expect(formatPosition(db.position), context).toBe(newest);
  return false;
}

function filesBelow(disk: FakeDisk, directory: string): string[] {
  return disk
    .list(directory)
    .sort()
    .flatMap((name) => {
      const file = `${directory}/${name}`;
      return disk.isDirectory(file) ? filesBelow(disk, file) : [file];
    });
}

/** What LiteFS 0.5.14 has left: a database file, and LTX files of its transactions. */
export function adoptable(damage: Damage): DamageResult {
  const fixture = `${import.meta.dirname}/../../../fixtures/litefs-0.5.14/delete-1024`;
  const template = legacyDisk(fixture);
  let cases = 0;
  let quarantined = 0;
  const newest = `${DIRECTORY}/ltx/0000000000000017-0000000000000017.ltx`;
  for (const file of [newest, `${DIRECTORY}/database`]) {
    const all = [...damage(template, file)];
    for (let index = 0; index < all.length; index += Math.max(1, Math.floor(all.length / 40))) {
      const disk = legacyDisk(fixture);
      [...damage(disk, file)][index]?.();
      cases++;
      const db = open(disk.kill());
      if (db.status === "quarantined") {
        expect(db.reason).toMatch(/^[^\n]{20,}$/);
        quarantined++;
      } else checkConsistent(db);
    }
  }
  return { cases, quarantined };
}

function legacyDisk(fixture: string): FakeDisk {
  const disk = new FakeDisk();
  disk.put(`${DIRECTORY}/database`, fs.readFileSync(`${fixture}/export.db`));
  for (const name of fs.readdirSync(`${fixture}/ltx`)) {
    disk.put(`${DIRECTORY}/ltx/${name}`, fs.readFileSync(`${fixture}/ltx/${name}`));
  }
  return disk;
}
