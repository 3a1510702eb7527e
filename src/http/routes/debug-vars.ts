import type { FastifyInstance } from "fastify";
import { formatChecksum, formatTxid } from "../../lib/position.ts";
import type { NodeApi } from "../node-api.ts";
import { sendJson } from "../replies.ts";

/** /debug/vars: the node under `store`, the requests of its mount under `fuse`; for scripts. */
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
      fuse: node.fuseRequestCounts(),
      store: { isPrimary, candidate: node.isCandidate, dbs },
    });
  });
}
