import { describe, expect, it } from "vitest";
import { reopenDatabase } from "../../../src/database/recover.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import type { OperationKind } from "./support/fake-disk.ts";
import { checkContent, contentOf, DIRECTORY, FakeHost, open } from "./support/harness.ts";
import { IoFailure, MiniPager } from "./support/mini-pager.ts";
import type { JournalMode } from "./support/mini-pager.ts";
import { randomStep } from "./support/workload.ts";

const STEPS = 10;
const PAGE_SIZE = 512;

type Code = "ENOSPC" | "EIO" | "EROFS";

/** What an application may be told, by the disk itself or by a database that serves no more. */
const TOLD: Readonly<Record<Code, RegExp>> = {
  ENOSPC: /^full$|^ENOSPC/,
  EIO: /^io$|^EIO/,
  EROFS: /^read-only$|^EROFS/,
};

function filled(mode: JournalMode, seed: number) {
  const disk = FakeDisk.prepared();
  const db = open(disk, new FakeHost());
  const pager = new MiniPager(db, new Random(seed), { pageSize: PAGE_SIZE });
  pager.transaction({ pgnos: [1, 2, 3, 4, 5, 6], pageCount: 6 });
  pager.changeMode(mode);
  pager.transaction({ pgnos: [2, 4], pageCount: 6 });
  return { disk, db, pager };
}

interface Fault {
  readonly mode: JournalMode;
  readonly code: Code;
  readonly isForGood: boolean;
  readonly evicts: boolean;
  readonly matches?: (file: string, kind: OperationKind) => boolean;
}

/** Works until the n-th operation fails; false when the work was done before. */
function runWith(fault: Fault, nth: number): boolean {
  const { disk, db, pager } = filled(fault.mode, nth);
  const random = new Random(nth);
  disk.evictsFailedPages = fault.evicts;
  if (fault.isForGood) disk.failFrom(nth, fault.code, fault.matches);
  else disk.failAt(nth, fault.code, fault.matches);
  let acknowledged = db.position;
  let told: string | undefined;
  const steps: string[] = [];
  try {
    for (let i = 0; i < STEPS && told === undefined; i++) {
      try {
        steps.push(randomStep(pager, random, { changeModeChance: 0, dropChance: 0 }));
        acknowledged = db.position;
      } catch (error) {
        if (!(error instanceof IoFailure)) throw error;
        told = error.message;
      }
    }
    if (told !== undefined && db.status === "ok") expect(told).toMatch(TOLD[fault.code]);
    const next = goOn();
    const { position } = db;
    const reopened = open(disk.kill());
    expect(reopened.reason).toBe("");
    expect(reopened.position).toEqual(position);
    checkContent(reopened, next.committed, PAGE_SIZE);
  } catch (error) {
    const what = `operation ${nth}, told "${told}", after ${steps.slice(-3).join("; ")}`;
    throw new Error(what, { cause: error });
  }
  return told !== undefined;

  /** The disk works again, nothing was restarted, and the database serves. */
  function goOn(): MiniPager {
    disk.recover();
    let next = pager;
    const wasQuarantined = db.status === "quarantined";
    if (wasQuarantined) {
      expect(db.quarantineCause).toBe("disk");
      expect(reopenDatabase(db), db.reason).toBe(true);
    } else if (db.hasOpenChanges) pager.recoverHotJournal();
    // Unless the sync after a commit has failed, which then may be there, but nothing else.
    const isCommitted = db.position.txid > acknowledged.txid;
    expect(db.position.txid).toBe(acknowledged.txid + Number(isCommitted));
    if (isCommitted) {
      // Zeroing half of the journal's header ends it as well.
      const isTorn = fault.mode === "persist" && TOLD[fault.code].test(told ?? "");
      if (!isTorn) expect(told).toMatch(/: sync .*\/(?:journal|[0-9a-f]{16}\.seg)$/);
      pager.committed = contentOf(db);
    }
    if (wasQuarantined || isCommitted) {
      next = new MiniPager(db, random, { pageSize: PAGE_SIZE });
      next.changeCounter = pager.changeCounter;
      next.committed = pager.committed;
      next.mode = pager.mode;
    }
    checkContent(db, pager.committed, PAGE_SIZE);
    // All pages: those of a file that could not be cut are there again when it grows.
    const pgnos = Array.from({ length: 30 }, (_, i) => i + 1);
    for (let i = 0; i < 3; i++) next.transaction({ pgnos, pageCount: 30 });
    if (next.mode === "wal") next.closeWal();
    checkContent(db, next.committed, PAGE_SIZE);
    return next;
  }
}

