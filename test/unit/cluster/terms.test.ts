import * as fs from "node:fs";
import * as path from "node:path";
import { describe, expect, test } from "vitest";
import { TermStore } from "../../../src/cluster/term-store.ts";
import { ReplicaHarness, serveNode } from "./node-harness.ts";
import { eventually, newEngine, temporaryDirectory } from "./stand-ins.ts";
import { CLUSTER_ID, TTL_MS, World } from "./world.ts";

describe("the term on the disk", () => {
  test("grows, is kept over restarts, and never goes back", () => {
    const directory = temporaryDirectory();
    const store = TermStore.open(directory);
    expect(store.current).toBe(0);
    store.advanceTo(0);
    expect(fs.readdirSync(directory)).toEqual([]);
    store.advanceTo(7);
    store.advanceTo(3);
    expect(store.current).toBe(7);
    expect(fs.readFileSync(path.join(directory, "term"), "utf8")).toBe("7\n");
    expect(fs.readdirSync(directory)).toEqual(["term"]);
    expect(TermStore.open(directory).current).toBe(7);
  });

  test.each(["", "x", "-1", "1.5", "9".repeat(17), "12\n3\n"])(
    "a damaged file (%j) stops the node and stays as it is",
    (content) => {
      const directory = temporaryDirectory();
      const file = path.join(directory, "term");
      fs.writeFileSync(file, content);
      expect(() => TermStore.open(directory)).toThrow(/does not hold a term/);
      expect(fs.readFileSync(file, "utf8")).toBe(content);
    },
  );

  test("what cannot be written has not advanced", () => {
    const store = TermStore.open(path.join(temporaryDirectory(), "missing"));
    expect(() => store.advanceTo(1)).toThrow(/cannot write .*missing\/term/);
    expect(store.current).toBe(0);
  });
});

describe("terms of a primary", () => {
  test("each change of the primary begins a new one, also when the backend has lost its data", async () => {
    const world = new World();
    const a = world.candidate("a").start();
    await eventually(() => a.isPrimary);
    expect(a.terms.current).toBe(10);
    const before = a.terms.current;
    world.store.drop();
    await world.pass(TTL_MS);
    await eventually(() => a.isPrimary);
    expect(a.terms.current).toBeGreaterThan(before);
    await world.untilDone(a.node.stop());
    const clusterId = a.clusterId.ensure();
    const old = world.candidate("old", { term: 5_000, clusterId }).start();
    await eventually(() => old.isPrimary);
    expect(old.terms.current).toBe(5_001);
  });

  test("a lease that is taken up again goes on with its term", async () => {
    const world = new World();
    const a = world.candidate("a").start();
    await eventually(() => a.isPrimary);
    const before = a.terms.current;
    a.lease.isUnreachable = true;
    // The backend keeps it longer than it promised.
    if (world.store.held !== undefined) world.store.held.expiresAtMs += 60_000;
    await world.pass(TTL_MS + 2_000);
    expect(a.isPrimary).toBe(false);
    a.lease.isUnreachable = false;
    await world.pass(5_000);
    expect(a.isPrimary).toBe(true);
    expect(a.terms.current).toBe(before);
  });

  test("one that cannot be recorded makes no primary, and the lease is free for others", async () => {
    const world = new World();
    const a = world.candidate("a");
    a.terms.advanceTo = () => {
      throw new Error("disk full");
    };
    a.start();
    await world.pass(3_000);
    expect(a.isPrimary).toBe(false);
    expect(a.lease.calls).toContain("release");
    const b = world.candidate("b", { clusterId: a.clusterId.ensure() }).start();
    await world.pass(3_000);
    expect(b.isPrimary).toBe(true);
  });
});

describe("of two candidates", () => {
  /** `a` was deposed with transactions of its own, and `b` has written since: fewer, but agreed on. */
  async function deposed(world: World) {
    world.store.clusterId = CLUSTER_ID;
    const a = world.candidate("a", { transactions: 9, term: 10, clusterId: CLUSTER_ID });
    const b = world.candidate("b", { transactions: 5, term: 20, clusterId: CLUSTER_ID });
    await b.announce();
    await a.announce();
    return { a, b };
  }

  test("the one of the later term gets the lease, however many transactions the other has", async () => {
    const world = new World();
    const { a, b } = await deposed(world);
    a.start();
    await world.pass(5_000);
    expect(a.isPrimary).toBe(false);
    expect(a.node.counters.deferred).toBeGreaterThan(0);
    await expect(a.node.promote()).rejects.toMatchObject({
      code: "PROMOTION_REFUSED",
      message: expect.stringContaining("b has the history of term 20, this node that of term 10"),
    });
    b.start();
    await world.pass(2_000);
    expect(b.isPrimary).toBe(true);
    expect(a.following).toBe("http://b:20202");
  });

  test("the one of the earlier term gets it when the other is gone", async () => {
    const world = new World();
    const { a, b } = await deposed(world);
    b.isUnreachable = true;
    a.start();
    await world.pass(2_000);
    expect(a.isPrimary).toBe(true);
  });
});

describe("terms of a replica", () => {
  test("it has the one of the primary once it has all that the primary had", async () => {
    const engine = newEngine();
    engine.commit("app.db", [{ pgno: 1, data: new Uint8Array(512) }], 1);
    const primary = await serveNode(engine, { term: 42 });
    const replica = new ReplicaHarness();
    const opened: number[] = [];
    const advanceTo = replica.terms.advanceTo.bind(replica.terms);
    replica.terms.advanceTo = (term) => {
      opened.push(replica.engine.databases.get("app.db")?.position.txid ?? 0);
      advanceTo(term);
    };
    void replica.follow(primary.url);
    await eventually(() => replica.seen.includes("ready"));
    expect(replica.terms.current).toBe(42);
    expect(opened).toEqual([1]);
  });

  test("a primary that tells none, as LiteFS's, has the one of its lease", async () => {
    const world = new World();
    const a = world.candidate("a").start();
    await eventually(() => a.isPrimary);
    const b = world.candidate("b").start();
    await eventually(() => b.following !== undefined);
    expect(b.terms.current).toBe(0);
    b.observer?.onReady();
    expect(b.terms.current).toBe(10);
  });
});
