import { execFile } from "node:child_process";
import * as fs from "node:fs";
import * as http from "node:http";
import * as http2 from "node:http2";
import * as net from "node:net";
import * as path from "node:path";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { ForwardingStatistics } from "../../../src/cluster/forwarding/statistics.ts";
import { detectProtocol } from "../../../src/http/listener.ts";
import { HttpServer } from "../../../src/http/server.ts";
import { ZERO_POSITION } from "../../../src/lib/position.ts";
import { encodePositionMap } from "../../../src/wire/position-map.ts";
import { createMetrics } from "../../../src/metrics/registry.ts";
import { readCapture, stateFiles } from "../cluster/captures.ts";
import { eventually, newEngine, settle } from "../cluster/stand-ins.ts";
import { CLUSTER_ID, PRIMARY_ID, serveNode } from "../cluster/node-harness.ts";
import type { ServedNode } from "../cluster/node-harness.ts";

const noElections = { attempts: 0, won: 0, deferred: 0, lost: 0, handedOver: 0, inherited: 0 };

const FIXTURES = path.join(import.meta.dirname, "../../fixtures/litefs-0.5.14");
const STREAM_ONLY = /^\/(import|halt|tx|promote|handoff)\b/;

interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

function request(
  node: ServedNode,
  method: string,
  url: string,
  options: { readonly body?: Uint8Array; readonly headers?: http.OutgoingHttpHeaders } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = http.request(
      { host: "127.0.0.1", port: node.port, method, path: url, headers: options.headers ?? {} },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks),
          }),
        );
      },
    );
    call.on("error", reject);
    call.end(options.body);
  });
}

