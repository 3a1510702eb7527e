import * as http from "node:http";
import * as http2 from "node:http2";
import type { AddressInfo } from "node:net";
import Fastify from "fastify";
import type { FastifyInstance } from "fastify";
import { HTTP2_WINDOW_BYTES } from "../cluster/replication/http2-transport.ts";
import { assert, InvariantError } from "../lib/assert.ts";
import { errorText } from "../lib/errors.ts";
import { DualProtocolListener } from "./listener.ts";
import type { ListenAddress } from "./listener.ts";
import type { NodeApi } from "./node-api.ts";
import { sendText } from "./replies.ts";
import { registerAcks } from "./routes/acks.ts";
import { registerCheck } from "./routes/check.ts";
import { registerDebugVars } from "./routes/debug-vars.ts";
import { registerEvents } from "./routes/events.ts";
import { registerExport } from "./routes/export.ts";
import { registerHalt } from "./routes/halt.ts";
import { registerHealthz } from "./routes/healthz.ts";
import { registerImport } from "./routes/import.ts";
import { registerInfo } from "./routes/info.ts";
import { registerMetrics } from "./routes/metrics.ts";
import { registerPromote } from "./routes/promote.ts";
import { registerReadyz } from "./routes/readyz.ts";
import { registerStatus } from "./routes/status.ts";
import { registerStream } from "./routes/stream.ts";
import { registerTransactions } from "./routes/transactions.ts";

const PREFACE_TIMEOUT_MS = 10_000;
const HEADERS_TIMEOUT_MS = 10_000;
/** Node looks for late headers this often. */
const HEADERS_CHECK_INTERVAL_MS = 2_000;

/** No route has a schema, and the compilers that nobody calls would cost 4 MB of memory. */
const NO_SCHEMAS = { buildValidator: noCompiler, buildSerializer: noCompiler };

function noCompiler(): never {
  throw new InvariantError("a route has a schema");
}

export interface HttpServerOptions {
  readonly address: ListenAddress;
  readonly node: NodeApi;
  /** Only a test changes it. */
  readonly prefaceTimeoutMs?: number;
}

/** The HTTP API of a node: one port, two protocols, one set of routes. */
export class HttpServer {
  readonly #app: FastifyInstance;
  readonly #listener: DualProtocolListener;
  readonly #node: NodeApi;
  readonly #closing = new AbortController();
  readonly address: AddressInfo;

  private constructor(
    app: FastifyInstance,
    listener: DualProtocolListener,
    node: NodeApi,
    closing: AbortController,
    address: AddressInfo,
  ) {
    this.#app = app;
    this.#listener = listener;
    this.#node = node;
    this.#closing = closing;
    this.address = address;
  }

  static async start(options: HttpServerOptions): Promise<HttpServer> {
    const { node, address } = options;
    const closing = new AbortController();
    let servers: { http1: http.Server; http2: http2.Http2Server } | undefined;
    const app = Fastify({
      exposeHeadRoutes: false,
      routerOptions: { ignoreTrailingSlash: false },
      schemaController: { compilersFactory: NO_SCHEMAS },
      serverFactory: (handler) => {
        servers = createServers(handler);
        return servers.http1;
      },
    });
    assert(servers !== undefined, "Fastify creates its server at once");
    registerAll(app, node, closing.signal);
    await app.ready();
    const listener = new DualProtocolListener({
      ...servers,
      prefaceTimeoutMs: options.prefaceTimeoutMs ?? PREFACE_TIMEOUT_MS,
    });
    const bound = await listener.listen(address);
    return new HttpServer(app, listener, node, closing, bound);
  }

  /** Ends streams and event feeds cleanly, lets other requests finish, then cuts the rest. */
  async close(graceMs = 2_000): Promise<void> {
    this.#closing.abort();
    this.#node.streams.endAll();
    await this.#listener.close(graceMs);
    await this.#app.close();
  }
}

function createServers(handler: http.RequestListener): {
  http1: http.Server;
  http2: http2.Http2Server;
} {
  const http1 = http.createServer(
    {
      headersTimeout: HEADERS_TIMEOUT_MS,
      connectionsCheckingInterval: HEADERS_CHECK_INTERVAL_MS,
      // A body may take as long as it needs; it is the handler's to limit.
      requestTimeout: 0,
    },
    handler,
  );
  const http2Server = http2.createServer(
    { settings: { enablePush: false, initialWindowSize: HTTP2_WINDOW_BYTES } },
    // Node's HTTP/2 requests are made to fit handlers of HTTP/1; the types do not say so.
    (request, response) => Reflect.apply(handler, undefined, [request, response]),
  );
  http2Server.on("session", (session) => session.setLocalWindowSize(HTTP2_WINDOW_BYTES));
  return { http1, http2: http2Server };
}

function registerAll(app: FastifyInstance, node: NodeApi, closing: AbortSignal): void {
  // Bodies belong to the handlers: they may be huge, and none of them is JSON.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", (_request, _payload, done) => done(null));
  app.addHook("onRequest", (request, reply, done) => {
    if (!isUnmarked(request.url)) {
      reply.header("litefs-id", node.nodeId);
      const clusterId = node.clusterId();
      if (clusterId !== undefined) reply.header("litefs-cluster-id", clusterId);
    }
    done();
  });
  const methodsByPath = new Map<string, string[]>();
  app.addHook("onRoute", ({ url, method }) => {
    const methods = methodsByPath.get(url) ?? [];
    methodsByPath.set(url, methods.concat(method));
  });
  app.setNotFoundHandler((request, reply) => {
    const methods = methodsByPath.get(request.url.split("?", 1)[0] ?? "");
    if (methods === undefined) return sendText(reply, 404, "404 page not found");
    return sendText(reply.header("allow", methods.join(", ")), 405, "method not allowed");
  });
  app.setErrorHandler((error, request, reply) => {
    node.log.error("request failed", { url: request.url, error: errorText(error) });
    const status = statusOf(error);
    return sendText(reply, status, errorText(error));
  });
  registerInfo(app, node);
  registerExport(app, node);
  registerImport(app, node, closing);
  registerEvents(app, node, closing);
  registerMetrics(app, node);
  registerStream(app, node);
  registerAcks(app, node);
  registerHalt(app, node);
  registerTransactions(app, node);
  registerDebugVars(app, node);
  registerCheck(app, node);
  registerHealthz(app, node);
  registerReadyz(app, node);
  registerStatus(app, node);
  registerPromote(app, node);
}

/** LiteFS leaves its own headers out where tools of others read. */
function isUnmarked(url: string): boolean {
  return /^\/(metrics|debug)(\/|\?|$)/.test(url);
}

/** Fastify's own errors about a request carry their status. */
function statusOf(error: unknown): number {
  if (error instanceof Error && "statusCode" in error && typeof error.statusCode === "number") {
    return error.statusCode;
  }
  return 500;
}
