import * as fs from "node:fs";
import * as http2 from "node:http2";
import * as fc from "fast-check";
import { describe, expect, onTestFinished, test } from "vitest";
import type { OpenedStream } from "../../../src/cluster/replication/stream-transport.ts";
import { LitefsError } from "../../../src/lib/errors.ts";
import { formatPosition, ZERO_POSITION } from "../../../src/lib/position.ts";
import { decodePositionMap } from "../../../src/wire/position-map.ts";
import {
  encodeEnd,
  encodeHeartbeat,
  encodeLtxBegin,
  encodeLtxFrame,
  encodeReady,
} from "../../../src/wire/stream-encoder.ts";
import { FakeEngine } from "../../support/fake-engine.ts";
import { readCapture, stateFiles } from "./captures.ts";
import { eventually, FakeClock, newEngine, settle, temporaryDirectory } from "./stand-ins.ts";
import { CLUSTER_ID, ReplicaHarness, serveNode } from "./node-harness.ts";

/** A stream that brings some frames and then nothing more, until it is destroyed and breaks. */
function hangingStream(frames: readonly Uint8Array[]): OpenedStream {
  const cut = Promise.withResolvers<undefined>();
  return {
    status: 200,
    clusterId: undefined,
    body: (async function* () {
      yield* frames;
      await cut.promise;
      throw new Error("reset by peer");
    })(),
    destroy: () => cut.resolve(undefined),
  };
}

