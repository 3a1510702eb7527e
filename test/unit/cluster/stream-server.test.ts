import { describe, expect, test } from "vitest";
import type { StreamServerOptions } from "../../../src/cluster/replication/stream-server.ts";
import { LitefsError } from "../../../src/lib/errors.ts";
import { decodePositionMap, encodePositionMap } from "../../../src/wire/position-map.ts";
import type { FakeEngine } from "../../support/fake-engine.ts";
import { byDatabase, loadState2, plainFrames, readCapture, stateFiles } from "./captures.ts";
import { FakeClock, MemorySink, newEngine, newStreamServer, settle } from "./stand-ins.ts";
import { framesOf } from "./world.ts";

/** A server with one connected replica. */
function connect(
  engine: FakeEngine,
  request: { readonly map: Uint8Array; readonly filter?: string },
  changes: Partial<StreamServerOptions> = {},
) {
  const clock = new FakeClock();
  const server = newStreamServer(engine, { clock, ...changes });
  const sink = new MemorySink();
  const gone = new AbortController();
  const entries = decodePositionMap(request.map);
  const ended = server.serve(
    {
      clientNodeId: "C0FFEE0000000001",
      replica: undefined,
      positions: new Map(entries.map(({ name, position }) => [name, position])),
      filter: request.filter === undefined ? undefined : new Set([request.filter]),
    },
    sink,
    gone.signal,
  );
  // Every test looks at the outcome itself; until then it must not count as unhandled.
  ended.catch(() => undefined);
  return { server, sink, gone, ended, clock };
}

const EMPTY_MAP = Uint8Array.of(0, 0, 0, 0);

function state1(count: number): FakeEngine {
  const engine = newEngine();
  engine.load("app.db", stateFiles("state-1", "app.db").slice(0, count));
  return engine;
}

function state2(): FakeEngine {
  const engine = newEngine();
  loadState2(engine);
  return engine;
}

function withoutLog(engine: FakeEngine, txid: number): FakeEngine {
  engine.database("app.db").log.delete(txid);
  return engine;
}

/** What each capture was recorded against. */
const CAPTURES: Readonly<Record<string, () => FakeEngine>> = {
  "a-empty-map": () => state1(8),
  "b-three-behind": () => state1(8),
  "c-diverged": () => state1(8),
  "d-diverged-behind": () => state1(8),
  "e-up-to-date": () => state1(8),
  "f-ahead": () => state1(8),
  "g-zero-position": () => state1(8),
  "h-unknown-db": () => state1(8),
  "h2-unknown-db-zero": () => state1(8),
  "j-file-missing": () => withoutLog(state1(10), 9),
  "j2-file-missing-later": () => withoutLog(state1(10), 9),
  "k-many-empty-map": state2,
  "k2-many-mixed": state2,
  "l-filter": state2,
  "m-filter-unknown": state2,
  "n-deletion": state2,
};

describe("the frames of a real LiteFS primary", () => {
  test.each(Object.entries(CAPTURES))("%s", async (name, engineOf) => {
    const capture = readCapture(name);
    const filter = new URL(capture.path, "http://x").searchParams.get("filter");
    const { sink, server, ended } = connect(engineOf(), {
      map: capture.request,
      ...(filter === null ? {} : { filter }),
    });
    await settle();
    expect(byDatabase(plainFrames(sink.bytes))).toEqual(byDatabase(plainFrames(capture.response)));
    server.endAll();
    await ended;
  });

  test("i-live: commits while connected, then a heartbeat", async () => {
    const capture = readCapture("i-live");
    const engine = state1(8);
    const { sink, clock, server, ended } = connect(engine, { map: capture.request });
    await settle();
    for (const file of stateFiles("state-1", "app.db").slice(8)) {
      engine.load("app.db", [file]);
      await settle();
    }
    clock.advance(1000);
    await settle();
    expect(plainFrames(sink.bytes)).toEqual(plainFrames(capture.response));
    server.endAll();
    await ended;
  });

  test("o-server-shutdown: a heartbeat after an idle second, then End", async () => {
    const capture = readCapture("o-server-shutdown");
    const { sink, clock, server, ended } = connect(state2(), { map: capture.request });
    await settle();
    clock.advance(1000);
    await settle();
    server.endAll();
    await ended;
    expect(plainFrames(sink.bytes)).toEqual(plainFrames(capture.response));
  });
});

