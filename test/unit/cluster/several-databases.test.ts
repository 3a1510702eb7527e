import { describe, expect, test } from "vitest";
import { eventually } from "./stand-ins.ts";
import { CLUSTER_ID, World } from "./world.ts";
import type { Candidate } from "./world.ts";

const IN_CLUSTER = { clusterId: CLUSTER_ID, term: 3 };

function txids(candidate: Candidate): Record<string, number> {
  const entries = [...candidate.engine.databases.values()].map((d) => [d.name, d.position.txid]);
  return Object.fromEntries(entries);
}

describe("an election among nodes of which each has what another lacks", () => {
  test("has a primary that has all of it, although no node had", async () => {
    const world = new World();
    world.store.clusterId = CLUSTER_ID;
    const a = world.candidate("a", { ...IN_CLUSTER, databases: { "x.db": 9, "y.db": 100 } });
    const b = world.candidate("b", { ...IN_CLUSTER, databases: { "x.db": 10, "y.db": 50 } });
    await a.announce();
    await b.announce();
    a.start();
    b.start();
    await world.until(() => a.isPrimary || b.isPrimary);
    const primary = a.isPrimary ? a : b;
    expect(primary.isPrimary).toBe(true);
    expect(txids(primary)).toMatchObject({ "x.db": 10, "y.db": 100 });
    expect([...a.catchUps, ...b.catchUps]).toEqual(
      expect.arrayContaining([expect.stringMatching(/^[ab] [xy]\.db$/)]),
    );
  });

  test("a database that nobody else has does not make up for a transaction that it lacks", async () => {
    const world = new World();
    world.store.clusterId = CLUSTER_ID;
    // Deposed with a database that the cluster has never seen; the other has what was acknowledged since.
    const deposed = world.candidate("a", {
      ...IN_CLUSTER,
      databases: { "app.db": 9, "lone.db": 70 },
    });
    const b = world.candidate("b", { ...IN_CLUSTER, databases: { "app.db": 12 } });
    await b.announce();
    deposed.start();
    await world.until(() => deposed.isPrimary);
    expect(deposed.isPrimary).toBe(true);
    expect(txids(deposed)).toMatchObject({ "app.db": 12, "lone.db": 70 });
    expect(txids(b)).not.toHaveProperty("lone.db");
  });

  test("nobody is elected while what only another node has cannot be had", async () => {
    const world = new World();
    world.store.clusterId = CLUSTER_ID;
    const a = world.candidate("a", { ...IN_CLUSTER, databases: { "x.db": 9, "y.db": 100 } });
    const b = world.candidate("b", { ...IN_CLUSTER, databases: { "x.db": 10, "y.db": 50 } });
    await b.announce();
    b.refusesStreams = true;
    a.start();
    await world.pass(5_000);
    expect(a.isPrimary).toBe(false);
    await expect(world.untilDone(a.node.promote())).rejects.toMatchObject({
      code: "PROMOTION_REFUSED",
      message: expect.stringMatching(
        /^b is ahead by 1 transactions \(x\.db\), and they cannot be had: .*refused/,
      ),
    });
    b.refusesStreams = false;
    await world.pass(2_000);
    expect(a.isPrimary).toBe(true);
  });

  test("who only lacks something leaves it to the other", async () => {
    const world = new World();
    world.store.clusterId = CLUSTER_ID;
    const a = world.candidate("a", { ...IN_CLUSTER, databases: { "x.db": 9, "y.db": 50 } });
    const b = world.candidate("b", { ...IN_CLUSTER, databases: { "x.db": 10, "y.db": 50 } });
    await b.announce();
    a.start();
    await world.pass(3_000);
    expect([a.isPrimary, a.catchUps]).toEqual([false, []]);
    b.start();
    await world.pass(3_000);
    expect(b.isPrimary).toBe(true);
  });

  test("what is quarantined here comes from the other as a new copy", async () => {
    const world = new World();
    world.store.clusterId = CLUSTER_ID;
    const a = world.candidate("a", { ...IN_CLUSTER, databases: { "x.db": 9, "y.db": 50 } });
    const b = world.candidate("b", { ...IN_CLUSTER, databases: { "x.db": 9, "y.db": 40 } });
    a.engine.database("x.db").status = "quarantined";
    a.engine.touch("x.db");
    await b.announce();
    a.start();
    await world.until(() => a.isPrimary);
    expect(a.catchUps).toEqual(["b x.db"]);
    expect(a.engine.databases.get("x.db")).toMatchObject({ status: "ok", position: { txid: 9 } });
  });
});

describe("the heir", () => {
  test("is not a node that could not serve a database", async () => {
    const world = new World();
    const a = world.candidate("a", { transactions: 3 }).start();
    await eventually(() => a.isPrimary);
    const b = world.candidate("b", { transactions: 3 });
    b.engine.database("app.db").status = "quarantined";
    b.engine.touch("app.db");
    a.connect(b);
    await world.pass(100);
    await expect(world.untilDone(a.node.handOff(b.nodeId))).rejects.toMatchObject({
      code: "HANDOFF_REFUSED",
      message: "app.db is quarantined on b, which could not serve it",
    });
    expect(a.isPrimary).toBe(true);
    expect(a.engine.isPaused).toBe(false);
  });
});
