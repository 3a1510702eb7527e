import { describe, expect, it } from "vitest";
import { reopenDatabase } from "../../../src/database/recover.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import type { OperationKind } from "./support/fake-disk.ts";
import { checkContent, contentOf, FakeHost, open } from "./support/harness.ts";
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
  const disk = new FakeDisk();
  disk.mkdir("/data/dbs");
  disk.syncAll();
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
