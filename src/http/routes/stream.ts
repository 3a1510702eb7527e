import { constants } from "node:http2";
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import type { FastifyInstance } from "fastify";
import type { StreamRequest } from "../../cluster/replication/stream-server.ts";
import { SYNC_HEADER } from "../../cluster/sync/announced-databases.ts";
import { CATCH_UP_HEADER, TERM_HEADER } from "../../cluster/replication/stream-transport.ts";
import type { ReplicaDescription } from "../../cluster/replication/stream-transport.ts";
import { errorText, FormatError } from "../../lib/errors.ts";
import { decodePositionMap } from "../../wire/position-map.ts";
import type { PositionMapEntry } from "../../wire/position-map.ts";
import { http2Sink } from "../http2-sink.ts";
import type { NodeApi } from "../node-api.ts";
import { http2StreamOf } from "../raw-exchange.ts";
import { nodeIdOf, queryParameter, sendText } from "../replies.ts";

/** Room for a million databases. */
const MAX_POSITION_MAP_BYTES = 64 * 1024 * 1024;
const MAX_DESCRIPTION_BYTES = 4096;

/**
 * POST /stream: an endless response of frames for one replica. Only the primary has it; what a node has
 * beyond another one every node tells, which ends.
 */
export function registerStream(app: FastifyInstance, node: NodeApi): void {
  app.post("/stream", async (request, reply) => {
    const stream = http2StreamOf(request);
    if (stream === undefined) return sendText(reply, 426, "Upgrade to HTTP/2 required");
    const clientNodeId = nodeIdOf(request);
    if (clientNodeId === node.nodeId) return sendText(reply, 400, "cannot connect to self");
    const positions = await readPositionMap(request.raw);
    if (positions instanceof FormatError) return sendText(reply, 400, positions.message);
    const isCatchUp = request.headers[CATCH_UP_HEADER] === "true";
    if (!isCatchUp && !node.role().isPrimary) return sendText(reply, 503, "lease expired");
    reply.hijack();
    const names = positions.map(({ name }) => name);
    const filter = isCatchUp
      ? new Set(names)
      : parseFilter(queryParameter(request.query, "filter"));
    await serve(node, stream, {
      clientNodeId,
      replica: parseDescription(request.headers),
      positions: new Map(positions.map(({ name, position }) => [name, position])),
      filter,
      isCatchUp,
    });
    return reply;
  });
}

/** From the 200 on nothing but frames may be sent, so an error resets the stream. */
async function serve(
  node: NodeApi,
  stream: ServerHttp2Stream,
  request: StreamRequest,
): Promise<void> {
  const gone = new AbortController();
  stream.once("close", () => gone.abort());
  stream.on("error", (error) => {
    node.log.debug("stream to replica broke", {
      replica: request.clientNodeId,
      error: errorText(error),
    });
  });
  if (stream.destroyed) return;
  const clusterId = node.clusterId();
  const term = node.term();
  const { filter, replica, isCatchUp } = request;
  const isCandidate = replica?.isCandidate === true;
  const sync = isCatchUp ? undefined : node.sync?.announcementTo({ isCandidate, filter });
  stream.respond({
    ":status": 200,
    "litefs-id": node.nodeId,
    ...(clusterId === undefined ? {} : { "litefs-cluster-id": clusterId }),
    ...(term === 0 ? {} : { [TERM_HEADER]: String(term) }),
    ...(sync === undefined ? {} : { [SYNC_HEADER]: sync }),
  });
  const kind = isCatchUp ? "candidate that catches up" : "replica";
  node.log.info(`${kind} connected`, { replica: request.clientNodeId });
  try {
    await node.streams.serve(request, http2Sink(stream), gone.signal);
    stream.end();
  } catch (error) {
    if (!gone.signal.aborted) {
      node.log.error("stream to replica failed", {
        replica: request.clientNodeId,
        error: errorText(error),
      });
    }
    stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  } finally {
    node.log.info(`${kind} disconnected`, { replica: request.clientNodeId });
  }
}

async function readPositionMap(raw: IncomingMessage): Promise<PositionMapEntry[] | FormatError> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of raw) {
    if (!Buffer.isBuffer(chunk)) continue;
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_POSITION_MAP_BYTES) {
      return new FormatError(
        "POSITION_MAP_TOO_LARGE",
        "the position map of a replica is too large",
      );
    }
    chunks.push(chunk);
  }
  try {
    return decodePositionMap(Buffer.concat(chunks));
  } catch (error) {
    if (error instanceof FormatError) return error;
    throw error;
  }
}

/** What a replica of this version says of itself; LiteFS says nothing. */
function parseDescription(headers: IncomingHttpHeaders): ReplicaDescription | undefined {
  const hostname = decoded(headers["litefs-hostname"]);
  const advertiseUrl = decoded(headers["litefs-advertise-url"]);
  if (hostname === undefined || advertiseUrl === undefined) return undefined;
  return { hostname, advertiseUrl, isCandidate: headers["litefs-candidate"] === "true" };
}

function decoded(header: string | string[] | undefined): string | undefined {
  if (typeof header !== "string" || header.length > MAX_DESCRIPTION_BYTES) return undefined;
  try {
    return decodeURIComponent(header);
  } catch {
    return undefined;
  }
}

function parseFilter(filter: string | undefined): ReadonlySet<string> | undefined {
  return filter === undefined ? undefined : new Set(filter.split(","));
}
