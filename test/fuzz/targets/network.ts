import * as net from "node:net";
import { ClusterIdStore } from "../../../src/cluster/cluster-id.ts";
import { TermStore } from "../../../src/cluster/term-store.ts";
import { LoanDesk } from "../../../src/cluster/forwarding/loan-desk.ts";
import { EventHub } from "../../../src/cluster/events.ts";
import { LagTracker } from "../../../src/cluster/replication/lag.ts";
import { StreamClient } from "../../../src/cluster/replication/stream-client.ts";
import { StreamServer } from "../../../src/cluster/replication/stream-server.ts";
import type { OpenedStream } from "../../../src/cluster/replication/stream-transport.ts";
import type { NodeRole } from "../../../src/database/engine.ts";
import { DatabaseImporter } from "../../../src/http/database-import.ts";
import type { NodeApi } from "../../../src/http/node-api.ts";
import { HttpServer } from "../../../src/http/server.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { FakeEngine } from "../../support/fake-engine.ts";
import { FakeWriteEngine } from "../../support/fake-write-engine.ts";
import { temporaryDirectory } from "../temporary.ts";
import { importSeeds, ltxSeeds, streamSeeds } from "../seeds.ts";
import { invariant, tokens } from "../target.ts";
import type { FuzzTarget } from "../target.ts";
import { portionsOf } from "./ltx.ts";

const HEARTBEAT_INTERVAL_MS = 1000;
/** No directory can be made below a file. */
const NOWHERE = import.meta.filename;
function newEngine(): FakeEngine {
  const engine = new FakeEngine({ directory: temporaryDirectory() });
  engine.load("app.db", ltxSeeds("raw-4096").slice(0, 2));
  return engine;
}

/** What a replica makes of the answer to POST /stream. */
export const streamClient: FuzzTarget = {
  name: "stream-client",
  seeds: () => streamSeeds("response"),
  async run(input) {
    const engine = newEngine();
    const client = new StreamClient({
      engine,
      nodeId: "00000000000000B2",
      clusterId: ClusterIdStore.open(temporaryDirectory()),
      terms: TermStore.open(temporaryDirectory()),
      clock: systemClock,
      log: silentLogger,
      lag: new LagTracker({ clock: systemClock, heartbeatIntervalMs: HEARTBEAT_INTERVAL_MS }),
      openStream: () => Promise.resolve(answerOf(input)),
      filter: undefined,
      readTimeoutMs: 60_000,
      maxBufferedBytes: 64 * 1024,
      self: { hostname: "replica", advertiseUrl: "http://replica", isCandidate: true },
    });
    const observer = {
      onConnected: () => undefined,
      onReady: () => undefined,
      onApplied: () => undefined,
    };
    try {
      const never = new AbortController().signal;
      await client.follow("http://primary", observer, never, never);
    } finally {
      for (const { position } of engine.databases.values()) {
        invariant(Number.isSafeInteger(position.txid), "a position is no position");
      }
    }
  },
};

function answerOf(input: Uint8Array): OpenedStream {
  return {
    status: 200,
    clusterId: undefined,
    body: (async function* () {
      for (const portion of portionsOf(input)) yield await Promise.resolve(portion.slice());
    })(),
    destroy: () => undefined,
  };
}

let serving: Promise<HttpServer> | undefined;
/** What nobody caught: it would have ended the node. */
let uncaught: unknown;

/** One server for all inputs; a fake engine answers. */
function server(): Promise<HttpServer> {
  serving ??= startServer();
  return serving;
}

