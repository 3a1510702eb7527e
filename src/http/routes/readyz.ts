import type { FastifyInstance } from "fastify";
import type { NodeApi } from "../node-api.ts";

/**
 * GET /readyz: 200 while this node is the primary, or a replica with a stream from it; 503 while
 * it starts, is cut off or stops. Where /healthz asks whether the process is of use at all, this
 * asks whether what it reads now is current and what it writes will work.
 */
export function registerReadyz(app: FastifyInstance, node: NodeApi): void {
  app.route({
    method: ["GET", "HEAD"],
    url: "/readyz",
    handler: (_request, reply) => {
      const { phase } = node.role();
      const isReady = node.isReady() && (phase === "primary" || phase === "replica");
      const body = { ready: isReady, role: phase, lagMs: Math.round(node.lagMs()) };
      return reply
        .code(isReady ? 200 : 503)
        .header("content-type", "application/json; charset=utf-8")
        .send(`${JSON.stringify(body)}\n`);
    },
  });
}
