import type { FastifyInstance, FastifyReply } from "fastify";
import { errorCode, errorText } from "../../lib/errors.ts";
import type { NodeApi } from "../node-api.ts";
import { queryParameter, sendText } from "../replies.ts";

/** Statuses of LiteFS where it has one for the case. */
const STATUS_BY_CODE: ReadonlyMap<string, number> = new Map([
  ["NOT_CANDIDATE", 409],
  ["PROMOTION_REFUSED", 409],
]);

/**
 * POST /promote: this node becomes the primary. Unlike LiteFS it answers when that is done.
 * `force=true` lets it take a free lease although another candidate has more transactions.
 * POST /handoff?nodeID=HEX: this node, the primary, gives its lease to a connected replica.
 * POST /demote: it gives it to the best of them, or up.
 */
export function registerPromote(app: FastifyInstance, node: NodeApi): void {
  app.post("/promote", async (request, reply) => {
    const force = queryParameter(request.query, "force") === "true";
    return await done(node, reply, "promotion", () => node.control.promote({ force }));
  });
  app.post("/handoff", async (request, reply) => {
    const nodeId = queryParameter(request.query, "nodeID") ?? "";
    if (!/^[0-9a-fA-F]{1,16}$/.test(nodeId)) return sendText(reply, 400, "invalid node id");
    const id = nodeId.toUpperCase().padStart(16, "0");
    return await done(node, reply, "handoff", () => node.control.handOff(id));
  });
  app.post("/demote", async (_request, reply) => {
    return await done(node, reply, "demotion", () => node.control.demote());
  });
}

async function done(
  node: NodeApi,
  reply: FastifyReply,
  what: string,
  action: () => Promise<void>,
): Promise<FastifyReply> {
  try {
    await action();
    return await reply.code(200).send();
  } catch (error) {
    node.log.warn(`${what} failed`, { error: errorText(error) });
    const status = STATUS_BY_CODE.get(errorCode(error) ?? "") ?? 500;
    return sendText(reply, status, errorText(error));
  }
}
