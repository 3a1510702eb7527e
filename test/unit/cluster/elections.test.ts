import { describe, expect, test } from "vitest";
import { MemoryLeaseProvider } from "../../support/memory-lease.ts";
import { eventually, settle } from "./stand-ins.ts";
import { Candidate, CLUSTER_ID, framesOf, TTL_MS, World } from "./world.ts";

describe("one lease", () => {
  test("one candidate gets it, the other follows, and both know it", async () => {
    const world = new World();
    const a = world.candidate("a").start();
    await eventually(() => a.isPrimary);
    const b = world.candidate("b").start();
    await eventually(() => b.following === "http://a:20202");
    expect(b.isPrimary).toBe(false);
    expect(a.node.primary).toBeUndefined();
    expect(b.node.primary).toMatchObject({ hostname: "a", advertiseUrl: "http://a:20202" });
    expect(world.store.clusterId).toBe(a.clusterId.current);
    expect([a.roles, b.roles]).toEqual([["primary"], ["replica of a"]]);
  });

  test("a node that is no candidate never tries", async () => {
    const world = new World();
    const a = world.candidate("a", { isCandidate: false }).start();
    await world.pass(30_000);
    expect(a.lease.calls).not.toContain("acquire");
    expect(a.lease.calls).not.toContain("announce");
    await expect(a.node.promote({ force: true })).rejects.toMatchObject({ code: "NOT_CANDIDATE" });
  });

  test("each renewal covers commits for one TTL from its sending", async () => {
    const world = new World();
    const a = world.candidate("a").start();
    await eventually(() => a.isPrimary);
    expect(a.engine.commitDeadlineMs).toBe(world.clock.monotonicMs() + TTL_MS);
    await world.pass(60_000);
    const renewals = a.lease.calls.filter((call) => call === "renew").length;
    expect(renewals).toBeGreaterThanOrEqual(15);
    expect(renewals).toBeLessThanOrEqual(20);
    expect(a.isPrimary).toBe(true);
    expect(a.engine.commitDeadlineMs).toBeGreaterThan(world.clock.monotonicMs() + TTL_MS / 2);
    expect(a.node.counters).toMatchObject({ won: 1, lost: 0 });
  });

  test("a primary that cannot renew goes on until its lease ends, and takes it up again", async () => {
    const world = new World();
    const a = world.candidate("a").start();
    await eventually(() => a.isPrimary);
    const deadline = a.engine.commitDeadlineMs;
    a.lease.isUnreachable = true;
    await world.pass(TTL_MS - 1_000);
    expect(a.isPrimary).toBe(true);
    expect(a.engine.commitDeadlineMs).toBe(deadline);
    await world.pass(2_000);
    expect(a.isPrimary).toBe(false);
    expect(a.node.phase).toBe("disconnected");
    expect(a.engine.commitDeadlineMs).toBe(deadline);
    a.lease.isUnreachable = false;
    await world.pass(12_000);
    expect(a.isPrimary).toBe(true);
    expect(a.node.counters.lost).toBe(1);
  });

  test("a lease that the backend ended is given up at the next renewal", async () => {
    const world = new World();
    const a = world.candidate("a").start();
    await eventually(() => a.isPrimary);
    const b = world.candidate("b").start();
    await eventually(() => b.following !== undefined);
    world.store.take = () => undefined;
    world.store.drop();
    await world.pass(TTL_MS / 2);
    expect(a.isPrimary).toBe(false);
    expect(a.roles).toEqual(["primary", "replica of nobody"]);
    expect(a.node.counters.lost).toBe(1);
  });

  test("when the primary is gone the other takes over as soon as the lease is free", async () => {
    const world = new World();
    const a = world.candidate("a", { clusterId: CLUSTER_ID }).start();
    await eventually(() => a.isPrimary);
    const b = world.candidate("b", { clusterId: CLUSTER_ID }).start();
    await eventually(() => b.following !== undefined);
    b.observer?.onConnected();
    b.observer?.onReady();
    // As a dead machine leaves it: the lease is still there, and nobody renews it.
    a.lease.isUnreachable = true;
    b.endStream({ announced: false });
    await world.pass(TTL_MS + 500);
    expect(b.isPrimary).toBe(true);
    expect(a.isPrimary).toBe(false);
  });

  test("a replica leaves a primary that hangs as soon as it has a successor", async () => {
    const world = new World();
    const a = world.candidate("a", { clusterId: CLUSTER_ID }).start();
    await eventually(() => a.isPrimary);
    const b = world.candidate("b", { clusterId: CLUSTER_ID, isCandidate: false }).start();
    await eventually(() => b.following === "http://a:20202");
    b.observer?.onConnected();
    b.observer?.onReady();
    // While the backend is away the replica stays where it is.
    b.lease.isUnreachable = true;
    await world.pass(5_000);
    expect(b.following).toBe("http://a:20202");
    b.lease.isUnreachable = false;
    await world.pass(2_000);
    const c = new MemoryLeaseProvider(world.store, {
      hostname: "c",
      advertiseUrl: "http://c:20202",
    });
    await c.adopt("lease-1");
    await world.pass(100);
    expect(b.following).toBe("http://c:20202");
  });

  test("stops without an heir by giving the lease up, and a dead backend does not hold it", async () => {
    const world = new World();
    const a = world.candidate("a").start();
    await eventually(() => a.isPrimary);
    await world.untilDone(a.node.stop());
    expect(world.store.held).toBeUndefined();
    const b = world.candidate("b", { clusterId: world.store.clusterId ?? "" }).start();
    await eventually(() => b.isPrimary);
    b.lease.isUnreachable = true;
    await world.untilDone(b.node.stop());
    expect(b.node.phase).toBe("stopping");
  });
});

