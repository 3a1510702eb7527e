import type { FastifyInstance } from "fastify";
import type { NodeApi } from "../node-api.ts";

/**
 * GET /healthz: 200 once the node serves complete databases, 503 before. The body says how far it
 * is behind, in milliseconds, so that a load balancer may set its own threshold.
 */
export function registerHealthz(app: FastifyInstance, node: NodeApi): void {
  app.route({
    method: ["GET", "HEAD"],
    url: "/healthz",
    handler: (_request, reply) => {
      const status = node.isReady() ? "ok" : "starting";
      return reply
        .code(status === "ok" ? 200 : 503)
        .header("content-type", "application/json; charset=utf-8")
        .send(`${JSON.stringify({ status, lagMs: Math.round(node.lagMs()) })}\n`);
    },
  });
}
