import { describe, expect, it } from "vitest";
import type { Position } from "../../../src/lib/position.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import { FakeDisk, PowerCut, Random } from "./support/fake-disk.ts";
import { applyTo, checkConsistent, checkContent, open, readAll } from "./support/harness.ts";
import { Content, MiniPager } from "./support/mini-pager.ts";
import type { JournalMode, Synchronous } from "./support/mini-pager.ts";
import { randomStep } from "./support/workload.ts";

interface Run {
  readonly disk: FakeDisk;
  /** Every position the database has had, with its content. */
  readonly history: Map<string, Content>;
  /** The last position of which the application knows that it is durable. */
  readonly durable: Position;
  readonly acknowledged: Position;
  readonly isOver: boolean;
  readonly steps: readonly string[];
}

interface Work {
  readonly seed: number;
  readonly modes: readonly JournalMode[];
  readonly synchronous: Synchronous;
  readonly stepCount: number;
  /** Every so many steps one with synchronous=FULL, after which all that came before is durable. */
  readonly fullEvery?: number;
}

/** Works until the power goes at one operation; `cutAt` 0: to the end. */
function run(work: Work, cutAt: number): Run {
  const { seed, modes, synchronous, stepCount, fullEvery = Infinity } = work;
  const random = new Random(seed);
  const disk = FakeDisk.prepared();
  if (cutAt > 0) disk.cutAt(cutAt);
  const history = new Map<string, Content>();
  const steps: string[] = [];
  const zero = { txid: 0, checksum: 0n };
  history.set(formatPosition(zero), new Content());
  let durable: Position = zero;
  let acknowledged: Position = zero;
  let isOver = true;
  try {
    const db = open(disk);
    const pager = new MiniPager(db, random, {
      pageSize: 512,
      mode: modes[0] ?? "delete",
      synchronous,
    });
    if (pager.mode === "wal") pager.mode = "delete";
    const step = (): void => {
      // The commit under way may survive although nobody was told: its content is known before.
      steps.push(randomStep(pager, random, { modes, dropChance: 0.02, changeModeChance: 0.08 }));
    };
    db.host.changed = () => {
      if (db.position.txid > 0) positions.push(db.position);
    };
    const positions: Position[] = [];
    for (let i = 0; i < stepCount; i++) {
      const before = db.position.txid;
      const isFull = i % fullEvery === fullEvery - 1;
      pager.synchronous = isFull ? "full" : synchronous;
      step();
      history.set(formatPosition(db.position), pager.committed.copy());
      acknowledged = db.position;
      if (synchronous === "full" && pager.mode !== "memory") durable = db.position;
      if (isFull && db.position.txid > before) durable = db.position;
      // Nobody has it open for a moment: what is durable from here on, recovery does not apply again.
      if (isFull) db.rest();
    }
  } catch (error) {
    if (!(error instanceof PowerCut)) throw error;
    isOver = false;
  }
  return { disk, history, durable, acknowledged, isOver, steps };
}

function check(work: Work, full: Run, cut: Run, after: FakeDisk, cutAt: number, killed: boolean) {
  const context = `seed ${work.seed}, cut at operation ${cutAt}, after ${cut.steps.slice(-3).join("; ")}`;
  try {
    const db = open(after);
    expect(db.reason).toBe("");
    checkConsistent(db);
    const content = full.history.get(formatPosition(db.position));
    // Nothing but a prefix of the history is left.
    if (content === undefined) expect.fail(`${formatPosition(db.position)} never was`);
    checkContent(db, content, 512);
    const atLeast = killed ? cut.acknowledged : cut.durable;
    expect(db.position.txid).toBeGreaterThanOrEqual(atLeast.txid);
    // The log leads there, and the database goes on from there.
    const ltx = readAll(after, db);
    if (ltx !== undefined) {
      const replica = new Content();
      applyTo(replica, ltx, 512);
      checkContent(db, replica, 512);
    }
    const pager = new MiniPager(db, new Random(1), { pageSize: 512 });
    pager.committed = content.copy();
    pager.changeCounter = 1_000_000;
    pager.transaction({ pgnos: [1, 3], pageCount: Math.max(3, content.pageCount) });
    checkContent(db, pager.committed, 512);
  } catch (error) {
    throw new Error(context, { cause: error });
  }
}

const WORKS: readonly [string, readonly JournalMode[], Synchronous][] = [
  ["WAL, FULL", ["wal"], "full"],
  ["WAL, NORMAL", ["wal"], "normal"],
  ["DELETE, FULL", ["delete"], "full"],
  ["TRUNCATE, FULL", ["truncate"], "full"],
  ["PERSIST, NORMAL", ["persist"], "normal"],
  ["modes in turn, FULL", ["delete", "wal", "persist", "truncate"], "full"],
];

describe("power cut at every operation", () => {
  for (const [name, modes, synchronous] of WORKS) {
    it(name, () => {
      for (let seed = 1; seed <= 2; seed++) {
        const work: Work = { seed, modes, synchronous, stepCount: 14 };
        const full = run(work, 0);
        for (let cutAt = 1; ; cutAt++) {
          const cut = run(work, cutAt);
          if (cut.isOver) break;
          check(work, full, cut, cut.disk.powerCut(new Random(seed * 1000 + cutAt)), cutAt, false);
        }
      }
    });
  }
});

describe("power cut at every operation with synchronous=OFF", () => {
  for (const mode of ["delete", "truncate", "persist"] as const) {
    it(`${mode}: a prefix of the history, or a database that says what happened to it`, () => {
      const quarantined: string[] = [];
      let intact = 0;
      for (let seed = 1; seed <= 3; seed++) {
        const work: Work = { seed, modes: [mode], synchronous: "off", stepCount: 16, fullEvery: 5 };
        const full = run(work, 0);
        for (let cutAt = 1; ; cutAt++) {
          const cut = run(work, cutAt);
          if (cut.isOver) break;
          const after = cut.disk.powerCut(new Random(seed * 1000 + cutAt));
          const { reason } = open(after);
          if (reason === "") {
            check(work, full, cut, after, cutAt, false);
            intact++;
          } else quarantined.push(reason);
        }
      }
      expect(intact).toBeGreaterThan(quarantined.length);
      expect(quarantined.length).toBeGreaterThan(0);
      for (const reason of quarantined) expect(reason).toContain("synchronous=OFF");
    });
  }

  it("WAL: always a prefix", () => {
    const work: Work = { seed: 3, modes: ["wal"], synchronous: "off", stepCount: 14 };
    const full = run(work, 0);
    for (let cutAt = 1; ; cutAt++) {
      const cut = run(work, cutAt);
      if (cut.isOver) break;
      check(work, full, cut, cut.disk.powerCut(new Random(cutAt)), cutAt, false);
    }
  });
});

describe("kill -9 at every operation loses nothing that was acknowledged", () => {
  for (const [name, modes, synchronous] of [
    ...WORKS,
    ["everything, OFF", ["delete", "wal", "persist", "truncate"], "off"],
  ] as typeof WORKS) {
    it(name, () => {
      for (let seed = 11; seed <= 12; seed++) {
        const work: Work = { seed, modes, synchronous, stepCount: 14 };
        const full = run(work, 0);
        for (let cutAt = 1; ; cutAt++) {
          const cut = run(work, cutAt);
          if (cut.isOver) break;
          check(work, full, cut, cut.disk.kill(), cutAt, true);
        }
      }
    });
  }
});