describe("who stands for election", () => {
  test("not while another candidate has more transactions", async () => {
    const world = new World();
    const ahead = world.candidate("ahead", { transactions: 3, clusterId: CLUSTER_ID });
    const behind = world.candidate("behind", { transactions: 2, clusterId: CLUSTER_ID });
    await ahead.announce();
    behind.start();
    await world.pass(20_000);
    expect(behind.isPrimary).toBe(false);
    expect(behind.lease.calls).not.toContain("acquire");
    expect(behind.node.counters.deferred).toBeGreaterThan(1);
    await expect(behind.node.promote()).rejects.toMatchObject({
      code: "PROMOTION_REFUSED",
      message: expect.stringContaining("ahead is ahead by 1 transactions"),
    });
    ahead.start();
    await world.pass(1_000);
    expect(ahead.isPrimary).toBe(true);
    expect(behind.following).toBe("http://ahead:20202");
  });

  test("but when the other one does not answer, or is of another cluster", async () => {
    for (const change of ["unreachable", "foreign", "equal"] as const) {
      const world = new World();
      const other = world.candidate("other", {
        transactions: change === "equal" ? 2 : 3,
        clusterId: change === "foreign" ? "LFSC1111111111111111" : CLUSTER_ID,
      });
      other.isUnreachable = change === "unreachable";
      await other.announce();
      const own = world.candidate("own", { transactions: 2, clusterId: CLUSTER_ID }).start();
      await world.pass(2_000);
      expect(own.isPrimary, change).toBe(true);
    }
  });

  test("not before it knows of enough others that it misses nothing acknowledged", async () => {
    const world = new World();
    world.store.clusterId = CLUSTER_ID;
    const options = { transactions: 2, clusterId: CLUSTER_ID, electorate: 2 };
    const own = world.candidate("own", options).start();
    const other = world.candidate("other", { ...options, transactions: 3 });
    const empty = world.candidate("empty");
    await empty.announce();
    other.isUnreachable = true;
    await other.announce();
    await world.pass(5_000);
    expect(own.isPrimary).toBe(false);
    expect(own.lease.calls).not.toContain("acquire");
    await expect(own.node.promote()).rejects.toThrow(/only 1 of the 2 candidates answer/);
    // It comes back, and has what this one lacks.
    other.isUnreachable = false;
    other.start();
    await world.pass(2_000);
    expect(other.isPrimary).toBe(true);
    expect(own.following).toBe("http://other:20202");
  });

  test("alone, if the cluster has no data, or by force", async () => {
    const first = new World();
    const founder = first.candidate("founder", { electorate: 2 }).start();
    await first.pass(1_000);
    expect(founder.isPrimary).toBe(true);
    const world = new World();
    world.store.clusterId = CLUSTER_ID;
    const last = world.candidate("last", { clusterId: CLUSTER_ID, electorate: 2 }).start();
    await world.pass(2_000);
    expect(last.isPrimary).toBe(false);
    await world.untilDone(last.node.promote({ force: true }));
    expect(last.isPrimary).toBe(true);
  });

  test("by force also then", async () => {
    const world = new World();
    const ahead = world.candidate("ahead", { transactions: 3, clusterId: CLUSTER_ID });
    await ahead.announce();
    const behind = world.candidate("behind", { transactions: 2, clusterId: CLUSTER_ID }).start();
    await world.pass(2_000);
    await world.untilDone(behind.node.promote({ force: true }));
    expect(behind.isPrimary).toBe(true);
  });

  test("not with nothing, while the cluster has data; by force it takes over the cluster's id", async () => {
    const world = new World();
    world.store.clusterId = CLUSTER_ID;
    const empty = world.candidate("empty").start();
    await world.pass(20_000);
    expect(empty.isPrimary).toBe(false);
    expect(empty.lease.calls).not.toContain("acquire");
    await world.untilDone(empty.node.promote({ force: true }));
    expect(empty.isPrimary).toBe(true);
    expect(empty.clusterId.current).toBe(CLUSTER_ID);
  });

  test("never in another cluster, not even by force", async () => {
    const world = new World();
    world.store.clusterId = "LFSC1111111111111111";
    const stranger = world.candidate("stranger", { clusterId: CLUSTER_ID }).start();
    await world.pass(2_000);
    const promotion = stranger.node.promote({ force: true });
    await expect(world.untilDone(promotion)).rejects.toMatchObject({ code: "PROMOTION_FAILED" });
    expect(stranger.lease.calls).not.toContain("acquire");
    expect(world.store.clusterId).toBe("LFSC1111111111111111");
  });

  test("a lease held under its own URL is waited for, not followed", async () => {
    const world = new World();
    world.store.clusterId = CLUSTER_ID;
    world.store.take({ hostname: "a", advertiseUrl: "http://a:20202" }, 5_000);
    const a = world.candidate("a", { clusterId: CLUSTER_ID }).start();
    await world.pass(3_000);
    expect([a.isPrimary, a.following]).toEqual([false, undefined]);
    await world.pass(4_000);
    expect(a.isPrimary).toBe(true);
  });
});

