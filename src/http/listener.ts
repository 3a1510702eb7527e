import type * as http from "node:http";
import type * as http2 from "node:http2";
import * as net from "node:net";
import { errorCode, LitefsError } from "../lib/errors.ts";

/** What a client that speaks HTTP/2 without negotiation sends first (RFC 9113, 3.4). */
const HTTP2_PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

export interface ListenAddress {
  /** All interfaces when undefined. */
  readonly host: string | undefined;
  readonly port: number;
}

export interface ListenerOptions {
  readonly http1: http.Server;
  readonly http2: http2.Http2Server;
  /** How long a connection may stay silent, or incomplete in its preface, before it is closed. */
  readonly prefaceTimeoutMs: number;
}

/**
 * One TCP port for HTTP/1.1 and HTTP/2 cleartext. The first bytes of a connection decide; then the
 * socket, with those bytes put back, belongs to one of two ordinary Node servers, neither of which
 * listens itself.
 */
export class DualProtocolListener {
  readonly #options: ListenerOptions;
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  readonly #undecided = new Set<net.Socket>();
  readonly #sessions = new Set<http2.ServerHttp2Session>();

  constructor(options: ListenerOptions) {
    this.#options = options;
    this.#server = net.createServer(
      { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: 15_000 },
      (socket) => this.#accept(socket),
    );
    options.http2.on("session", (session) => {
      this.#sessions.add(session);
      session.once("close", () => this.#sessions.delete(session));
    });
  }

  listen(address: ListenAddress): Promise<net.AddressInfo> {
    return new Promise((resolve, reject) => {
      const onError = (error: Error): void => reject(listenError(address, error));
      this.#server.once("error", onError);
      this.#server.listen({ port: address.port, host: address.host }, () => {
        this.#server.off("error", onError);
        // A server that emits "listening" starts to enforce its header timeout.
        this.#options.http1.emit("listening");
        const bound = this.#server.address();
        if (bound === null || typeof bound === "string") {
          reject(new LitefsError("HTTP_LISTEN_FAILED", "the HTTP server has no TCP address"));
        } else {
          resolve(bound);
        }
      });
    });
  }

  /** Lets requests under way end within the grace period, then cuts what is left. */
  async close(graceMs: number): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    for (const socket of this.#undecided) socket.destroy();
    for (const session of this.#sessions) session.close();
    this.#options.http1.close();
    const timer = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy();
    }, graceMs);
    await closed;
    clearTimeout(timer);
  }

  #accept(socket: net.Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => {
      this.#sockets.delete(socket);
      this.#undecided.delete(socket);
    });
    this.#undecided.add(socket);
    let head: Buffer = Buffer.alloc(0);
    const timer = setTimeout(() => socket.destroy(), this.#options.prefaceTimeoutMs);
    const stop = (): void => {
      clearTimeout(timer);
      socket.off("readable", onReadable);
      for (const event of ["end", "error", "close"]) socket.off(event, onEnd);
    };
    const onEnd = (): void => {
      stop();
      socket.destroy();
    };
    const onReadable = (): void => {
      for (;;) {
        const chunk: unknown = socket.read();
        if (!Buffer.isBuffer(chunk)) break;
        head = head.length === 0 ? chunk : Buffer.concat([head, chunk]);
      }
      const protocol = detectProtocol(head);
      if (protocol === "incomplete") return;
      stop();
      this.#undecided.delete(socket);
      // A client of HTTP/1 may close its side after the request and still wants the answer. A peer
      // of HTTP/2 that closes has left, and what is being sent to it must end.
      socket.allowHalfOpen = protocol === "http1";
      socket.unshift(head);
      this.#options[protocol].emit("connection", socket);
    };
    socket.on("readable", onReadable);
    for (const event of ["end", "error", "close"]) socket.on(event, onEnd);
  }
}

/** No HTTP/1.1 request begins like the preface, so the first byte that differs decides. */
export function detectProtocol(head: Uint8Array): "http1" | "http2" | "incomplete" {
  const length = Math.min(head.length, HTTP2_PREFACE.length);
  if (HTTP2_PREFACE.compare(head, 0, length, 0, length) !== 0) return "http1";
  return length === HTTP2_PREFACE.length ? "http2" : "incomplete";
}

function listenError(address: ListenAddress, cause: Error): LitefsError {
  const where = `${address.host ?? ""}:${address.port}`;
  switch (errorCode(cause)) {
    case "EADDRINUSE":
      return new LitefsError(
        "HTTP_ADDRESS_IN_USE",
        `cannot listen on ${where}: another process uses this port; stop it or change http.addr`,
        { cause },
      );
    case "EACCES":
      return new LitefsError(
        "HTTP_ADDRESS_FORBIDDEN",
        `cannot listen on ${where}: permission denied; use a port above 1023 in http.addr or run as root`,
        { cause },
      );
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
      return new LitefsError(
        "HTTP_ADDRESS_UNKNOWN",
        `cannot listen on ${where}: this machine has no such address; correct http.addr`,
        { cause },
      );
    default:
      return new LitefsError("HTTP_LISTEN_FAILED", `cannot listen on ${where}`, { cause });
  }
}