/** A primary that answers every request with the given bytes and then does as it is told. */
async function recordedPrimary(
  answer: Uint8Array,
  then: "end" | "hold" | "reset" = "end",
): Promise<{ readonly url: string; readonly requests: Buffer[] }> {
  const requests: Buffer[] = [];
  const server = http2.createServer();
  const sessions = new Set<http2.ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  server.on("stream", (stream) => {
    const body: Buffer[] = [];
    stream.on("error", () => undefined);
    stream.on("data", (chunk: Buffer) => body.push(chunk));
    stream.on("end", () => {
      requests.push(Buffer.concat(body));
      stream.respond({ ":status": 200, "litefs-cluster-id": CLUSTER_ID });
      stream.write(answer, () => {
        if (then === "end") stream.end();
        if (then === "reset") stream.session?.socket.destroy();
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    for (const session of sessions) session.destroy();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no TCP address");
  return { url: `http://127.0.0.1:${address.port}`, requests };
}

/** A replica that has what the recorded client had. */
function replicaAt(request: Uint8Array): FakeEngine {
  const engine = newEngine();
  for (const { name, position } of decodePositionMap(request)) {
    const state = name === "app.db" ? "state-1" : "state-2";
    if (name !== "ghost.db") engine.load(name, stateFiles(state, name).slice(0, position.txid));
    // A client that is ahead or has diverged claims what no log here holds.
    engine.database(name).position = position;
    engine.touch(name);
  }
  return engine;
}

describe("the answers of a real LiteFS primary", () => {
  const names = fs
    .readdirSync(`${import.meta.dirname}/../../fixtures/litefs-0.5.14/stream`)
    .filter((name) => name.endsWith(".response.bin") && !name.startsWith("err-"))
    .map((name) => name.replace(".response.bin", ""));

  test.each(names)("%s", async (name) => {
    const capture = readCapture(name);
    const primary = await recordedPrimary(capture.response);
    const replica = new ReplicaHarness({ engine: replicaAt(capture.request) });
    await replica.follow(primary.url);
    expect(replica.seen).toContain("ready");
    expect(replica.clusterId.current).toBe(CLUSTER_ID);
    for (const [database, { pos, sha256 }] of Object.entries(capture.clientAfter)) {
      expect(formatPosition(replica.engine.database(database).position)).toBe(pos);
      // Null for databases that the recorded client never had the content of.
      if (sha256 === null || pos.endsWith("/0000000000000000")) continue;
      expect(replica.engine.database(database).sha256()).toBe(sha256);
    }
  });
});

const APP_FILES = stateFiles("state-1", "app.db");

function incrementals(from: number, to: number): Uint8Array[] {
  return APP_FILES.slice(from - 1, to).map((ltx) => encodeLtxFrame("app.db", ltx));
}

describe("stream client", () => {
  test("follows a primary, over HTTP/2, from nothing to live commits", async () => {
    const primary = newEngine();
    primary.load("app.db", APP_FILES.slice(0, 5));
    const node = await serveNode(primary);
    const replica = new ReplicaHarness();
    const following = replica.follow(node.url);
    await eventually(() => replica.seen.includes("ready"));
    expect(replica.lag.isCaughtUp).toBe(true);
    primary.load("app.db", APP_FILES.slice(5));
    await eventually(() => replica.engine.databases.get("app.db")?.position.txid === 10);
    expect(replica.engine.database("app.db").sha256()).toBe(primary.database("app.db").sha256());
    node.streams.endAll();
    await expect(following).resolves.toEqual({ announced: true });
  });

  test("hands over what arrived together in one batch", async () => {
    const batches: number[] = [];
    const replica = new ReplicaHarness();
    replica.engine.load("app.db", APP_FILES.slice(0, 1));
    replica.engine.beforeApply = (_database, count) => {
      batches.push(count);
      return Promise.resolve(undefined);
    };
    const primary = await recordedPrimary(
      Buffer.concat([...incrementals(2, 10), encodeReady(), encodeEnd()]),
    );
    await replica.follow(primary.url);
    expect(batches.reduce((a, b) => a + b)).toBe(9);
    expect(batches.length).toBeLessThan(4);
  });

  test("a slow database does not hold up another", async () => {
    const replica = new ReplicaHarness();
    const release = Promise.withResolvers<undefined>();
    replica.engine.beforeApply = (database) =>
      database === "app.db" ? release.promise : Promise.resolve(undefined);
    const primary = await recordedPrimary(
      Buffer.concat([
        encodeLtxFrame("app.db", APP_FILES[0] ?? new Uint8Array()),
        encodeLtxFrame("other.db", APP_FILES[0] ?? new Uint8Array()),
        encodeReady(),
      ]),
      "hold",
    );
    const following = replica.follow(primary.url);
    await eventually(() => replica.engine.databases.get("other.db")?.position.txid === 1);
    expect(replica.seen).not.toContain("ready");
    expect(replica.lag.isCaughtUp).toBe(false);
    release.resolve(undefined);
    await eventually(() => replica.seen.includes("ready"));
    replica.stop.abort();
    await expect(following).rejects.toThrow();
  });

  test("stops reading while too much waits to be applied", async () => {
    const replica = new ReplicaHarness({ maxBufferedBytes: 4000 });
    replica.engine.load("app.db", APP_FILES.slice(0, 1));
    const release = Promise.withResolvers<undefined>();
    replica.engine.beforeApply = () => release.promise;
    let pulled = 0;
    const opened: OpenedStream = {
      status: 200,
      clusterId: undefined,
      body: (async function* () {
        for (const frame of [...incrementals(2, 10), encodeReady()]) {
          pulled += 1;
          yield frame;
        }
      })(),
      destroy: () => undefined,
    };
    const client = new ReplicaHarness({
      engine: replica.engine,
      maxBufferedBytes: 4000,
      openStream: () => Promise.resolve(opened),
    });
    const following = client.follow("http://primary");
    await settle();
    expect(pulled).toBeLessThan(6);
    release.resolve(undefined);
    await following;
    expect(replica.engine.databases.get("app.db")?.position.txid).toBe(10);
  });

  test.each(["breaks", "is left"])(
    "what arrived before the connection %s is applied, for it may be nowhere else",
    async (how) => {
      const release = Promise.withResolvers<undefined>();
      const hangs = hangingStream([encodeReady(), ...incrementals(2, 10)]);
      const replica = new ReplicaHarness({ openStream: () => Promise.resolve(hangs) });
      replica.engine.load("app.db", APP_FILES.slice(0, 1));
      replica.engine.beforeApply = () => release.promise;
      const following = replica.follow("http://primary");
      await settle();
      if (how === "breaks") hangs.destroy();
      else replica.leave.abort();
      await settle();
      release.resolve(undefined);
      if (how === "breaks") await expect(following).rejects.toThrow("reset by peer");
      else await expect(following).resolves.toEqual({ announced: true });
      expect(replica.engine.databases.get("app.db")?.position.txid).toBe(10);
    },
  );

  test.each([
    ["breaks", 10_000],
    ["is left", 1_000],
  ])(
    "an application that reads keeps what arrived before the connection %s from being applied for so long only",
    async (how, graceMs) => {
      const blocked = Promise.withResolvers<undefined>();
      const hangs = hangingStream([encodeReady(), ...incrementals(2, 10)]);
      const clock = new FakeClock();
      const openStream = (): Promise<OpenedStream> => Promise.resolve(hangs);
      const replica = new ReplicaHarness({ clock, openStream, readTimeoutMs: 100_000 });
      replica.engine.load("app.db", APP_FILES.slice(0, 1));
      replica.engine.beforeApply = () => blocked.promise;
      replica.engine.onAbandon = () =>
        blocked.reject(new LitefsError("APPLY_ABANDONED", "nobody wants it"));
      const following = replica.follow("http://primary");
      let isOver = false;
      following.catch(() => {
        isOver = true;
      });
      await settle();
      if (how === "breaks") hangs.destroy();
      else replica.leave.abort();
      await settle();
      clock.advance(graceMs - 1);
      await settle();
      expect(isOver).toBe(false);
      clock.advance(1);
      await expect(following).rejects.toMatchObject({
        code: "READERS_IN_THE_WAY",
        message: expect.stringContaining("applications that read app.db"),
      });
    },
  );

  test("stopping does not wait for applications that read", async () => {
    const replica = new ReplicaHarness();
    replica.engine.load("app.db", APP_FILES.slice(0, 1));
    const blocked = Promise.withResolvers<undefined>();
    replica.engine.beforeApply = () => blocked.promise;
    replica.engine.onAbandon = () =>
      blocked.reject(new LitefsError("APPLY_ABANDONED", "nobody wants it"));
    const primary = await recordedPrimary(incrementals(2, 3)[0] ?? Buffer.alloc(0), "hold");
    const following = replica.follow(primary.url);
    await eventually(() => replica.engine.applies === 1);
    replica.stop.abort();
    await expect(following).rejects.toThrow();
    expect(replica.seen).toEqual(["connected"]);
  });

  test("a mismatch ends the stream; the second one at the same place asks for a snapshot", async () => {
    const replica = new ReplicaHarness();
    replica.engine.load("app.db", APP_FILES.slice(0, 2));
    const primary = await recordedPrimary(
      Buffer.concat([...incrementals(5, 5), encodeReady()]),
      "hold",
    );
    for (let i = 0; i < 3; i++) {
      await expect(replica.follow(primary.url)).rejects.toMatchObject({ code: "REPLICA_MISMATCH" });
    }
    const maps = primary.requests.map((body) => decodePositionMap(body));
    expect(maps.map(([entry]) => entry?.position.txid)).toEqual([2, 2, 0]);
  });

  test("stopping does not wait for everything that was received, only for what has begun", async () => {
    const replica = new ReplicaHarness();
    replica.engine.load("app.db", APP_FILES.slice(0, 1));
    const release = Promise.withResolvers<undefined>();
    let begun = 0;
    replica.engine.beforeApply = () => {
      begun += 1;
      return release.promise;
    };
    const primary = await recordedPrimary(
      Buffer.concat([...incrementals(2, 3), encodeReady()]),
      "hold",
    );
    const following = replica.follow(primary.url);
    await eventually(() => begun === 1);
    replica.stop.abort();
    await settle();
    release.resolve(undefined);
    await expect(following).rejects.toThrow();
    expect(begun).toBe(1);
    expect(replica.seen).toEqual(["connected", "applied app.db"]);
  });

  test("a quarantined database is left alone, the others go on", async () => {
    const replica = new ReplicaHarness();
    replica.engine.beforeApply = (database) =>
      Promise.resolve(
        database === "bad.db" ? { kind: "quarantined" as const, reason: "damaged" } : undefined,
      );
    const [first = new Uint8Array(), second = new Uint8Array()] = APP_FILES;
    const primary = await recordedPrimary(
      Buffer.concat([
        encodeLtxFrame("bad.db", first),
        encodeLtxFrame("app.db", first),
        encodeReady(),
        encodeLtxFrame("bad.db", second),
        encodeLtxFrame("app.db", second),
        encodeEnd(),
      ]),
    );
    await expect(replica.follow(primary.url)).resolves.toEqual({ announced: true });
    expect(replica.engine.databases.get("app.db")?.position.txid).toBe(2);
    expect(fs.existsSync(replica.engine.snapshotPath("bad.db"))).toBe(false);
  });

  test("a position of zero asks for a snapshot in place of a quarantined database", async () => {
    const replica = new ReplicaHarness();
    replica.engine.load("app.db", APP_FILES);
    replica.engine.database("app.db").status = "quarantined";
    replica.engine.touch("app.db");
    const primary = await recordedPrimary(encodeReady());
    await replica.follow(primary.url);
    expect(decodePositionMap(primary.requests[0] ?? new Uint8Array())).toEqual([
      { name: "app.db", position: ZERO_POSITION },
    ]);
  });

  test("refuses a primary of another cluster", async () => {
    const replica = new ReplicaHarness();
    replica.clusterId.adopt("LFSCAAAAAAAAAAAAAAAA");
    const primary = await recordedPrimary(encodeReady());
    await expect(replica.follow(primary.url)).rejects.toMatchObject({
      code: "CLUSTER_ID_MISMATCH",
    });
    expect(replica.seen).toEqual([]);
  });

  test("says what a node that is not the primary answered", async () => {
    const node = await serveNode(newEngine(), {
      role: { isPrimary: false, primaryHostname: "elsewhere", phase: "replica" },
    });
    const replica = new ReplicaHarness();
    await expect(replica.follow(node.url)).rejects.toThrow(/503 lease expired/);
  });

  test("nobody listens: one line that names the primary", async () => {
    const replica = new ReplicaHarness();
    await expect(replica.follow("http://127.0.0.1:1")).rejects.toMatchObject({
      code: "PRIMARY_UNREACHABLE",
    });
    await expect(replica.follow("nonsense")).rejects.toMatchObject({
      code: "ADVERTISE_URL_INVALID",
    });
  });

  test("a silent primary is given up after the read timeout", async () => {
    const clock = new FakeClock();
    const replica = new ReplicaHarness({ clock, readTimeoutMs: 5000 });
    const primary = await recordedPrimary(
      Buffer.concat([encodeReady(), encodeHeartbeat(1)]),
      "hold",
    );
    const following = replica.follow(primary.url);
    await eventually(() => replica.seen.includes("ready"));
    await settle();
    clock.advance(5000);
    await expect(following).rejects.toMatchObject({ code: "PRIMARY_SILENT" });
  });

  test("a primary that never answers is given up, too", async () => {
    const clock = new FakeClock();
    const replica = new ReplicaHarness({
      clock,
      openStream: (_request, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
        }),
    });
    const following = replica.follow("http://primary");
    await settle();
    clock.advance(5000);
    await expect(following).rejects.toMatchObject({ code: "PRIMARY_SILENT" });
  });

  test("text in the stream, as old primaries send it, is an error and not applied", async () => {
    const primary = await recordedPrimary(Buffer.from("lease expired\n"));
    await expect(new ReplicaHarness().follow(primary.url)).rejects.toMatchObject({
      code: "STREAM_INVALID",
    });
  });

  test("a snapshot cut off in the middle leaves nothing behind", async () => {
    const replica = new ReplicaHarness();
    const frame = encodeLtxFrame("app.db", APP_FILES[0] ?? new Uint8Array());
    const primary = await recordedPrimary(frame.subarray(0, frame.length - 9));
    await expect(replica.follow(primary.url)).rejects.toMatchObject({ code: "STREAM_TRUNCATED" });
    expect(fs.existsSync(replica.engine.snapshotPath("app.db"))).toBe(false);
    expect(replica.engine.databases.size).toBe(0);
  });

  test("an LTX file shorter than its header is an error", async () => {
    const primary = await recordedPrimary(
      Buffer.concat([encodeLtxBegin("app.db"), Buffer.from([0, 1, 7, 0, 0]), encodeReady()]),
    );
    await expect(new ReplicaHarness().follow(primary.url)).rejects.toMatchObject({
      code: "LTX_TRUNCATED",
    });
  });
});

test("however often a connection breaks, the replica ends up equal", async () => {
  const answer = readCapture("k2-many-mixed").response;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(answer.length), { maxLength: 3 }),
      fc.boolean(),
      async (cuts, byReset) => {
        const directory = temporaryDirectory();
        const engine = new FakeEngine({ directory });
        engine.load("app.db", stateFiles("state-2", "app.db"));
        engine.load("second.db", stateFiles("state-2", "second.db").slice(0, 3));
        for (const cut of cuts) {
          // What the replica has by now may be more than the recorded answer expects: then it is
          // a mismatch, which is an end like any other.
          const primary = await recordedPrimary(answer.subarray(0, cut), byReset ? "reset" : "end");
          await new ReplicaHarness({ engine }).follow(primary.url).catch(() => undefined);
        }
        const source = newEngine();
        for (const name of ["app.db", "second.db", "deleted.db"]) {
          source.load(name, stateFiles("state-2", name));
        }
        const node = await serveNode(source);
        const replica = new ReplicaHarness({ engine });
        const following = replica.follow(node.url);
        await eventually(() => replica.seen.includes("ready"));
        node.streams.endAll();
        await following;
        for (const [name, { position }] of source.databases) {
          expect(engine.databases.get(name)?.position).toEqual(position);
          expect(engine.database(name).sha256()).toBe(source.database(name).sha256());
        }
      },
    ),
    { numRuns: 40 },
  );
});
