import { expect, onTestFinished, test } from "vitest";
import { SyncDesk } from "../../../src/cluster/sync/sync-desk.ts";
import type { AckSession, WaitOutcome } from "../../../src/cluster/sync/sync-desk.ts";
import type { DatabaseState } from "../../../src/database/engine.ts";
import type { SyncEngine, WaitSettlement } from "../../../src/database/sync-engine.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { Position } from "../../../src/lib/position.ts";
import { FakeClock, settle } from "../cluster/stand-ins.ts";

const NAME = "app.db";
const TIMEOUT_MS = 1_000;

/** Position of a history; histories differ in their checksums. */
function at(txid: number, history = 1): Position {
  return { txid, checksum: (BigInt(history) << 32n) + BigInt(txid) };
}

/** The mount thread as the desk sees it. */
class FakeSyncEngine implements SyncEngine {
  readonly databases = new Map<string, DatabaseState>();
  readonly settlements: WaitSettlement[] = [];
  replicaCount = 0;
  #listener: (database: string, position: Position) => void = () => undefined;

  setReplicaCount(count: number): void {
    this.replicaCount = count;
  }
  onCommitWaits(listener: (database: string, position: Position) => void): void {
    this.#listener = listener;
  }
  settleWaits(_database: string, settlement: WaitSettlement): Promise<void> {
    this.settlements.push(settlement);
    return Promise.resolve();
  }
  makeDurable(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  stand(position: Position): void {
    const state: Partial<DatabaseState> = { name: NAME, status: "ok", position };
    this.databases.set(NAME, state as DatabaseState);
  }
  commit(position: Position): void {
    this.stand(position);
    this.#listener(NAME, position);
  }
}

interface Setup {
  readonly needed?: number;
  readonly isStrict?: boolean;
  readonly replicas?: number;
  readonly countsOnlyCandidates?: boolean;
}

function setUp({ needed = 1, isStrict = true, replicas = 2, countsOnlyCandidates }: Setup = {}) {
  const engine = new FakeSyncEngine();
  const clock = new FakeClock();
  const outcomes: WaitOutcome[] = [];
  const desk = new SyncDesk({
    engine,
    policy: { needed, databases: new Map([["async.db", 0]]), isStrict },
    timeoutMs: TIMEOUT_MS,
    countsOnlyCandidates: countsOnlyCandidates ?? false,
    clock,
    log: silentLogger,
    isPrimary: () => true,
    onWaited: (_tookMs, outcome) => outcomes.push(outcome),
  });
  onTestFinished(() => desk.close());
  const sessions: AckSession[] = [];
  for (let i = 0; i < replicas; i++) sessions.push(connect(desk, `R${i}`));
  const acknowledge = (replica: number, position: Position): void => {
    sessions[replica]?.acknowledged([{ name: NAME, position }]);
  };
  const pass = async (ms: number): Promise<void> => {
    await settle(4);
    clock.advance(ms);
    await settle(4);
  };
  return { engine, clock, desk, outcomes, sessions, acknowledge, pass };
}

function connect(desk: SyncDesk, nodeId: string): AckSession {
  const session = desk.connect(nodeId, { isCandidate: true, filter: undefined });
  if (session === undefined) throw new Error("nobody waits for the replica");
  return session;
}

test("a commit waits for so many replicas, whichever they are", () => {
  const { engine, acknowledge, outcomes } = setUp({ needed: 2, replicas: 3 });
  expect(engine.replicaCount).toBe(3);
  engine.commit(at(5));
  acknowledge(1, at(5));
  acknowledge(1, at(5));
  acknowledge(0, at(4));
  expect(engine.settlements).toEqual([]);
  acknowledge(2, at(5));
  expect(engine.settlements).toEqual([{ throughTxid: 5, isAcknowledged: true, next: "wait" }]);
  expect(outcomes).toEqual(["acknowledged"]);
});

test("an acknowledgement that was there first counts", () => {
  const { engine, acknowledge } = setUp();
  acknowledge(0, at(5));
  engine.commit(at(5));
  expect(engine.settlements).toEqual([{ throughTxid: 5, isAcknowledged: true, next: "wait" }]);
});

test("a later transaction says that the ones before are there too", () => {
  const { engine, acknowledge, outcomes } = setUp({ needed: 2 });
  engine.commit(at(5));
  engine.commit(at(6));
  engine.commit(at(7));
  acknowledge(0, at(7));
  acknowledge(1, at(6));
  expect(engine.settlements).toEqual([{ throughTxid: 6, isAcknowledged: true, next: "wait" }]);
  expect(outcomes).toEqual(["acknowledged", "acknowledged"]);
  acknowledge(1, at(7));
  expect(engine.settlements).toHaveLength(2);
});

test("another history says nothing, however far it is", () => {
  const { engine, acknowledge } = setUp();
  engine.commit(at(5));
  for (const position of [at(4, 2), at(5, 2), at(6, 2), at(99, 2)]) acknowledge(0, position);
  expect(engine.settlements).toEqual([]);
  acknowledge(0, at(5));
  expect(engine.settlements).toHaveLength(1);
});

test("what a replica had acknowledged before it left does not count", () => {
  const { engine, sessions, acknowledge, desk } = setUp({ needed: 2 });
  engine.commit(at(5));
  acknowledge(0, at(5));
  sessions[0]?.end();
  expect(engine.replicaCount).toBe(1);
  acknowledge(1, at(5));
  expect(engine.settlements).toEqual([]);
  // From the old channel comes nothing any more.
  acknowledge(0, at(5));
  expect(engine.settlements).toEqual([]);
  connect(desk, "R0").acknowledged([{ name: NAME, position: at(5) }]);
  expect(engine.settlements).toHaveLength(1);
});

test("one node counts once, and the end of its old channel ends nothing", () => {
  const { engine, desk, sessions } = setUp({ needed: 2, replicas: 1 });
  const again = connect(desk, "R0");
  expect(engine.replicaCount).toBe(1);
  engine.commit(at(5));
  again.acknowledged([{ name: NAME, position: at(5) }]);
  sessions[0]?.acknowledged([{ name: NAME, position: at(5) }]);
  expect(engine.settlements).toEqual([]);
  sessions[0]?.end();
  expect(engine.replicaCount).toBe(1);
});

test("strict: a timeout leaves the outcome open, and a fence until the replicas have it", async () => {
  const { engine, acknowledge, outcomes, pass, desk } = setUp();
  engine.commit(at(5));
  await pass(TIMEOUT_MS - 1);
  expect(engine.settlements).toEqual([]);
  await pass(1);
  expect(engine.settlements).toEqual([{ throughTxid: 5, isAcknowledged: false, next: "refuse" }]);
  expect(outcomes).toEqual(["timed-out"]);
  expect(desk.status.fenced).toEqual([NAME]);
  acknowledge(0, at(4));
  acknowledge(0, at(5, 2));
  expect(desk.status.fenced).toEqual([NAME]);
  acknowledge(0, at(5));
  expect(engine.settlements.at(-1)).toEqual({ throughTxid: 5, isAcknowledged: true, next: "wait" });
  expect(desk.status.fenced).toEqual([]);
});

test("a timeout of one commit is not that of the next", async () => {
  const { engine, acknowledge, outcomes, pass } = setUp();
  engine.commit(at(5));
  await pass(900);
  acknowledge(0, at(5));
  engine.commit(at(6));
  await pass(900);
  expect(outcomes).toEqual(["acknowledged"]);
  await pass(100);
  expect(outcomes).toEqual(["acknowledged", "timed-out"]);
});

test("a database is watched anew after it was quiet", async () => {
  const { engine, acknowledge, outcomes, pass } = setUp();
  engine.commit(at(5));
  acknowledge(0, at(5));
  await pass(10 * TIMEOUT_MS);
  engine.commit(at(6));
  await pass(TIMEOUT_MS);
  expect(outcomes).toEqual(["acknowledged", "timed-out"]);
});

test("async: after a timeout commits do not wait until the replicas keep up", async () => {
  const { engine, acknowledge, outcomes, pass, desk } = setUp({ isStrict: false });
  engine.commit(at(5));
  await pass(TIMEOUT_MS);
  expect(engine.settlements).toEqual([{ throughTxid: 5, isAcknowledged: true, next: "none" }]);
  expect(outcomes).toEqual(["degraded"]);
  expect(desk.status.degraded).toEqual([NAME]);
  // It arrives at last, and by then the primary is far ahead.
  engine.stand(at(90));
  await pass(5 * TIMEOUT_MS);
  acknowledge(0, at(5));
  expect(desk.status.degraded).toEqual([NAME]);
  await pass(TIMEOUT_MS / 2);
  acknowledge(0, at(89));
  expect(desk.status.degraded).toEqual([NAME]);
  engine.stand(at(95));
  acknowledge(0, at(92));
  expect(desk.status.degraded).toEqual([]);
  expect(engine.settlements.at(-1)).toMatchObject({ next: "wait" });
});

test("async: a replica that has all there is keeps up, however long it took", async () => {
  const { engine, acknowledge, pass, desk } = setUp({ isStrict: false });
  engine.commit(at(5));
  await pass(TIMEOUT_MS);
  await pass(50 * TIMEOUT_MS);
  acknowledge(0, at(5));
  expect(desk.status.degraded).toEqual([]);
});

test("async: without replicas nobody waits for the timeout", () => {
  const { engine, sessions, outcomes, desk } = setUp({ isStrict: false, replicas: 1 });
  engine.commit(at(5));
  expect(engine.settlements).toEqual([]);
  sessions[0]?.end();
  expect(engine.settlements).toEqual([{ throughTxid: 5, isAcknowledged: true, next: "wait" }]);
  expect(desk.status.degraded).toEqual([NAME]);
  engine.commit(at(6));
  expect(outcomes).toEqual(["degraded", "degraded"]);
});

test("strict: without replicas what waits goes on waiting, they may be back in time", async () => {
  const { engine, sessions, desk, pass } = setUp({ replicas: 1 });
  engine.commit(at(5));
  sessions[0]?.end();
  expect(desk.status.fenced).toEqual([NAME]);
  await pass(TIMEOUT_MS / 2);
  expect(engine.settlements).toEqual([]);
  connect(desk, "R0").acknowledged([{ name: NAME, position: at(5) }]);
  expect(engine.settlements).toEqual([{ throughTxid: 5, isAcknowledged: true, next: "wait" }]);
  expect(desk.status).toEqual({ replicas: ["R0"], fenced: [], degraded: [] });
});

test("with the role everything is forgotten, also a timer that runs", async () => {
  const { engine, acknowledge, desk, pass } = setUp();
  engine.commit(at(5));
  await settle(4);
  desk.endAll();
  await pass(TIMEOUT_MS);
  acknowledge(0, at(5));
  expect(engine.settlements).toEqual([]);
  expect(desk.status.fenced).toEqual([]);
  // The primary again: what was acknowledged before is not any more.
  desk.endAll();
  engine.commit(at(5));
  expect(engine.settlements).toEqual([]);
  acknowledge(0, at(5));
  expect(engine.settlements).toHaveLength(1);
});

test("only whom the next primary could be counts, where there can be another", () => {
  const { desk } = setUp({ countsOnlyCandidates: true, replicas: 0 });
  const filter = new Set([NAME]);
  expect(desk.connect("A", { isCandidate: false, filter: undefined })).toBeUndefined();
  expect(desk.connect("B", { isCandidate: true, filter })).toBeUndefined();
  expect(desk.connect("C", { isCandidate: true, filter: undefined })).toBeDefined();
  const { desk: other } = setUp({ replicas: 0 });
  expect(other.connect("A", { isCandidate: false, filter: undefined })).toBeDefined();
  expect(other.connect("B", { isCandidate: false, filter })).toBeUndefined();
});

test("two who wait for one position are both told by one acknowledgement", async () => {
  const { engine, acknowledge, desk, pass } = setUp({ replicas: 1 });
  // The commit itself, and its sender, who has lost the connection and asks for the outcome.
  engine.commit(at(5));
  engine.commit(at(5));
  acknowledge(0, at(5));
  await pass(100 * TIMEOUT_MS);
  expect(engine.settlements).toEqual([{ throughTxid: 5, isAcknowledged: true, next: "wait" }]);
  expect(desk.status.fenced).toEqual([]);
});

test("nobody is kept from writing when the replicas are where the database stands already", async () => {
  const { engine, acknowledge, desk, pass } = setUp({ replicas: 1 });
  engine.commit(at(5));
  // The database is dropped, for which nobody waits; the replica tells of both together.
  engine.stand(at(6));
  acknowledge(0, at(6));
  await pass(TIMEOUT_MS);
  expect(desk.status.fenced).toEqual([]);
  expect(engine.settlements.at(-1)).toEqual({ throughTxid: 5, isAcknowledged: true, next: "wait" });
});