describe("handing over", () => {
  async function primaryWithHeir(transactions = 3) {
    const world = new World();
    const a = world.candidate("a", { transactions, clusterId: CLUSTER_ID }).start();
    await eventually(() => a.isPrimary);
    const b = world.candidate("b", { transactions, clusterId: CLUSTER_ID });
    const sink = a.connect(b);
    await eventually(() => framesOf(sink).includes("ready"));
    return { world, a, b, sink };
  }

  test("writers are held back, everything is sent, the role goes, and last the lease", async () => {
    const { world, a, b, sink } = await primaryWithHeir();
    const events: string[] = [];
    const setRole = a.engine.setRole.bind(a.engine);
    a.engine.setRole = async (role) => {
      events.push(`role ${role.isPrimary} paused ${a.engine.isPaused} ${framesOf(sink).at(-1)}`);
      await setRole(role);
    };
    a.engine.beforePause = () => {
      // The last transaction ends while new ones are held back.
      a.engine.commit("app.db", [{ pgno: 1, data: new Uint8Array(512).fill(9) }], 1);
      return Promise.resolve();
    };
    await world.untilDone(a.node.handOff(b.nodeId));
    await eventually(() => framesOf(sink).includes("end"));
    expect(framesOf(sink).slice(-3)).toEqual(["ltx-end", "handoff lease-1", "end"]);
    // When the role goes the heir has been sent everything, and the lease not yet.
    expect(events[0]).toBe("role false paused true ltx-end");
    expect(a.engine.commitDeadlineMs).toBe(-Infinity);
    expect(world.store.held?.id).toBe("lease-1");
    // Held back until the next primary is known.
    expect(a.engine.isPaused).toBe(true);
    await b.lease.adopt("lease-1");
    await world.pass(200);
    expect(a.engine.isPaused).toBe(false);
    expect(a.following).toBe("http://b:20202");
    expect(a.node.counters.handedOver).toBe(1);
  });

  test("the heir adopts it and is the primary, with all databases applied", async () => {
    const world = new World();
    const a = world.candidate("a", { clusterId: CLUSTER_ID }).start();
    await eventually(() => a.isPrimary);
    const b = world.candidate("b", { clusterId: CLUSTER_ID }).start();
    await eventually(() => b.following !== undefined);
    b.observer?.onConnected();
    b.observer?.onReady();
    a.lease.calls.length = 0;
    b.endStream({ announced: true, handoffLeaseId: "lease-1" });
    await eventually(() => b.isPrimary);
    expect(b.lease.calls).not.toContain("acquire");
    expect(b.node.counters).toMatchObject({ inherited: 1, won: 0 });
    await world.pass(TTL_MS / 2);
    // Both know the id of the lease, but only the holder's name counts for the other one.
    expect(b.engine.commitDeadlineMs).toBeGreaterThan(world.clock.monotonicMs());
  });

  test("a lease that is gone by then is no lease", async () => {
    const world = new World();
    const a = world.candidate("a", { clusterId: CLUSTER_ID }).start();
    await eventually(() => a.isPrimary);
    const b = world.candidate("b", { clusterId: CLUSTER_ID }).start();
    await eventually(() => b.following !== undefined);
    b.endStream({ announced: true, handoffLeaseId: "lease-of-yesterday" });
    await settle();
    expect(b.isPrimary).toBe(false);
    await world.pass(2_000);
    expect(b.following).toBe("http://a:20202");
  });

  test("writers who do not end keep the lease where it is, and nobody is held back after", async () => {
    const { world, a, b, sink } = await primaryWithHeir();
    a.engine.beforePause = () => new Promise(() => undefined);
    await expect(world.untilDone(a.node.handOff(b.nodeId))).rejects.toMatchObject({
      code: "HANDOFF_BUSY",
    });
    expect([a.isPrimary, a.engine.isPaused]).toEqual([true, false]);
    expect(framesOf(sink).some((frame) => frame.startsWith("handoff"))).toBe(false);
    await world.pass(20_000);
    expect(a.isPrimary).toBe(true);
  });

  test("a replica that does not take what it is sent keeps the lease where it is", async () => {
    const { world, a, b, sink } = await primaryWithHeir();
    sink.isFull = true;
    a.engine.commit("app.db", [{ pgno: 1, data: new Uint8Array(512).fill(7) }], 1);
    await settle();
    await expect(world.untilDone(a.node.handOff(b.nodeId))).rejects.toMatchObject({
      code: "HANDOFF_FAILED",
    });
    expect([a.isPrimary, a.engine.isPaused]).toEqual([true, false]);
    // Given up is given up: what it takes later does not bring it the lease.
    sink.drain();
    await world.pass(2_000);
    expect(framesOf(sink).some((frame) => frame.startsWith("handoff"))).toBe(false);
    expect(a.isPrimary).toBe(true);
  });

  test("is refused to strangers, to nodes that are no candidates, and by nodes without it", async () => {
    const { a, b } = await primaryWithHeir();
    const c = new Candidate(new World(), "c", {});
    a.connect(c, false);
    const refused = { code: "HANDOFF_REFUSED" };
    await expect(a.node.handOff("0000000000000001")).rejects.toMatchObject(refused);
    await expect(a.node.handOff(c.nodeId)).rejects.toMatchObject(refused);
    await expect(b.node.handOff(a.nodeId)).rejects.toMatchObject({ code: "NOT_PRIMARY" });
    expect(a.isPrimary).toBe(true);
  });

  test("a promotion asks the primary, and returns when it is done", async () => {
    const { world, a, b } = await primaryWithHeir();
    b.start();
    await eventually(() => b.following !== undefined);
    b.observer?.onConnected();
    b.observer?.onReady();
    const promotion = b.node.promote();
    await eventually(() => a.node.counters.handedOver === 1);
    expect(b.handoffsAsked).toEqual([`a ${b.nodeId}`]);
    b.endStream({ announced: true, handoffLeaseId: "lease-1" });
    await world.untilDone(promotion);
    expect(b.isPrimary).toBe(true);
    await world.pass(1_000);
    expect(a.following).toBe("http://b:20202");
  });

  test("a primary that stops hands over to the candidate that was sent most", async () => {
    const { world, a, sink } = await primaryWithHeir();
    await world.untilDone(a.node.stop());
    expect(framesOf(sink).slice(-2)).toEqual(["handoff lease-1", "end"]);
    expect(world.store.held?.id).toBe("lease-1");
    expect(a.lease.calls).not.toContain("release");
    expect(a.engine.isPaused).toBe(false);
  });

  test("a demoted node without an heir gives the lease up, and waits", async () => {
    const world = new World();
    const a = world.candidate("a", { clusterId: CLUSTER_ID, demoteDelayMs: 5_000 }).start();
    await eventually(() => a.isPrimary);
    await world.untilDone(a.node.demote());
    expect([a.isPrimary, world.store.held]).toEqual([false, undefined]);
    await world.pass(4_000);
    expect(a.isPrimary).toBe(false);
    await world.pass(2_000);
    expect(a.isPrimary).toBe(true);
  });
});