function request2(
  node: ServedNode,
  headers: http2.OutgoingHttpHeaders,
  body?: Uint8Array,
): Promise<Answer> {
  const session = http2.connect(node.url);
  onTestFinished(() => session.destroy());
  return new Promise((resolve, reject) => {
    const stream = session.request(headers);
    const chunks: Buffer[] = [];
    let answer: http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader = {};
    stream.on("response", (received) => {
      answer = received;
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("error", reject);
    stream.on("end", () =>
      resolve({
        status: answer[":status"] ?? 0,
        headers: answer,
        body: Buffer.concat(chunks),
      }),
    );
    stream.end(body);
  });
}

function loadedEngine() {
  const engine = newEngine();
  engine.load("app.db", stateFiles("state-2", "app.db"));
  engine.load("deleted.db", stateFiles("state-2", "deleted.db"));
  engine.database("zero.db");
  return engine;
}

describe("one port, two protocols", () => {
  test("HTTP/1.1 and HTTP/2 get the same answer, with the node's headers", async () => {
    const node = await serveNode(loadedEngine());
    const first = await request(node, "GET", "/info");
    const second = await request2(node, { ":path": "/info" });
    expect(first.status).toBe(200);
    expect(second.status).toBe(200);
    expect(second.body).toEqual(first.body);
    for (const { headers } of [first, second]) {
      expect(headers["litefs-id"]).toBe(PRIMARY_ID);
      expect(headers["litefs-cluster-id"]).toBe(CLUSTER_ID);
      expect(headers["content-type"]).toBe("text/plain; charset=utf-8");
    }
    expect(first.body.toString()).toBe(
      `{\n  "clusterID": "${CLUSTER_ID}",\n  "isPrimary": true,\n  "candidate": true,\n  "path": "/var/lib/litefs",\n  "primary": {\n    "hostname": "primary.local"\n  }\n}\n`,
    );
  });

  test("curl speaks both", async () => {
    const node = await serveNode(loadedEngine());
    const curl = promisify(execFile);
    const common = ["-s", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"];
    const two = await curl("curl", [...common, "--http2-prior-knowledge", `${node.url}/info`]);
    expect(two.stdout).toBe("2 200");
    const one = await curl("curl", [...common, "--http1.1", `${node.url}/info`]);
    expect(one.stdout).toBe("1.1 200");
  });

  test("the preface may arrive byte by byte", async () => {
    const node = await serveNode(loadedEngine());
    const relay = net.createServer((client) => {
      const upstream = net.connect({ port: node.port, host: "127.0.0.1", noDelay: true });
      client.on("data", (chunk: Buffer) => {
        for (const byte of chunk.subarray(0, 40)) upstream.write(Uint8Array.of(byte));
        upstream.write(chunk.subarray(40));
      });
      upstream.pipe(client);
      client.on("error", () => upstream.destroy());
      upstream.on("error", () => client.destroy());
      client.on("close", () => upstream.destroy());
    });
    await new Promise<void>((resolve) => relay.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void relay.close());
    const address = relay.address();
    if (address === null || typeof address === "string") throw new Error("no TCP address");
    const slow = { ...node, url: `http://127.0.0.1:${address.port}`, port: address.port };
    expect((await request2(slow, { ":path": "/info" })).status).toBe(200);
    expect((await request(slow, "GET", "/info")).status).toBe(200);
  });

  test.each([
    ["", "incomplete"],
    ["P", "incomplete"],
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r", "incomplete"],
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2"],
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", "http2"],
    ["POST / HTTP/1.1", "http1"],
    ["PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n", "http1"],
    ["\0", "http1"],
  ])("%j is %s", (head, protocol) => {
    expect(detectProtocol(Buffer.from(head, "latin1"))).toBe(protocol);
  });

  test("a silent connection is closed", async () => {
    const engine = newEngine();
    const node = await serveNode(engine, { prefaceTimeoutMs: 20 });
    const socket = net.connect(node.port, "127.0.0.1");
    socket.write("PRI * HT");
    await new Promise((resolve) => socket.once("close", resolve));
  });

  test("garbage is answered with 400, and the next request is served", async () => {
    const node = await serveNode(newEngine());
    const socket = net.connect(node.port, "127.0.0.1");
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.write("\0\0\0 nonsense\r\n\r\n");
    await new Promise((resolve) => socket.once("close", resolve));
    expect(Buffer.concat(chunks).toString()).toMatch(/^HTTP\/1\.1 400 /);
    expect((await request(node, "GET", "/info")).status).toBe(200);
  });

  test("a port in use is one clear line", async () => {
    const node = await serveNode(newEngine());
    await expect(
      HttpServer.start({
        address: { host: "127.0.0.1", port: node.port },
        node: node.api,
      }),
    ).rejects.toMatchObject({
      code: "HTTP_ADDRESS_IN_USE",
      message: expect.stringContaining(`127.0.0.1:${node.port}`),
    });
  });
});

describe("routes", () => {
  interface Exchange {
    readonly node: string;
    readonly request: { readonly method: string; readonly path: string };
    readonly response: { readonly status: number; readonly bodyText?: string };
  }

  function exchanges(file: string): Exchange[] {
    const json: { exchanges: Exchange[] } = JSON.parse(
      fs.readFileSync(path.join(FIXTURES, "http", file), "utf8"),
    );
    // What is answered by 501 for now, pprof and friends, and the answer that shows a path.
    return json.exchanges.filter(
      ({ request: { path: url }, response }) =>
        !STREAM_ONLY.test(url) && !/^\/debug\/(rand|pprof)/.test(url) && response.status !== 500,
    );
  }

  const recorded = exchanges("routes.json").filter(({ node }) => node === "primary");

  test.each(recorded)("$request.method $request.path", async (exchange) => {
    const engine = loadedEngine();
    const node = await serveNode(engine);
    // The fixture's databases are others; here app.db stands for both.
    const url = exchange.request.path.replace("roll.db", "app.db");
    const answer = await request(node, exchange.request.method, url);
    expect(answer.status).toBe(exchange.response.status);
    const isText = exchange.response.status >= 400 && exchange.request.method !== "HEAD";
    if (isText) expect(answer.body.toString()).toBe(exchange.response.bodyText);
  });

  const wrong = exchanges("wrong-methods.json").filter(({ response }) => response.status === 405);

  test("wrong methods are 405 wherever they were", async () => {
    const node = await serveNode(loadedEngine());
    expect(wrong.length).toBeGreaterThan(10);
    for (const { request: recordedRequest } of wrong) {
      const answer = await request(node, recordedRequest.method, recordedRequest.path);
      expect([recordedRequest, answer.status]).toEqual([recordedRequest, 405]);
      expect(answer.headers.allow).toBeDefined();
    }
  });

  test("/metrics and /debug carry no headers of ours", async () => {
    const node = await serveNode(loadedEngine());
    for (const url of ["/metrics", "/debug/vars"]) {
      const answer = await request(node, "GET", url);
      expect(answer.status).toBe(200);
      expect(answer.headers["litefs-id"]).toBeUndefined();
    }
  });

  test("/debug/vars has every database under store", async () => {
    const node = await serveNode(loadedEngine());
    const vars = JSON.parse((await request(node, "GET", "/debug/vars")).body.toString());
    const { store, fuse } = vars;
    expect(fuse).toEqual({ LOOKUP: 3, WRITE: 2 });
    expect(store).toMatchObject({
      isPrimary: true,
      candidate: true,
      dbs: {
        "app.db": { name: "app.db", txid: "000000000000000a", checksum: "c1bab2ba0f678e7d" },
        "deleted.db": { status: "deleted" },
      },
    });
  });

  test("/check tells a sound database from a damaged one", async () => {
    const engine = loadedEngine();
    const node = await serveNode(engine);
    const check = async (): Promise<unknown> =>
      JSON.parse((await request(node, "GET", "/check?name=app.db")).body.toString());
    expect(await check()).toEqual({
      name: "app.db",
      result: "ok",
      position: "000000000000000a/c1bab2ba0f678e7d",
    });
    engine.database("app.db").pages.set(2, new Uint8Array(4096));
    expect(await check()).toMatchObject({ result: "mismatch" });
    expect((await request(node, "GET", "/check?name=nope")).status).toBe(404);
    expect((await request(node, "GET", "/check")).status).toBe(400);
  });

  test("/healthz is 503 until the node is ready", async () => {
    const state = { isReady: false };
    const node = await serveNode(newEngine(), state);
    expect((await request(node, "GET", "/healthz")).status).toBe(503);
    state.isReady = true;
    expect((await request(node, "HEAD", "/healthz")).status).toBe(200);
  });

  test("/metrics serves the registry", async () => {
    const engine = loadedEngine();
    const metrics = createMetrics({
      databases: engine.databases,
      isPrimary: () => true,
      lagMs: () => 0,
      streamCount: () => 0,
      subscriberCount: () => 0,
      sentFrames: () => new Map(),
      roleCounters: () => noElections,
      leaseRemainingMs: () => undefined,
      forwarding: new ForwardingStatistics(),
      borrowerOf: () => undefined,
      hasBorrowed: () => false,
      applyLatencyMs: () => new Map(),
      syncStatus: () => undefined,
    });
    const node = await serveNode(engine, { metrics });
    const answer = await request(node, "GET", "/metrics");
    expect(answer.headers["content-type"]).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(answer.body.toString()).toContain('litefs_db_txid{db="app.db"} 10');
  });
});

describe("/export", () => {
  test("is the database file, on either protocol", async () => {
    const engine = loadedEngine();
    const node = await serveNode(engine);
    const image = Buffer.from(engine.database("app.db").image());
    const first = await request(node, "GET", "/export?name=app.db");
    expect(first.headers["content-type"]).toBe("application/octet-stream");
    expect(first.body.equals(image)).toBe(true);
    const second = await request2(node, { ":path": "/export?name=app.db" });
    expect(second.body.equals(image)).toBe(true);
    await eventually(() => engine.openSnapshots === 0);
  });

  test("a deleted database is not found, an empty one is empty", async () => {
    const node = await serveNode(loadedEngine());
    expect((await request(node, "GET", "/export?name=deleted.db")).status).toBe(404);
    const empty = await request(node, "GET", "/export?name=zero.db");
    expect([empty.status, empty.body.length]).toEqual([200, 0]);
  });

  test("a client that leaves early frees the snapshot", async () => {
    const engine = newEngine(1);
    const pages = Array.from({ length: 200 }, (_, i) => ({
      pgno: i + 1,
      data: new Uint8Array(65536).fill(i),
    }));
    engine.commit("big.db", pages, 200);
    const node = await serveNode(engine);
    const call = http.get(`${node.url}/export?name=big.db`);
    call.on("error", () => undefined);
    const response = await new Promise<http.IncomingMessage>((resolve) =>
      call.once("response", resolve),
    );
    response.on("error", () => undefined);
    expect(engine.openSnapshots).toBe(1);
    call.destroy();
    await eventually(() => engine.openSnapshots === 0);
  });
});

describe("/stream refusals", () => {
  test.each(["err-truncated-map", "err-empty-body", "err-own-id", "err-replica", "err-get"])(
    "%s",
    async (name) => {
      const capture = readCapture(name);
      const isPrimary = name !== "err-replica";
      const node = await serveNode(loadedEngine(), {
        role: {
          isPrimary,
          primaryHostname: "primary.local",
          phase: isPrimary ? "primary" : "replica",
        },
      });
      const answer = await request2(
        node,
        {
          ":method": name === "err-get" ? "GET" : "POST",
          ":path": capture.path,
          "litefs-id": name === "err-own-id" ? PRIMARY_ID : "C0FFEE0000000001",
        },
        name === "err-get" ? undefined : capture.request,
      );
      expect(answer.status).toBe(capture.status);
      expect(answer.headers["litefs-id"]).toBe(PRIMARY_ID);
      // Ours says what is wrong with the map, not "EOF".
      if (capture.response.toString() !== "EOF\n") {
        expect(answer.body.toString()).toBe(capture.response.toString());
      }
    },
  );

  test("HTTP/1.1 is told to upgrade", async () => {
    const node = await serveNode(loadedEngine());
    const answer = await request(node, "POST", "/stream", { body: Uint8Array.of(0, 0, 0, 0) });
    expect(answer.status).toBe(426);
    expect(answer.body.toString()).toBe("Upgrade to HTTP/2 required\n");
  });
});

describe("/events", () => {
  function listen(node: ServedNode): { readonly lines: unknown[]; readonly ended: Promise<void> } {
    const lines: unknown[] = [];
    const ended = Promise.withResolvers<void>();
    const call = http.get(`${node.url}/events`, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
        const complete = text.split("\n");
        text = complete.pop() ?? "";
        for (const line of complete) lines.push(JSON.parse(line));
      });
      response.on("end", () => ended.resolve());
      response.on("error", () => ended.resolve());
    });
    call.on("error", () => ended.resolve());
    return { lines, ended: ended.promise };
  }

  test("a time that no calendar has does not silence what follows", async () => {
    const engine = newEngine();
    const node = await serveNode(engine);
    const { lines } = listen(node);
    await eventually(() => lines.length === 1);
    const page = { pgno: 1, data: new Uint8Array(512) };
    engine.commit("app.db", [page], 1, Number.MAX_SAFE_INTEGER);
    await eventually(() => lines.length === 2);
    expect(lines[1]).toMatchObject({ data: { timestamp: "+275760-09-13T00:00:00.000Z" } });
    await node.server.close(1000);
  });

  test("init, every transaction, primary changes, and an end at shutdown", async () => {
    const engine = newEngine();
    engine.load("app.db", stateFiles("state-1", "app.db").slice(0, 2));
    const node = await serveNode(engine);
    const { lines, ended } = listen(node);
    await eventually(() => lines.length === 1);
    expect(lines[0]).toEqual({ type: "init", data: { isPrimary: true } });
    // Three commits of which the engine reports only one change.
    engine.load("app.db", stateFiles("state-1", "app.db").slice(2, 5));
    await eventually(() => lines.length === 4);
    const txids = lines.slice(1).map((line) => JSON.stringify(line).match(/"txID":"0*(\d+)"/)?.[1]);
    expect(txids).toEqual(["3", "4", "5"]);
    expect(lines[3]).toMatchObject({
      type: "tx",
      db: "app.db",
      data: { postApplyChecksum: "c92d18fff72491cc", pageSize: 4096 },
    });
    node.role = { isPrimary: false, primaryHostname: "other.local", phase: "replica" };
    node.events.roleChanged();
    await eventually(() => lines.length === 5);
    expect(lines[4]).toEqual({
      type: "primaryChange",
      data: { isPrimary: false, hostname: "other.local" },
    });
    await node.server.close(1000);
    await ended;
    expect(node.events.subscriberCount).toBe(0);
  });

  test("a subscriber that does not read is dropped", async () => {
    const engine = newEngine();
    const node = await serveNode(engine);
    const socket = net.connect(node.port, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.write("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    socket.pause();
    await eventually(() => node.events.subscriberCount === 1);
    for (let i = 0; i < 200_000 && node.events.subscriberCount > 0; i++) {
      node.events.roleChanged();
      if (i % 1000 === 0) await settle(1);
    }
    expect(node.events.subscriberCount).toBe(0);
    socket.destroy();
  });
});

test("a replica that leaves in the middle of a snapshot frees it", async () => {
  const engine = newEngine(1);
  const pages = Array.from({ length: 100 }, (_, i) => ({
    pgno: i + 1,
    data: new Uint8Array(65536).map((_byte, at) => (at * (i + 7)) % 251),
  }));
  engine.commit("big.db", pages, 100);
  const node = await serveNode(engine);
  const session = http2.connect(node.url);
  const stream = session.request({ ":method": "POST", ":path": "/stream" });
  stream.on("error", () => undefined);
  stream.end(Uint8Array.of(0, 0, 0, 0));
  await new Promise((resolve) => stream.once("response", resolve));
  stream.pause();
  await eventually(() => engine.openSnapshots === 1);
  session.destroy();
  await eventually(() => node.streams.sessionCount === 0);
  expect(engine.openSnapshots).toBe(0);
});

test("a client of HTTP/1 may close its side before the answer", async () => {
  const node = await serveNode(newEngine());
  const socket = net.connect({ port: node.port, host: "127.0.0.1", allowHalfOpen: true });
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.end("GET /info HTTP/1.1\r\nHost: x\r\n\r\n");
  await new Promise((resolve) => socket.once("end", resolve));
  expect(Buffer.concat(chunks).toString()).toMatch(/^HTTP\/1\.1 200 /);
});

test("close does not wait for idle connections", async () => {
  const node = await serveNode(newEngine());
  const agent = new http.Agent({ keepAlive: true });
  onTestFinished(() => agent.destroy());
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    http.get(`${node.url}/info`, { agent }, resolve).on("error", reject);
  });
  response.resume();
  await new Promise((resolve) => response.once("end", resolve));
  const session = http2.connect(node.url);
  await new Promise((resolve) => session.once("connect", resolve));
  // Longer than the test may take.
  await node.server.close(60_000);
});

test("a position map of many databases is read", async () => {
  const node = await serveNode(newEngine());
  const entries = Array.from({ length: 50_000 }, (_, i) => ({
    name: `tenant-number-${i}.db`,
    position: ZERO_POSITION,
  }));
  const session = http2.connect(node.url);
  onTestFinished(() => session.destroy());
  const stream = session.request({ ":method": "POST", ":path": "/stream" });
  stream.end(encodePositionMap(entries));
  let received = 0;
  stream.on("error", () => undefined);
  stream.on("data", (chunk: Buffer) => {
    received += chunk.length;
  });
  // Every one of them is unknown here, which takes a frame each.
  await eventually(() => received > 50_000 * 20);
});

test("close ends an open stream with an End frame and resolves soon", async () => {
  const node = await serveNode(newEngine());
  const answer = request2(
    node,
    { ":method": "POST", ":path": "/stream" },
    Uint8Array.of(0, 0, 0, 0),
  );
  await eventually(() => node.streams.sessionCount === 1);
  await node.server.close(10_000);
  const { body } = await answer;
  expect([...body.subarray(-4)]).toEqual([0, 0, 0, 3]);
});