const MODES = ["wal", "delete", "truncate", "persist"] as const;

describe("the n-th operation of the disk fails: refused, taken back, and the database goes on", () => {
  for (const mode of MODES) {
    for (const code of ["ENOSPC", "EIO", "EROFS"] as const) {
      for (const isForGood of [false, true]) {
        it(`${mode}, ${code}, ${isForGood ? "until the disk is mended" : "once"}`, () => {
          const fault = { mode, code, isForGood, evicts: false };
          for (let nth = 1; nth < 400 && runWith(fault, nth); nth++);
        });
      }
    }
    it(`${mode}, the sync of a database file or journal, and the pages are gone`, () => {
      const matches = (file: string, kind: OperationKind): boolean =>
        kind === "sync" && !file.includes("/log/");
      const fault: Fault = { mode, code: "EIO", isForGood: false, evicts: true, matches };
      for (let nth = 1; nth < 100 && runWith(fault, nth); nth++);
    });
  }
});

describe("the n-th operation fails while a database is", () => {
  const codes = ["ENOSPC", "EIO", "EROFS"] as const;

  it("opened after a crash: it is quarantined until the disk works, and then all of it is there", () => {
    for (const mode of MODES) {
      for (const code of codes) {
        for (let nth = 1; ; nth++) {
          const { disk: before, db: killed, pager } = filled(mode, 5);
          const disk = before.kill();
          disk.failFrom(nth, code);
          const db = open(disk);
          disk.recover();
          const isOver = db.status === "ok";
          if (!isOver) {
            expect(db.quarantineCause, db.reason).toBe("disk");
            expect(reopenDatabase(db), db.reason).toBe(true);
          }
          expect(db.position).toEqual(killed.position);
          checkContent(db, pager.committed, PAGE_SIZE);
          if (isOver) break;
        }
      }
    }
  });

  it("taken over without a log: the same", () => {
    const { disk: source, db: made } = filled("delete", 6);
    made.close();
    const bytes = source.content(`${DIRECTORY}/database`);
    const content = contentOf(made);
    for (const code of codes) {
      for (let nth = 1; ; nth++) {
        const disk = new FakeDisk();
        disk.put(`${DIRECTORY}/database`, bytes);
        disk.failFrom(nth, code);
        const db = open(disk);
        disk.recover();
        const isOver = db.status === "ok";
        if (!isOver) expect(reopenDatabase(db), db.reason).toBe(true);
        expect(db.position.txid).toBe(1);
        checkContent(db, content, PAGE_SIZE);
        if (isOver) break;
      }
    }
  });

  it("dropped: it is there, or it is gone, here and after a crash", () => {
    for (const mode of MODES) {
      for (const code of codes) {
        for (let nth = 1; ; nth++) {
          const { disk, db, pager } = filled(mode, 7);
          const before = db.position;
          disk.failFrom(nth, code);
          let isOver = true;
          try {
            pager.drop();
          } catch (error) {
            if (!(error instanceof IoFailure)) throw error;
            isOver = false;
          }
          disk.recover();
          if (db.status === "quarantined") expect(reopenDatabase(db), db.reason).toBe(true);
          const { position } = db;
          if (position.txid === before.txid) checkContent(db, pager.committed, PAGE_SIZE);
          else expect(db.store.pageCount).toBe(0);
          const again = open(disk.kill());
          expect(again.reason).toBe("");
          expect(again.position).toEqual(position);
          if (isOver) break;
        }
      }
    }
  });

  it("relieved of old segments: what is left leads to where it stands", () => {
    for (const code of codes) {
      for (let nth = 1; ; nth++) {
        const { disk, db, pager } = filled("wal", 8);
        for (let i = 0; i < 4; i++) {
          db.log.rotateIfOlderThan(Infinity);
          pager.transaction({ pgnos: [1, 3], pageCount: 6 });
        }
        pager.truncateWal();
        disk.failFrom(nth, code);
        let isOver = true;
        try {
          db.log.enforceRetention(Infinity);
        } catch {
          isOver = false;
        }
        disk.recover();
        const again = open(disk.kill());
        expect(again.reason).toBe("");
        expect(again.position).toEqual(db.position);
        checkContent(again, pager.committed, PAGE_SIZE);
        if (isOver) break;
      }
    }
  });
});
