import { constants } from "node:http2";
import type { FastifyInstance } from "fastify";
import { errorText } from "../../lib/errors.ts";
import { AcknowledgementParser } from "../../wire/acknowledgement.ts";
import type { NodeApi } from "../node-api.ts";
import { http2StreamOf } from "../raw-exchange.ts";
import { nodeIdOf, sendText } from "../replies.ts";

/**
 * POST /acks: an endless request, in which a replica with an open stream tells what it has on its
 * disk. LiteFS's nodes do not know it.
 */
export function registerAcks(app: FastifyInstance, node: NodeApi): void {
  app.post("/acks", (request, reply) => {
    const stream = http2StreamOf(request);
    if (stream === undefined) return sendText(reply, 426, "Upgrade to HTTP/2 required");
    const nodeId = nodeIdOf(request);
    if (!node.role().isPrimary) return sendText(reply, 503, "this node is not the primary");
    const replica = node.streams.replicas.find((connected) => connected.nodeId === nodeId);
    if (replica === undefined) return sendText(reply, 409, "no stream is open to this node");
    const isCandidate = replica.description?.isCandidate === true;
    const session = node.sync?.connect(nodeId, { isCandidate, filter: replica.filter });
    if (session === undefined) return sendText(reply, 409, "nobody waits for this node");
    reply.hijack();
    const parser = new AcknowledgementParser();
    stream.once("close", () => session.end());
    stream.on("error", (error) => {
      node.log.debug("acknowledgements broke", { replica: nodeId, error: errorText(error) });
    });
    request.raw.on("data", (portion: Uint8Array) => {
      try {
        session.acknowledged(parser.push(portion));
      } catch (error) {
        const fields = { replica: nodeId, error: errorText(error) };
        node.log.error("a replica acknowledges what cannot be read", fields);
        stream.close(constants.NGHTTP2_PROTOCOL_ERROR);
      }
    });
    request.raw.once("end", () => stream.end());
    if (stream.destroyed) session.end();
    else stream.respond({ ":status": 200, "litefs-id": node.nodeId });
    return reply;
  });
}
