import type { ServerHttp2Stream } from "node:http2";
import type { FastifyRequest } from "fastify";

/**
 * The HTTP/2 stream behind a request; undefined for HTTP/1.1. Fastify knows only Node's HTTP/1
 * types; requests of the HTTP/2 server carry their stream under this name.
 */
export function http2StreamOf(request: FastifyRequest): ServerHttp2Stream | undefined {
  const raw: object = request.raw;
  if (!isHttp2Request(raw) || request.raw.httpVersionMajor !== 2) return undefined;
  return raw.stream;
}

function isHttp2Request(raw: object): raw is { readonly stream: ServerHttp2Stream } {
  return "stream" in raw && typeof raw.stream === "object" && raw.stream !== null;
}
