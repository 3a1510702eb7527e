import { expect, test } from "vitest";
import { eventually, settle } from "./stand-ins.ts";
import { CLUSTER_ID, framesOf, TTL_MS, World } from "./world.ts";

test("a promotion by force that failed forces nothing later", async () => {
  const world = new World();
  world.store.clusterId = CLUSTER_ID;
  // The key is free, and Consul's lock-delay lets nobody have it yet.
  const take = world.store.take.bind(world.store);
  world.store.take = () => undefined;
  const b = world.candidate("b", { transactions: 2, clusterId: CLUSTER_ID }).start();
  const a = world.candidate("a", { transactions: 3, clusterId: CLUSTER_ID });
  await a.announce();
  await world.pass(1_000);
  await expect(world.untilDone(b.node.promote({ force: true }))).rejects.toMatchObject({
    code: "PROMOTION_FAILED",
  });
  b.lease.isUnreachable = true; // (so that a gets it)
  world.store.take = take;
  a.start();
  await eventually(() => a.isPrimary);
  b.lease.isUnreachable = false;
  await world.pass(12_000);
  expect(b.following).toBe("http://a:20202");
  // Days later the primary a dies; c, a candidate that answers, has what was acknowledged.
  const c = world.candidate("c", { transactions: 5, clusterId: CLUSTER_ID, term: 30 });
  await c.announce();
  a.lease.isUnreachable = true;
  b.endStream({ announced: false });
  await world.pass(TTL_MS + 2_000);
  expect(b.isPrimary).toBe(false);
});

test("the electorate counts also when the backend has forgotten the cluster", async () => {
  const world = new World();
  const own = world
    .candidate("own", { transactions: 2, clusterId: CLUSTER_ID, electorate: 2 })
    .start();
  await world.pass(5_000);
  expect(own.isPrimary).toBe(false);
});

test("a node that is stopped while it accedes ends", async () => {
  const world = new World();
  const a = world.candidate("a", { clusterId: CLUSTER_ID });
  const answer = Promise.withResolvers<void>();
  let isClaiming = false;
  const claim = a.lease.claimClusterId.bind(a.lease);
  a.lease.claimClusterId = async (id) => {
    isClaiming = true;
    await answer.promise;
    return claim(id);
  };
  a.start();
  await eventually(() => isClaiming);
  let isStopped = false;
  const stopping = a.node.stop().then(() => (isStopped = true));
  await settle();
  answer.resolve();
  await world.pass(30_000);
  const seen = { isStopped, held: world.store.held?.id };
  if (!isStopped) world.store.drop(); // lets the test end
  await world.pass(5_000);
  void stopping;
  expect(seen).toEqual({ isStopped: true, held: undefined });
});

test("a node that is told to stop during a handoff lets the heir keep the lease, and nobody write", async () => {
  const world = new World();
  const a = world.candidate("a", { transactions: 3, clusterId: CLUSTER_ID }).start();
  await eventually(() => a.isPrimary);
  const b = world.candidate("b", { transactions: 3, clusterId: CLUSTER_ID });
  const sink = a.connect(b);
  await eventually(() => framesOf(sink).includes("ready"));
  // Something is still on its way to the heir.
  sink.isFull = true;
  a.engine.commit("app.db", [{ pgno: 1, data: new Uint8Array(512).fill(7) }], 1);
  await settle();
  const handoff = a.node.handOff(b.nodeId);
  await settle();
  const stopping = a.node.stop();
  await settle();
  expect(a.engine.isPaused).toBe(true);
  await expect(a.node.handOff(b.nodeId)).rejects.toMatchObject({ code: "HANDOFF_REFUSED" });
  sink.drain();
  await eventually(() => framesOf(sink).some((frame) => frame.startsWith("handoff")));
  const [leaseId = ""] = [world.store.held?.id];
  await b.lease.adopt(leaseId);
  await world.untilDone(stopping);
  await handoff;
  expect(world.store.held?.holder.hostname).toBe("b");
  expect(a.lease.calls).not.toContain("release");
});

test("a static lease is not given up, because nobody else could have it", async () => {
  const world = new World();
  const a = world.candidate("a", { clusterId: CLUSTER_ID }).start();
  await eventually(() => a.isPrimary);
  Object.assign(a.lease, { kind: "static" });
  await expect(a.node.demote()).rejects.toMatchObject({ code: "HANDOFF_REFUSED" });
  expect(a.isPrimary).toBe(true);
});