async function startServer(): Promise<HttpServer> {
  for (const event of ["uncaughtException", "unhandledRejection"]) {
    process.on(event, (error: unknown) => {
      uncaught = error;
    });
  }
  const engine = newEngine();
  const role: NodeRole = { isPrimary: true, primaryHostname: undefined, phase: "primary" };
  const node: Partial<NodeApi> = {
    nodeId: "00000000000000A1",
    hostname: "primary",
    leaseKind: "static",
    isCandidate: true,
    control: {
      promote: () => Promise.resolve(),
      handOff: () => Promise.resolve(),
      demote: () => Promise.resolve(),
    },
    primary: () => undefined,
    leaseState: () => undefined,
    dataDirectory: "/data",
    engine,
    streams: new StreamServer({
      engine,
      nodeId: 0xa1n,
      clock: systemClock,
      log: silentLogger,
      compress: true,
      heartbeatIntervalMs: HEARTBEAT_INTERVAL_MS,
      snapshotTimeoutMs: 0,
    }),
    events: new EventHub(engine, () => role, silentLogger),
    loans: new LoanDesk({
      engine: new FakeWriteEngine(),
      clock: systemClock,
      log: silentLogger,
      loanMs: 30_000,
      timeoutMs: ANSWER_MS,
      isPrimary: () => role.isPrimary,
    }),
    metrics: { contentType: "text/plain", text: () => Promise.resolve("m 1\n") },
    log: silentLogger,
    // Uploads go nowhere: what becomes of them is SQLite's to say, in a process of its own.
    importer: new DatabaseImporter({ dataDirectory: NOWHERE, mountPoint: NOWHERE }),
    clusterId: () => "LFSC0123456789ABCDEF",
    role: () => role,
    isReady: () => true,
    lagMs: () => 0,
    fuseRequestCounts: () => ({}),
  };
  const address = { host: "127.0.0.1", port: 0 };
  // A part that is missing here shows as a finding of the route that needs it.
  return await HttpServer.start({ address, node: node as NodeApi });
}

/** An answer may be endless, so it is left after this time or at its first bytes. */
const ANSWER_MS = 20;

/** Everything that can be written to the port, in either protocol. */
export const httpConnection: FuzzTarget = {
  name: "http-connection",
  seeds: () => [
    ...ROUTES.map((route) => request(route, "")),
    request("POST /stream?filter=app.db", "\0\0\0\0"),
    ...importSeeds()
      .slice(0, 3)
      .map((body) => request("POST /import?name=x.db", Buffer.from(body).toString("latin1"))),
    http2Request(),
  ],
  dictionary: tokens(
    ..."GET POST PUT HEAD OPTIONS /stream /export /events /check /import /tx /halt ?name= app.db %00 %2f %ff .. HTTP/1.1 HTTP/1.0 Transfer-Encoding:chunked Content-Length: Expect:100-continue Upgrade:h2c Litefs-Id: & =".split(
      " ",
    ),
    "\r\n",
    "\r\n\r\n",
  ),
  maxBytes: 8 * 1024,
  async run(input) {
    const { port } = (await server()).address;
    await new Promise<void>((resolve) => {
      const socket = net.connect(port, "127.0.0.1");
      const timer = setTimeout(() => socket.destroy(), ANSWER_MS);
      socket.once("data", () => socket.destroy());
      socket.on("error", () => undefined);
      socket.once("close", () => {
        clearTimeout(timer);
        resolve();
      });
      socket.end(input);
    });
    const error = uncaught;
    uncaught = undefined;
    if (error !== undefined) throw error;
  },
};

const ROUTES = [
  "GET /",
  "GET /healthz",
  "GET /info",
  "GET /metrics",
  "GET /events",
  "GET /debug/vars",
  "GET /export?name=app.db",
  "GET /export?name=..%2f..&name=b",
  "GET /check?name=app.db",
  "POST /stream",
  "POST /import?name=a",
  "POST /halt?name=a&id=1",
  "DELETE /halt",
  "POST /tx?name=a",
  "POST /promote",
  "POST /handoff?nodeID=x",
];

function request(line: string, body: string): Uint8Array {
  const head = `${line} HTTP/1.1\r\nHost: h\r\nLitefs-Id: 1\r\nContent-Length: ${body.length}`;
  return new Uint8Array(Buffer.from(`${head}\r\n\r\n${body}`, "latin1"));
}

/** The preface, empty settings, and a request whose header block uses the static table alone. */
function http2Request(): Uint8Array {
  const settings = Buffer.from("000000040000000000", "hex");
  const block = Buffer.concat([
    Buffer.from([0x83, 0x86, 0x41, 0x01, 0x68, 0x44, 0x07]),
    Buffer.from("/stream"),
  ]);
  const headers = Buffer.from([0, 0, block.length, 1, 4, 0, 0, 0, 1]);
  const data = Buffer.from([0, 0, 4, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]);
  return new Uint8Array(
    Buffer.concat([
      Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
      settings,
      headers,
      block,
      data,
    ]),
  );
}
