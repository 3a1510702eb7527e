import { expect, test } from "vitest";
import { LoanDesk } from "../../../src/cluster/forwarding/loan-desk.ts";
import type { LoanResult } from "../../../src/database/write-engine.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { ZERO_POSITION } from "../../../src/lib/position.ts";
import { FakeWriteEngine } from "../../support/fake-write-engine.ts";

/** A desk, and the mount thread's answers to be given by hand. */
function newDesk(): { readonly desk: LoanDesk; readonly answer: (result: LoanResult) => void } {
  const answers: ((result: LoanResult) => void)[] = [];
  const engine = new FakeWriteEngine();
  engine.lend = () => new Promise((resolve) => answers.push(resolve));
  const desk = new LoanDesk({
    engine,
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
  readonly isWanted: () => boolean;
}

function borrow(desk: LoanDesk): Borrower {
  let isWanted = false;
  const lent = desk.borrow({
    database: "app.db",
    loan: "1",
    nodeId: "00000000000000AB",
    onWanted: () => (isWanted = true),
    onEnded: () => undefined,
    signal: new AbortController().signal,
  });
  return { lent, isWanted: () => isWanted };
}

const LENT: LoanResult = { kind: "lent", position: ZERO_POSITION };

test("a recall reaches who has the right", async () => {
  const { desk, answer } = newDesk();
  const borrower = borrow(desk);
  answer(LENT);
  await borrower.lent;
  expect(borrower.isWanted()).toBe(false);
  desk.recallAll();
  expect(borrower.isWanted()).toBe(true);
});

test("a recall reaches who is told of the right only after it", async () => {
  const { desk, answer } = newDesk();
  const borrower = borrow(desk);
  desk.recallAll();
  answer(LENT);
  await borrower.lent;
  expect(borrower.isWanted()).toBe(true);
});

test("a loan after a recall is as good as any", async () => {
  const { desk, answer } = newDesk();
  desk.recallAll();
  const borrower = borrow(desk);
  answer(LENT);
  await borrower.lent;
  expect(borrower.isWanted()).toBe(false);
});
