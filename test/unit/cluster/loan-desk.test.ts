import { expect, test } from "vitest";
import { LoanDesk } from "../../../src/cluster/forwarding/loan-desk.ts";
import type { LoanResult } from "../../../src/database/write-engine.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { ZERO_POSITION } from "../../../src/lib/position.ts";

/** A desk, and the mount thread's answers to be given by hand. */
function newDesk(): { readonly desk: LoanDesk; readonly answer: (result: LoanResult) => void } {
  const answers: ((result: LoanResult) => void)[] = [];
  const unexpected = (): never => {
    throw new Error("not in this test");
  };
  const desk = new LoanDesk({
    engine: {
      lend: () => new Promise((resolve) => answers.push(resolve)),
      endLoan: () => Promise.resolve(),
      onWriteEvent: () => undefined,
      applyForwarded: unexpected,
      grantRight: unexpected,
      recallRight: unexpected,
      loseRight: unexpected,
      denyWriters: unexpected,
      endReservation: unexpected,
      decideCommit: unexpected,
      decideSync: unexpected,
      hasPosition: unexpected,
      makeDurable: unexpected,
    },
    clock: systemClock,
    log: silentLogger,
    loanMs: 30_000,
    timeoutMs: 5_000,
    isPrimary: () => true,
  });
  return { desk, answer: (result) => answers.shift()?.(result) };
}

interface Borrower {
  readonly lent: Promise<unknown>;
  isWanted: boolean;
}

function borrow(desk: LoanDesk, loan: string): Borrower {
  const request = {
    database: "app.db",
    loan,
    nodeId: "00000000000000AB",
    onWanted: () => (borrower.isWanted = true),
    onEnded: () => undefined,
    signal: new AbortController().signal,
  };
  const borrower: Borrower = { isWanted: false, lent: Promise.resolve() };
  return Object.assign(borrower, { lent: desk.borrow(request) });
}

const LENT: LoanResult = { kind: "lent", position: ZERO_POSITION };

test("a recall reaches who has the right", async () => {
  const { desk, answer } = newDesk();
  const borrower = borrow(desk, "1");
  answer(LENT);
  await borrower.lent;
  expect(borrower.isWanted).toBe(false);
  desk.recallAll();
  expect(borrower.isWanted).toBe(true);
});

test("a recall reaches who is told of the right only after it", async () => {
  const { desk, answer } = newDesk();
  const borrower = borrow(desk, "1");
  desk.recallAll();
  answer(LENT);
  await borrower.lent;
  expect(borrower.isWanted).toBe(true);
});

test("a loan after a recall is as good as any", async () => {
  const { desk, answer } = newDesk();
  desk.recallAll();
  const borrower = borrow(desk, "1");
  answer(LENT);
  await borrower.lent;
  expect(borrower.isWanted).toBe(false);
});
