import type { FastifyInstance } from "fastify";
import type { NodeApi } from "../node-api.ts";

/** GET /info: who this node is. Sent as text/plain, which LiteFS does and its users may rely on. */
export function registerInfo(app: FastifyInstance, node: NodeApi): void {
  app.get("/info", (_request, reply) => {
    const { isPrimary, primaryHostname } = node.role();
    const info = {
      clusterID: node.clusterId(),
      isPrimary,
      candidate: node.isCandidate,
      path: node.dataDirectory,
      primary: { hostname: primaryHostname ?? "" },
    };
    return reply
      .header("content-type", "text/plain; charset=utf-8")
      .send(`${JSON.stringify(info, undefined, 2)}\n`);
  });
}
