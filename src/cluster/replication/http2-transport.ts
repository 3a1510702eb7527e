import * as http2 from "node:http2";
import * as net from "node:net";
import { LitefsError } from "../../lib/errors.ts";
import type { AckChannel } from "../sync/ack-sender.ts";
import { SYNC_HEADER } from "../sync/announced-databases.ts";
import { CATCH_UP_HEADER, TERM_HEADER } from "./stream-transport.ts";
import type { OpenedStream, OpenStream, OpenStreamRequest } from "./stream-transport.ts";

/** Bytes in flight before the sender must wait: 16 MiB fill 1 Gbit/s at 130 ms round trip. */
export const HTTP2_WINDOW_BYTES: number = 16 * 1024 * 1024;

/** Opens `POST /stream` by HTTP/2 with prior knowledge on a connection of its own. */
export const openHttp2Stream: OpenStream = async (request, signal) => {
  const url = parsePrimaryUrl(request.primaryUrl);
  signal.throwIfAborted();
  const session = connectHttp2(url);
  const onAbort = (): void => session.destroy(abortError(signal));
  signal.addEventListener("abort", onAbort, { once: true });
  session.once("close", () => signal.removeEventListener("abort", onAbort));
  session.once("connect", () => session.setLocalWindowSize(HTTP2_WINDOW_BYTES));
  try {
    return await exchange(session, url, request);
  } catch (cause) {
    session.destroy();
    if (signal.aborted) throw abortError(signal);
    throw new LitefsError("PRIMARY_UNREACHABLE", `cannot reach the primary at ${url.origin}`, {
      cause,
    });
  }
};

/** Cleartext HTTP/2 with prior knowledge, as every node speaks it. */
export function connectHttp2(url: URL): http2.ClientHttp2Session {
  return http2.connect(url, {
    createConnection: () => connectSocket(url),
    settings: { enablePush: false, initialWindowSize: HTTP2_WINDOW_BYTES },
  });
}

function exchange(
  session: http2.ClientHttp2Session,
  url: URL,
  request: OpenStreamRequest,
): Promise<OpenedStream> {
  return new Promise((resolve, reject) => {
    session.once("error", reject);
    const stream = session.request({
      ":method": "POST",
      ":path": streamPath(request.filter),
      ":authority": url.host,
      "litefs-id": request.nodeId,
      "litefs-hostname": encodeURIComponent(request.self.hostname),
      "litefs-advertise-url": encodeURI(request.self.advertiseUrl),
      "litefs-candidate": String(request.self.isCandidate),
      ...(request.isCatchUp ? { [CATCH_UP_HEADER]: "true" } : {}),
      "content-length": request.body.length,
    });
    stream.once("error", reject);
    stream.once("close", () => {
      reject(new Error("the connection was closed before an answer"));
      session.destroy();
    });
    stream.once("response", (headers) => {
      // From now on errors reach the reader of the body. These listeners only keep them from
      // being uncaught.
      session.on("error", () => stream.destroy());
      stream.on("error", () => undefined);
      const clusterId = headers["litefs-cluster-id"];
      const sync = headers[SYNC_HEADER];
      const term = headers[TERM_HEADER];
      resolve({
        status: headers[":status"] ?? 0,
        clusterId: typeof clusterId === "string" ? clusterId : undefined,
        term: typeof term === "string" && /^\d{1,15}$/.test(term) ? Number(term) : undefined,
        sync: typeof sync === "string" ? sync : undefined,
        openAcks: () => openAcks(session, url, request.nodeId),
        body: bodyOf(stream),
        destroy: (reason) => {
          stream.destroy(reason);
          session.destroy();
        },
      });
    });
    stream.end(request.body);
  });
}

/** On the same connection. Without it this node would follow, and never count: so both end. */
function openAcks(session: http2.ClientHttp2Session, url: URL, nodeId: string): AckChannel {
  const stream = session.request({
    ":method": "POST",
    ":path": "/acks",
    ":authority": url.host,
    "litefs-id": nodeId,
  });
  stream.on("error", () => undefined);
  stream.once("close", () => session.destroy());
  stream.once("response", (headers) => {
    if (headers[":status"] !== 200) session.destroy();
  });
  stream.resume();
  return {
    write: (bytes) => {
      if (stream.writable) stream.write(bytes);
    },
  };
}

async function* bodyOf(stream: http2.ClientHttp2Stream): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) {
    if (chunk instanceof Uint8Array) yield chunk;
  }
}

function streamPath(filter: ReadonlySet<string> | undefined): string {
  if (filter === undefined) return "/stream";
  return `/stream?${new URLSearchParams({ filter: [...filter].sort().join(",") }).toString()}`;
}

function connectSocket(url: URL): net.Socket {
  return net.connect({
    // Brackets around an IPv6 address belong to the URL only.
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? defaultPort(url) : Number(url.port),
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: 10_000,
  });
}

/** LiteFS speaks cleartext HTTP/2 whatever the scheme; the scheme only gives the default port. */
function defaultPort(url: URL): number {
  return url.protocol === "https:" ? 443 : 80;
}

export function parsePrimaryUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw new LitefsError(
      "ADVERTISE_URL_INVALID",
      `the primary advertises ${JSON.stringify(text)}, which is not an http:// URL: correct lease.advertise-url`,
    );
  }
  return url;
}

function abortError(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  return reason instanceof Error ? reason : new Error("aborted", { cause: reason });
}
