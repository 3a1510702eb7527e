import type { FastifyInstance } from "fastify";
import { formatChecksum, formatTxid } from "../../lib/position.ts";
import type { NodeApi } from "../node-api.ts";
import { sendJson } from "../replies.ts";

/** /debug/vars: the state of the node under the key `store`, for people and scripts. */
export function registerDebugVars(app: FastifyInstance, node: NodeApi): void {
  app.all("/debug/vars", (_request, reply) => {
    const dbs: Record<string, unknown> = {};
    for (const name of [...node.engine.databases.keys()].sort()) {
      const state = node.engine.databases.get(name);
      if (state === undefined) continue;
      dbs[name] = {
        name,
        txid: formatTxid(state.position.txid),
        checksum: formatChecksum(state.position.checksum),
        status: state.status,
        ...(state.reason === "" ? {} : { reason: state.reason }),
        pageSize: state.pageSize,
        pageCount: state.pageCount,
      };
    }
    const { isPrimary } = node.role();
    return sendJson(reply, 200, {
      memory: process.memoryUsage(),
      store: { isPrimary, candidate: node.isCandidate, dbs },
    });
  });
}
