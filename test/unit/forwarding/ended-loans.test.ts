import { expect, onTestFinished, test, vi } from "vitest";
import { Borrowing } from "../../../src/cluster/forwarding/borrowing.ts";
import type { BorrowedRight } from "../../../src/cluster/forwarding/borrowed-right.ts";
import { ForwardingStatistics } from "../../../src/cluster/forwarding/statistics.ts";
import { PrimaryLink } from "../../../src/cluster/forwarding/primary-link.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { Position } from "../../../src/lib/position.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import { FakeWriteEngine } from "../../support/fake-write-engine.ts";
import { COMMIT, NEXT, POSITION, startPair, WAITS } from "./pair.ts";

const AFTER: Position = { txid: 9, checksum: 0x8000000000000789n };
async function until(check: () => void): Promise<void> {
  await vi.waitFor(check, { timeout: 10_000, interval: 5 });
}

test("a loan that has ended before it is heard of leaves no right on the mount thread", async () => {
  const engine = new FakeWriteEngine();
  const right: BorrowedRight = {
    position: POSITION,
    isHeld: true,
    isWanted: false,
    isEnded: true,
    onWanted: () => undefined,
    onEnded: () => undefined,
    channel: undefined,
    close: () => undefined,
  };
  const link = {
    borrow: () => Promise.resolve(right),
    giveBack: () => Promise.resolve(),
    close: () => undefined,
  } as unknown as PrimaryLink;
  const borrowing = new Borrowing("app.db", {
    engine,
    clock: systemClock,
    log: silentLogger,
    lingerMs: 1000,
    timeoutMs: 5000,
    link: () => link,
    statistics: new ForwardingStatistics(),
  });
  borrowing.writerWaits();
  await until(() => expect(borrowing.state).toBe("idle"));
  expect(engine.calls.filter((call) => call.startsWith("grant"))).toEqual([]);
});

test("after a commit that had to be asked about, the next one is not refused", async () => {
  const { primary, replica, node } = await startPair();
  replica.tell(WAITS);
  await until(() => expect(replica.calls).toContain(`grant app.db ${formatPosition(POSITION)}`));
  primary.known.add(`app.db ${formatPosition(NEXT)}`);
  const real = primary.applyForwarded.bind(primary);
  primary.applyForwarded = () => Promise.reject(new Error("the answer is lost"));
  replica.tell(COMMIT);
  await until(() => expect(replica.calls).toContain(`decide app.db 1 true`));
  primary.applyForwarded = real;
  // The question has ended the loan on the primary ...
  expect(node.api.loans.loans.size).toBe(0);
  // ... so the mount thread must have been told, before an application writes under it again.
  const lost = replica.calls.some((call) => call.startsWith("lose"));
  replica.tell({ ...COMMIT, commit: 2, position: AFTER });
  await until(() => expect(replica.calls.join()).toMatch(/decide app.db 2/));
  expect({ lost, calls: replica.calls }).toMatchObject({ lost: true });
});

test("a transaction that was said not to be there cannot come after all", async () => {
  const { primary, node } = await startPair();
  const loans = node.api.loans;
  const link = new PrimaryLink(node.url, "00000000000000B2");
  onTestFinished(() => link.close());
  const signal = AbortSignal.timeout(10_000);
  await link.borrow("app.db", "5", signal);
  expect(loans.has("app.db", "5")).toBe(true);
  // By another connection: what was sent in the first one is still on its way.
  const second = new PrimaryLink(node.url, "00000000000000B2");
  onTestFinished(() => second.close());
  expect(await second.resolve("app.db", "5", NEXT, signal)).toBe(false);
  // Now it arrives: a renewal, and behind it the transaction.
  await link.renew("app.db", "5", signal).catch(() => undefined);
  const tx = { ltx: Buffer.from("an LTX file"), path: undefined };
  const result = await link.submit("app.db", "5", tx, true, signal);
  expect(result).not.toBe("committed");
  expect(primary.forwarded).toHaveLength(0);
});

test("the end of an old right, heard of late, does not leave a right on the mount thread", async () => {
  const { replica, node } = await startPair();
  replica.tell(WAITS);
  await until(() => expect(replica.calls).toContain(`grant app.db ${formatPosition(POSITION)}`));
  // An application writes; the loan ends (expired, or the connection broke), and another one waits.
  const first = [...node.api.loans.loans.keys()];
  expect(first).toEqual(["app.db"]);
  node.api.loans.endAll();
  await until(() => expect(replica.calls.join()).toContain("lose"));
  replica.calls.length = 0;
  // The second grant is on its way to the mount thread when that says that the writer of the first
  // right has left, and the right with him.
  const granted: ((isGood: boolean) => void)[] = [];
  replica.grantRight = (database, position) => {
    replica.calls.push(`grant ${database} ${formatPosition(position)}`);
    return new Promise((resolve) => granted.push(resolve));
  };
  replica.tell(WAITS);
  await until(() => expect(granted).toHaveLength(1));
  replica.tell({
    type: "writer-left",
    database: "app.db",
    hasCommitted: true,
    isReturned: true,
    hasNext: false,
  });
  // It knows nothing of that when it comes to the grant.
  granted[0]?.(true);
  await new Promise((resolve) => setTimeout(resolve, 500));
  // Either the right is here by both, or by none.
  const last = replica.calls.filter((c) => /^(grant|lose|recall)/.test(c)).at(-1);
  expect({ held: node.api.loans.loans.size === 1, last }).toEqual({
    held: last?.startsWith("grant"),
    last,
  });
});
