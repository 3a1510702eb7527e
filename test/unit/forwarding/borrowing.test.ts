import { expect, onTestFinished, test, vi } from "vitest";
import type { Loan } from "../../../src/cluster/forwarding/loan-desk.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import { COMMIT, NEXT, POSITION, startPair, WAITS } from "./pair.ts";
import type { Pair } from "./pair.ts";

const LEFT = {
  type: "writer-left",
  database: "app.db",
  isReturned: false,
  hasNext: false,
} as const;
async function until(check: () => void): Promise<void> {
  await vi.waitFor(check, { timeout: 20_000, interval: 5 });
}

async function borrow({ node, replica, forwarder }: Pair): Promise<void> {
  replica.tell(WAITS);
  await until(() => expect(replica.calls).toContain(`grant app.db ${formatPosition(POSITION)}`));
  expect(node.api.loans.loans.get("app.db")).toBe("00000000000000B2");
  expect(node.api.loans.loanOf("app.db")).toMatchObject({ nodeId: "00000000000000B2" });
  expect(forwarder.heldForMs("app.db")).toBeGreaterThanOrEqual(0);
}

/** Another node asks the primary for the right. */
function borrowElsewhere({ node }: Pair): Promise<Loan> {
  return node.api.loans.borrow({
    database: "app.db",
    loan: "2",
    nodeId: "00000000000000C3",
    onWanted: () => undefined,
    onEnded: () => undefined,
    signal: new AbortController().signal,
  });
}

test("the right is borrowed when an application waits, and goes back after it lingered", async () => {
  const parts = await startPair({ lingerMs: 1 });
  await borrow(parts);
  parts.replica.tell({ ...LEFT, hasCommitted: true });
  await until(() => expect(parts.node.api.loans.loans.size).toBe(0));
  expect(parts.replica.calls).toContain("recall app.db");
});

test("it goes back at once when another node waits, but not while it is in use", async () => {
  const parts = await startPair();
  await borrow(parts);
  parts.replica.isRightInUse = true;
  const other = borrowElsewhere(parts);
  await until(() => expect(parts.replica.calls).toContain("recall app.db"));
  expect(parts.node.api.loans.loans.get("app.db")).toBe("00000000000000B2");
  parts.replica.tell({ ...LEFT, hasCommitted: true, isReturned: true });
  await other;
  expect(parts.node.api.loans.loans.get("app.db")).toBe("00000000000000C3");
});

test("who takes the lock again and again without a commit does not keep it from others", async () => {
  const parts = await startPair();
  await borrow(parts);
  const other = borrowElsewhere(parts);
  // As whoever opens the database does it, to build a wal-index that nobody has open.
  const openings = setInterval(() => parts.replica.tell({ ...LEFT, hasCommitted: false }), 10);
  onTestFinished(() => clearInterval(openings));
  await other;
  expect(parts.node.api.loans.loans.get("app.db")).toBe("00000000000000C3");
});

test("a recall that is answered late does not end the right that came after it", async () => {
  const parts = await startPair({ lingerMs: 1 });
  await borrow(parts);
  const { replica, node } = parts;
  const answers: ((isReturned: boolean) => void)[] = [];
  replica.recallRight = () => new Promise((resolve) => answers.push(resolve));
  replica.tell({ ...LEFT, hasCommitted: true });
  await until(() => expect(answers).toHaveLength(1));
  replica.tell({ ...LEFT, hasCommitted: true, isReturned: true });
  await until(() => expect(node.api.loans.loans.size).toBe(0));
  replica.calls.length = 0;
  await borrow(parts);
  answers[0]?.(true);
  replica.tell(COMMIT);
  await until(() => expect(replica.calls).toContain("decide app.db 1 true"));
});

test("a commit is decided by the primary", async () => {
  const parts = await startPair();
  await borrow(parts);
  parts.replica.tell(COMMIT);
  await until(() => expect(parts.replica.calls).toContain("decide app.db 1 true"));
  expect(Buffer.from(parts.primary.forwarded[0]?.ltx ?? []).toString()).toBe("an LTX file");
  parts.primary.forwardResult = { kind: "refused", reason: "it follows another history" };
  parts.replica.tell({ ...COMMIT, commit: 2 });
  await until(() => expect(parts.replica.calls).toContain("decide app.db 2 false"));
  // What was refused once is over: the next commit is not even sent.
  parts.replica.tell({ ...COMMIT, commit: 3 });
  await until(() => expect(parts.replica.calls).toContain("decide app.db 3 false"));
  expect(parts.primary.forwarded).toHaveLength(2);
  const { outcomes, waitMs } = parts.forwarder.statistics;
  expect(outcomes).toEqual({ committed: 1, refused: 2, unknown: 0 });
  expect(waitMs.counts.reduce((sum, count) => sum + count)).toBe(1);
});

test.each([true, false])("an answer that fails is found out: committed %s", async (isCommitted) => {
  const parts = await startPair();
  await borrow(parts);
  if (isCommitted) parts.primary.known.add(`app.db ${formatPosition(NEXT)}`);
  parts.primary.applyForwarded = () => Promise.reject(new Error("the answer is lost"));
  parts.replica.tell(COMMIT);
  await until(() => expect(parts.replica.calls).toContain(`decide app.db 1 ${isCommitted}`));
  expect(parts.primary.calls.some((call) => call.startsWith("end-loan app.db"))).toBe(true);
});

test("without a primary, or without leave to forward, whoever waits is told at once", async () => {
  const { replica, forwarder } = await startPair();
  forwarder.setPrimary(undefined);
  replica.tell(WAITS);
  await until(() => expect(replica.calls).toContain("deny app.db"));
  const disabled = await startPair({ lingerMs: 1, isEnabled: false });
  disabled.replica.tell(WAITS);
  await until(() => expect(disabled.replica.calls).toEqual(["deny app.db"]));
  expect(disabled.node.api.loans.loans.size).toBe(0);
});

test("another primary: the right of the former one is lost", async () => {
  const parts = await startPair();
  await borrow(parts);
  parts.forwarder.setPrimary("http://127.0.0.1:1");
  await until(() => expect(parts.replica.calls).toContain("lose app.db"));
  parts.replica.tell(COMMIT);
  await until(() => expect(parts.replica.calls).toContain("decide app.db 1 false"));
  expect(parts.primary.forwarded).toHaveLength(0);
});

test("who waits is told when the database has left the history of the primary meanwhile", async () => {
  const parts = await startPair();
  const { replica, node } = parts;
  replica.grantRight = () => {
    // What the mount thread found while it looked comes before its answer.
    replica.tell({ type: "right-lost", database: "app.db" });
    return Promise.resolve(false);
  };
  replica.tell(WAITS);
  await until(() => expect(replica.calls).toContain("deny app.db"));
  await until(() => expect(node.api.loans.loans.size).toBe(0));
});