describe("stream server", () => {
  test("sends a commit without waiting for a timer", async () => {
    const engine = state1(8);
    const { sink, server, ended } = connect(engine, { map: readCapture("e-up-to-date").request });
    await settle();
    sink.chunks.length = 0;
    engine.load("app.db", stateFiles("state-1", "app.db").slice(8, 9));
    await settle();
    expect(plainFrames(sink.bytes).map(({ type }) => type)).toEqual(["ltx", "hwm"]);
    server.endAll();
    await ended;
  });

  test("sends many transactions in few writes", async () => {
    const engine = newEngine();
    const page = new Uint8Array(512);
    engine.commit("a.db", [{ pgno: 1, data: page }], 1);
    const { sink, server, ended } = connect(engine, { map: EMPTY_MAP });
    await settle();
    sink.chunks.length = 0;
    for (let i = 0; i < 200; i++) engine.commit("a.db", [{ pgno: 1, data: page.fill(i) }], 1);
    await settle();
    const types = plainFrames(sink.bytes).map(({ type }) => type);
    expect(types.filter((type) => type === "ltx")).toHaveLength(200);
    expect(sink.chunks.length).toBeLessThan(5);
    expect(server.sentFrames.get("a.db")).toEqual({ ltx: 200, "ltx:snapshot": 1 });
    server.endAll();
    await ended;
  });

  test("a busy stream sends no heartbeats, an idle one does", async () => {
    const engine = state1(8);
    const { sink, clock, server, ended } = connect(engine, {
      map: readCapture("e-up-to-date").request,
    });
    await settle();
    clock.advance(600);
    engine.load("app.db", stateFiles("state-1", "app.db").slice(8, 9));
    await settle();
    clock.advance(600);
    await settle();
    sink.chunks.length = 0;
    clock.advance(399);
    await settle();
    expect(sink.bytes).toHaveLength(0);
    clock.advance(1);
    await settle();
    expect(plainFrames(sink.bytes).map(({ type }) => type)).toEqual(["heartbeat"]);
    server.endAll();
    await ended;
  });

  test("a snapshot waits for a slow reader and keeps only one portion in memory", async () => {
    const engine = newEngine(1);
    const pages = Array.from({ length: 50 }, (_, i) => ({
      pgno: i + 1,
      data: new Uint8Array(4096).fill(i),
    }));
    engine.commit("big.db", pages, 50);
    let portions = 0;
    engine.beforePortion = () => {
      portions += 1;
      return Promise.resolve();
    };
    const { sink, server, ended } = connect(engine, { map: EMPTY_MAP }, { compress: false });
    sink.isFull = true;
    await settle();
    expect(portions).toBe(1);
    sink.drain();
    await settle(300);
    const [snapshot] = plainFrames(sink.bytes);
    expect(snapshot).toMatchObject({ type: "ltx", name: "big.db", commit: 50 });
    expect(engine.openSnapshots).toBe(0);
    server.endAll();
    await ended;
  });

  test("a snapshot that takes too long breaks the stream and frees the source", async () => {
    const engine = state1(8);
    const { sink, clock, ended } = connect(engine, { map: EMPTY_MAP }, { snapshotTimeoutMs: 5000 });
    sink.isFull = true;
    await settle();
    clock.advance(5000);
    await expect(ended).rejects.toMatchObject({ code: "SNAPSHOT_TIMEOUT" });
    expect(engine.openSnapshots).toBe(0);
  });

  test("a stop in the middle of a snapshot breaks the stream, never ends a broken frame", async () => {
    const engine = state1(8);
    const { sink, server, ended } = connect(engine, { map: EMPTY_MAP });
    sink.isFull = true;
    await settle();
    const before = sink.bytes.length;
    server.endAll();
    await expect(ended).rejects.toThrow();
    expect(sink.bytes).toHaveLength(before);
    expect(server.sessionCount).toBe(0);
  });

  test("a snapshot of damaged pages is never completed, and not tried again and again", async () => {
    const engine = state1(8);
    engine.database("app.db").pages.set(2, new Uint8Array(4096).fill(7));
    const verified: string[] = [];
    const verify = engine.verify.bind(engine);
    engine.verify = (name) => {
      verified.push(name);
      return verify(name);
    };
    const first = connect(engine, { map: EMPTY_MAP });
    await expect(first.ended).rejects.toMatchObject({ code: "SNAPSHOT_CHECKSUM_MISMATCH" });
    // The engine reads it itself, and quarantines it.
    expect(verified).toEqual(["app.db"]);
    expect(() => plainFrames(first.sink.bytes)).toThrow(LitefsError);
    const again = new MemorySink();
    const request = {
      clientNodeId: "1",
      replica: undefined,
      positions: new Map(),
      filter: undefined,
    };
    const ended = first.server.serve(request, again, new AbortController().signal);
    await settle();
    expect(plainFrames(again.bytes).map(({ type }) => type)).toEqual(["ready", "heartbeat"]);
    first.server.endAll();
    await ended;
  });

  test("a quarantined database does not keep the others from being sent", async () => {
    const engine = state2();
    engine.database("app.db").status = "quarantined";
    engine.touch("app.db");
    const { sink, server, ended } = connect(engine, { map: EMPTY_MAP });
    await settle();
    const frames = plainFrames(sink.bytes);
    expect(frames.map((frame) => frame["name"])).not.toContain("app.db");
    expect(frames.map(({ type }) => type)).toContain("ready");
    server.endAll();
    await ended;
  });

  test("a database that cannot be read delays only itself, and is tried again", async () => {
    const engine = state2();
    const openSnapshot = engine.openSnapshot.bind(engine);
    const readLog = engine.readLog.bind(engine);
    let isBroken = true;
    engine.openSnapshot = (name) =>
      isBroken && name === "app.db"
        ? Promise.reject(new Error("input/output error"))
        : openSnapshot(name);
    engine.readLog = (name, after, maxBytes) =>
      isBroken && name === "second.db"
        ? Promise.reject(new Error("input/output error"))
        : readLog(name, after, maxBytes);
    const { sink, clock, server, ended } = connect(engine, {
      map: encodePositionMap([
        { name: "second.db", position: { txid: 3, checksum: 0x80f6fdac456b1698n } },
      ]),
    });
    await settle();
    const names = (): unknown[] => plainFrames(sink.bytes).flatMap(({ name }) => name ?? []);
    expect(names()).toEqual(["deleted.db"]);
    isBroken = false;
    clock.advance(1000);
    await settle();
    expect(names()).toEqual(["deleted.db", "app.db", "second.db", "second.db"]);
    server.endAll();
    await ended;
  });

  test("a replica that leaves is forgotten", async () => {
    const { server, gone, ended } = connect(state1(8), { map: EMPTY_MAP });
    await settle();
    expect(server.sessionCount).toBe(1);
    gone.abort();
    await ended;
    expect(server.sessionCount).toBe(0);
  });
});

test("ready waits for a database that cannot be sent yet", async () => {
  const engine = newEngine();
  engine.commit("app.db", [{ pgno: 1, data: new Uint8Array(512).fill(1) }], 1);
  const open = engine.openSnapshot.bind(engine);
  // A transaction of a rollback mode is open for longer than anybody waits for it.
  engine.openSnapshot = () => Promise.reject(new LitefsError("DATABASE_BUSY", "is being written"));
  const { sink, clock } = connect(engine, { map: EMPTY_MAP });
  await settle();
  expect(framesOf(sink)).not.toContain("ready");
  engine.openSnapshot = open;
  clock.advance(1_000);
  await settle();
  expect(framesOf(sink)).toEqual(["ltx-end", "ready"]);
});
