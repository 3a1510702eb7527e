import type { FastifyInstance } from "fastify";
import { sendText } from "../replies.ts";

/** Routes of LiteFS that this version does not serve: a clear answer, so that no client hangs. */
const RESERVED = [
  { method: "POST", url: "/promote", what: "promoting a node" },
  { method: "POST", url: "/handoff", what: "handing the lease off" },
] as const;

export function registerReserved(app: FastifyInstance): void {
  for (const { method, url, what } of RESERVED) {
    app.route({
      method,
      url,
      handler: (_request, reply) =>
        sendText(reply, 501, `${what} is not supported by this version of litefs`),
    });
  }
}
