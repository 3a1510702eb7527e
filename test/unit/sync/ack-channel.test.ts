import * as http2 from "node:http2";
import { expect, test } from "vitest";
import { SyncDesk } from "../../../src/cluster/sync/sync-desk.ts";
import type { WaitSettlement } from "../../../src/database/sync-engine.ts";
import type { SyncPolicy } from "../../../src/database/sync-policy.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { Position } from "../../../src/lib/position.ts";
import type { FakeEngine } from "../../support/fake-engine.ts";
import { stateFiles } from "../cluster/captures.ts";
import { ReplicaHarness, serveNode } from "../cluster/node-harness.ts";
import type { ServedNode } from "../cluster/node-harness.ts";
import { eventually, newEngine } from "../cluster/stand-ins.ts";

const FILES = stateFiles("state-1", "app.db");
const ONE: SyncPolicy = { needed: 1, databases: new Map(), isStrict: true };

interface Primary {
  readonly node: ServedNode;
  readonly engine: FakeEngine;
  readonly desk: SyncDesk;
  readonly settlements: WaitSettlement[];
  readonly counts: number[];
  /** A commit of the application waits for where the database stands now. */
  readonly commitWaits: () => void;
}

async function primary(policy: SyncPolicy = ONE): Promise<Primary> {
  const engine = newEngine();
  engine.load("app.db", FILES.slice(0, 5));
  const settlements: WaitSettlement[] = [];
  const counts: number[] = [];
  let listener: (database: string, position: Position) => void = () => undefined;
  const desk = new SyncDesk({
    engine: {
      databases: engine.databases,
      setReplicaCount: (count) => counts.push(count),
      onCommitWaits: (told) => (listener = told),
      settleWaits: (_database, settlement) => {
        settlements.push(settlement);
        return Promise.resolve();
      },
      makeDurable: () => Promise.resolve(undefined),
    },
    policy,
    timeoutMs: 60_000,
    countsOnlyCandidates: false,
    clock: systemClock,
    log: silentLogger,
    isPrimary: () => true,
    onWaited: () => undefined,
  });
  const node = await serveNode(engine, { sync: desk });
  const commitWaits = (): void => listener("app.db", engine.database("app.db").position);
  return { node, engine, desk, settlements, counts, commitWaits };
}

test("a replica acknowledges what it has from before, and then all it applies", async () => {
  const { node, engine, desk, settlements, counts, commitWaits } = await primary();
  const synced: string[] = [];
  const replica: ReplicaHarness = new ReplicaHarness({
    makeDurable: (database) => {
      synced.push(database);
      return Promise.resolve(replica.engine.databases.get(database)?.position);
    },
  });
  const following = replica.follow(node.url);
  commitWaits();
  await eventually(() => settlements.length === 1);
  expect(settlements[0]).toEqual({ throughTxid: 5, isAcknowledged: true, next: "wait" });
  expect(synced).toEqual(["app.db"]);
  expect(counts).toEqual([1]);
  engine.load("app.db", FILES.slice(5, 6));
  commitWaits();
  await eventually(() => settlements.length === 2);
  expect(settlements[1]).toMatchObject({ throughTxid: 6 });
  // Each batch is on the disk before it counts.
  expect(replica.engine.durableApplies).toBeGreaterThan(0);
  expect(replica.engine.durableApplies).toBe(replica.engine.applies);
  node.streams.endAll();
  await following;
  await eventually(() => desk.status.replicas.length === 0);
  expect(counts).toEqual([1, 0]);
});

test("a replica that cannot catch up does not count", async () => {
  const { node, counts, desk, settlements, commitWaits } = await primary();
  const replica = new ReplicaHarness({ makeDurable: () => Promise.resolve(undefined) });
  replica.engine.beforeApply = () => new Promise(() => undefined);
  replica.follow(node.url).catch(() => undefined);
  await eventually(() => replica.seen.includes("connected"));
  commitWaits();
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect([counts, desk.status.replicas, settlements]).toEqual([[], [], []]);
});

test("a primary that waits for nobody is told nothing, and its replicas sync nothing", async () => {
  const engine = newEngine();
  engine.load("app.db", FILES.slice(0, 5));
  const node = await serveNode(engine);
  const synced: string[] = [];
  const replica = new ReplicaHarness({
    makeDurable: (database) => {
      synced.push(database);
      return Promise.resolve(undefined);
    },
  });
  const following = replica.follow(node.url);
  await eventually(() => replica.seen.includes("ready"));
  engine.load("app.db", FILES.slice(5));
  await eventually(() => replica.engine.databases.get("app.db")?.position.txid === 10);
  expect(synced).toEqual([]);
  expect(replica.engine.applies).toBeGreaterThan(0);
  expect(replica.engine.durableApplies).toBe(0);
  node.streams.endAll();
  await following;
});

/** One request on a connection of its own; what it is answered, or "reset". */
async function post(
  url: string,
  headers: Record<string, string>,
  body: Uint8Array | undefined,
): Promise<string> {
  const session = http2.connect(url);
  const stream = session.request({ ":method": "POST", ":path": "/acks", ...headers });
  const answer = Promise.withResolvers<string>();
  stream.on("error", () => answer.resolve("reset"));
  stream.on("close", () => answer.resolve(stream.rstCode === 0 ? "closed" : "reset"));
  let text = "";
  stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
  stream.on("response", ({ ":status": status }) => {
    if (status === 200) return;
    stream.on("end", () => answer.resolve(`${status} ${text.trim()}`));
  });
  if (body === undefined) stream.end();
  else stream.write(body);
  const found = await answer.promise;
  session.destroy();
  return found;
}

test("bad requests are refused, and change nothing", async () => {
  const { node, counts, settlements, commitWaits } = await primary();
  const headers = { "litefs-id": "00000000000000CC" };
  expect(await post(node.url, headers, undefined)).toBe("409 no stream is open to this node");
  expect(await post(node.url, {}, undefined)).toMatch(/^409 /);
  const http1 = await fetch(`${node.url}/acks`, { method: "POST" });
  expect(http1.status).toBe(426);
  node.role = { isPrimary: false, primaryHostname: undefined, phase: "replica" };
  expect(await post(node.url, headers, undefined)).toMatch(/^503 /);
  commitWaits();
  expect([counts, settlements]).toEqual([[], []]);
});

test("bytes that cannot be read end the request, and what it had acknowledged", async () => {
  const { node, counts, desk } = await primary();
  const replica = new ReplicaHarness();
  replica.follow(node.url).catch(() => undefined);
  await eventually(() => replica.seen.includes("ready"));
  const headers = { "litefs-id": "00000000000000B2" };
  expect(await post(node.url, headers, new Uint8Array(8).fill(255))).toBe("reset");
  await eventually(() => counts.length === 2);
  expect(counts).toEqual([1, 0]);
  expect(desk.status.replicas).toEqual([]);
});
