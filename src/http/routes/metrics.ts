import type { FastifyInstance } from "fastify";
import type { NodeApi } from "../node-api.ts";

/** /metrics: Prometheus text, by any method. */
export function registerMetrics(app: FastifyInstance, node: NodeApi): void {
  app.all("/metrics", async (_request, reply) => {
    const text = await node.metrics.text();
    return reply.header("content-type", node.metrics.contentType).send(text);
  });
}
