import type { FastifyInstance } from "fastify";
import { progressOf, transactionCount } from "../../cluster/progress.ts";
import type { ConnectedReplica } from "../../cluster/replication/stream-server.ts";
import { formatPosition } from "../../lib/position.ts";
import type { NodeApi } from "../node-api.ts";
import { sendJson } from "../replies.ts";

/**
 * GET /status: everything an operator wants to know of a node, for `litefs status`, and what the
 * candidates tell each other before an election. Members are added, never changed.
 */
export function registerStatus(app: FastifyInstance, node: NodeApi): void {
  app.get("/status", (_request, reply) => sendJson(reply, 200, statusOf(node)));
}

function statusOf(node: NodeApi): object {
  const { isPrimary, phase } = node.role();
  const primary = node.primary();
  const lease = node.leaseState();
  return {
    nodeID: node.nodeId,
    hostname: node.hostname,
    clusterID: node.clusterId(),
    term: node.term(),
    role: phase,
    isPrimary,
    candidate: node.isCandidate,
    ready: node.isReady(),
    primary:
      primary === undefined ? null : { hostname: primary.hostname, url: primary.advertiseUrl },
    lease: {
      type: node.leaseKind,
      // A lease without end has neither.
      ...(lease === undefined || !Number.isFinite(lease.remainingMs)
        ? {}
        : { ageMs: Math.round(lease.ageMs), remainingMs: Math.round(lease.remainingMs) }),
    },
    ...(node.sync === undefined || !isPrimary
      ? {}
      : {
          sync: {
            replicas: node.sync.status.replicas.length,
            fenced: node.sync.status.fenced,
            degraded: node.sync.status.degraded,
          },
        }),
    lagMs: Math.round(node.lagMs()),
    progress: transactionCount(progressOf(node.engine.databases.values())),
    databases: [...node.engine.databases.values()]
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map((state) => ({
        name: state.name,
        status: state.status,
        ...(state.reason === "" ? {} : { reason: state.reason }),
        position: formatPosition(state.position),
        sizeBytes: state.pageSize * state.pageCount,
        divergedHistories: state.counters.divergedHistories,
        ...loanOf(node, state.name),
      })),
    replicas: isPrimary ? node.streams.replicas.map((replica) => describe(node, replica)) : [],
  };
}

/** Who has the right to write, when it is not with the applications of the primary. */
function loanOf(node: NodeApi, database: string): object {
  const lent = node.loans.loanOf(database);
  const heldForMs = node.heldForMs(database);
  if (lent !== undefined) {
    const { description } = node.streams.replicas.find((r) => r.nodeId === lent.nodeId) ?? {};
    const hostname = description === undefined ? {} : { hostname: description.hostname };
    return { lentTo: { nodeID: lent.nodeId, ...hostname, heldForMs: Math.round(lent.heldForMs) } };
  }
  return heldForMs === undefined ? {} : { borrowed: { heldForMs: Math.round(heldForMs) } };
}

function describe(node: NodeApi, replica: ConnectedReplica): object {
  let behind = 0;
  for (const { name, status, position } of node.engine.databases.values()) {
    if (status === "quarantined") continue;
    behind += Math.max(0, position.txid - replica.sentPosition(name).txid);
  }
  const { description } = replica;
  return {
    nodeID: replica.nodeId,
    ...(description === undefined
      ? {}
      : {
          hostname: description.hostname,
          url: description.advertiseUrl,
          candidate: description.isCandidate,
        }),
    connectedAt: new Date(replica.connectedAtMs).toISOString(),
    unsentTransactions: behind,
    ...(node.sync === undefined
      ? {}
      : { acknowledges: node.sync.status.replicas.includes(replica.nodeId) }),
  };
}
