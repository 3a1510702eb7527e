import { expect, test } from "vitest";
import { DatabaseEntry } from "../../../src/filesystem/entry.ts";
import { NodeTable } from "../../../src/filesystem/node-table.ts";
import { WriteService } from "../../../src/filesystem/write-service.ts";
import { FakeDisk } from "../database/support/fake-disk.ts";
import { FakeKernel } from "../database/support/fake-mount.ts";
import { FakeHost, open } from "../database/support/harness.ts";
import { readChain, readFixture } from "../ltx/fixtures.ts";

const CHAIN = "wal-4096";

/** What takes forwarded transactions on the primary; the fixture's come one after the other. */
class Primary {
  readonly replies: unknown[] = [];
  readonly #service: WriteService;
  readonly #files = readChain(CHAIN).transactions.map(({ file }) => file);
  #sent = 0;

  constructor(mayCommit: () => boolean = () => true, kernel: FakeKernel = new FakeKernel()) {
    const db = open(new FakeDisk(), new FakeHost());
    db.kernel = kernel;
    const nodes = new NodeTable();
    const entry = new DatabaseEntry(db, (owner, kind) => nodes.newFile(owner, kind));
    this.#service = new WriteService({
      isPrimary: () => true,
      mayCommit,
      entry: () => entry,
      find: () => entry,
      applied: () => undefined,
      publish: () => undefined,
      reply: (_id, result) => this.replies.push(result),
      fail: (_id, error) => this.replies.push(error),
    });
    this.#service.handle({ type: "lend", id: 1, database: "app.db", loan: "5" });
    expect(this.replies.splice(0)).toMatchObject([{ kind: "lent" }]);
  }

  apply(): void {
    const ltx = readFixture(CHAIN, this.#files[this.#sent++]!);
    const forwarded = { database: "app.db", loan: "5", ltx, path: undefined, isDurable: true };
    this.#service.handle({ type: "apply-forwarded", id: 1 + this.#sent, forwarded });
  }
}

test("the lease runs out while a forwarded transaction is written: it is not acknowledged", () => {
  // As the clock would have it when this thread is stopped between the two looks.
  let looks = 0;
  const primary = new Primary(() => looks++ === 0);
  primary.apply();
  expect(primary.replies).toHaveLength(1);
  expect(primary.replies[0]).not.toMatchObject({ kind: "committed" });
});

test("a forwarded transaction is answered once the primary's readers have been shown it", () => {
  const kernel = new FakeKernel();
  const primary = new Primary(() => true, kernel);
  for (let i = 1; i <= 3; i++) {
    primary.apply();
    expect(primary.replies).toHaveLength(i);
    expect(primary.replies.at(-1)).toMatchObject({ kind: "committed" });
  }
  // What the kernel is told takes its time.
  const settling: (() => void)[] = [];
  kernel.settled = (then) => void settling.push(then);
  primary.apply();
  expect(settling).toHaveLength(1);
  expect(primary.replies).toHaveLength(3);
  settling.pop()!();
  expect(primary.replies).toHaveLength(4);
  expect(primary.replies.at(-1)).toMatchObject({ kind: "committed", position: { txid: 4 } });
});
