import { describe, expect, it } from "vitest";
import type { Database } from "../../../src/database/database.ts";
import { handOverFile, moveFile, takeOverFile } from "../../../src/database/hand-over.ts";
import { openDatabase } from "../../../src/database/recover.ts";
import { FakeDisk, PowerCut, Random } from "./support/fake-disk.ts";
import { checkConsistent, contentOf, FakeHost } from "./support/harness.ts";
import { MiniPager } from "./support/mini-pager.ts";
import type { JournalMode } from "./support/mini-pager.ts";

const PAGE_SIZE = 512;
const PLAIN = "/data/files/a.db";

function openNamed(disk: FakeDisk, name: string): Database {
  const directory = `/data/dbs/${name}`;
  disk.mkdir(directory);
  return openDatabase(name, new FakeHost(), disk, directory);
}

function newDisk(): FakeDisk {
  const disk = new FakeDisk();
  disk.mkdir("/data/dbs");
  disk.mkdir("/data/files");
  disk.syncAll();
  return disk;
}

function fill(db: Database, seed: number, pageCount: number, mode: JournalMode): void {
  const pager = new MiniPager(db, new Random(seed), { pageSize: PAGE_SIZE });
  const pgnos = Array.from({ length: pageCount }, (_, i) => i + 1);
  pager.transaction({ pgnos, pageCount });
  if (mode === "wal") {
    pager.changeMode("wal");
    pager.transaction({ pgnos: [2], pageCount });
  }
}

function bytesOf(db: Database): string {
  const content = contentOf(db);
  const pages: Uint8Array[] = [];
  for (let pgno = 1; pgno <= content.pageCount; pgno++) pages.push(content.page(pgno, PAGE_SIZE));
  return Buffer.concat(pages).toString("latin1");
}

function fileBytes(disk: FakeDisk, file: string): string | undefined {
  const open = disk.open(file);
  if (open === undefined) return undefined;
  const bytes = new Uint8Array(open.size());
  open.readAt(bytes, 0, bytes.length, 0);
  open.close();
  return Buffer.from(bytes).toString("latin1");
}

interface Before {
  readonly disk: FakeDisk;
  readonly a: Database;
  readonly b: Database;
  /** What is to be found in one place or another, whatever happens. */
  readonly moved: string;
  readonly replaced: string;
}

function prepare(mode: JournalMode, replacesAnother: boolean): Before {
  const disk = newDisk();
  const a = openNamed(disk, "a.db");
  const b = openNamed(disk, "b.db");
  fill(a, 1, 5, mode);
  if (replacesAnother) fill(b, 2, 9, mode);
  disk.syncAll();
  return { disk, a, b, moved: bytesOf(a), replaced: replacesAnother ? bytesOf(b) : "" };
}

/** Runs the move to its end or to the cut, and gives the two databases as they are after it. */
function crash(
  before: Before,
  move: (before: Before) => void,
  cutAt: number,
  kind: "kill" | "power",
): { isOver: boolean; disk: FakeDisk } {
  if (cutAt > 0) before.disk.cutAt(cutAt);
  let isOver = true;
  try {
    move(before);
    // The commit tells its caller of the error, and nothing more comes.
    isOver = !before.disk.isDead;
  } catch (error) {
    if (!(error instanceof PowerCut)) throw error;
    isOver = false;
  }
  const disk = kind === "kill" ? before.disk.kill() : before.disk.powerCut(new Random(cutAt));
  return { isOver, disk };
}

const MOVES: Readonly<Record<string, (before: Before) => void>> = {
  "one database to the name of another": ({ a, b }) => {
    moveFile(a, b);
  },
  "a database out to the ordinary files": ({ a }) => handOverFile(a, PLAIN),
  "out, and in again as another": ({ a, b }) => {
    handOverFile(a, PLAIN);
    takeOverFile(b, PLAIN);
    b.endLooseWrites();
  },
};

describe("a crash at any point of a move", () => {
  for (const [name, move] of Object.entries(MOVES)) {
    for (const mode of ["delete", "wal"] as const) {
      for (const kind of ["kill", "power"] as const) {
        for (const replacesAnother of [false, true]) {
          const over = replacesAnother ? "over what is there" : "to where nothing is";
          it(`${name}, ${over}, mode ${mode}, ${kind}: nothing is lost`, () => {
            for (let cutAt = 1; ; cutAt++) {
              const before = prepare(mode, replacesAnother);
              const { isOver, disk } = crash(before, move, cutAt, kind);
              checkAfter(before, disk, `cut at operation ${cutAt}`);
              if (isOver) break;
            }
          });
        }
      }
    }
  }
});

function checkAfter({ moved, replaced }: Before, disk: FakeDisk, when: string): void {
  const a = openNamed(disk, "a.db");
  const b = openNamed(disk, "b.db");
  for (const db of [a, b]) {
    expect(db.reason, when).toBe("");
    checkConsistent(db);
  }
  const places = [bytesOf(a), bytesOf(b), fileBytes(disk, PLAIN)];
  expect(places.includes(moved), `${when}: it is somewhere`).toBe(true);
  // What is replaced is there until the other is in its place.
  expect([moved, replaced].includes(bytesOf(b)), `${when}: one or the other`).toBe(true);
}

it("a moved database continues the history of the name it gets, and ends its own", () => {
  const { disk, a, b, moved } = prepare("wal", true);
  const before = { a: a.position.txid, b: b.position.txid };
  expect(moveFile(a, b)).toBe("ok");
  expect(bytesOf(b)).toBe(moved);
  expect(b.position.txid).toBe(before.b + 1);
  expect(a.position.txid).toBe(before.a + 1);
  expect(a.store.pageCount).toBe(0);
  expect(a.status).toBe("deleted");
  expect(disk.size("/data/dbs/a.db/wal")).toBeUndefined();
  expect(disk.size("/data/dbs/b.db/wal")).toBeUndefined();
});

it("a file with a hot journal is not committed before the journal is played back", () => {
  const { disk, a, moved } = prepare("delete", false);
  const journal = disk.open("/data/files/a.db-journal", { create: true });
  const header = new Uint8Array(512);
  header.set([0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
  journal?.writeAt(header, 0, header.length, 0);
  handOverFile(a, PLAIN);
  const { txid } = a.position;
  takeOverFile(a, PLAIN, "/data/files/a.db-journal");
  expect(a.endLooseWrites()).toBe("ok");
  expect(a.hasOpenChanges).toBe(true);
  expect(a.position.txid).toBe(txid);
  expect(a.unlink("journal")).toBe("ok");
  expect(a.position.txid).toBe(txid + 1);
  expect(bytesOf(a)).toBe(moved);
});

it("what was cut to nothing waits for what comes next", () => {
  const { a } = prepare("delete", false);
  expect(a.isEmptied).toBe(false);
  expect(a.truncate("database", 0)).toBe("ok");
  expect(a.isEmptied).toBe(true);
  handOverFile(a, PLAIN);
  expect(a.isEmptied).toBe(false);
  expect(a.status).toBe("deleted");
});
