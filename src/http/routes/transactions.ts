import { randomBytes } from "node:crypto";
import * as fs from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import * as path from "node:path";
import type { FastifyInstance } from "fastify";
import { DURABLE_HEADER } from "../../cluster/forwarding/primary-link.ts";
import { SnapshotSpool } from "../../cluster/replication/snapshot-spool.ts";
import { parsePosition } from "../../lib/position.ts";
import type { NodeApi } from "../node-api.ts";
import { nodeIdOf, queryParameter, sendText } from "../replies.ts";

/** What is larger goes through a file. */
const MAX_BYTES_IN_MEMORY = 4 * 1024 * 1024;

/**
 * POST /tx: a transaction that a node forwards under its halt lock. POST /tx/outcome: what became of
 * one, for a node that has lost the connection before the answer; afterwards it is not taken any
 * more. POST /tx/sync: whether what a node was told is committed is on the disk here.
 */
export function registerTransactions(app: FastifyInstance, node: NodeApi): void {
  app.post("/tx", async (request, reply) => {
    if (nodeIdOf(request) === node.nodeId) return sendText(reply, 400, "cannot forward to self");
    const database = queryParameter(request.query, "name");
    const loan = queryParameter(request.query, "lockID");
    if (database === undefined) return sendText(reply, 400, "name required");
    if (loan === undefined) return sendText(reply, 400, "lockID required");
    if (!node.loans.has(database, loan)) {
      if (!node.engine.databases.has(database)) return sendText(reply, 404, "database not found");
      return sendText(reply, 409, "the halt lock has expired or was never held");
    }
    const isDurable = request.headers[DURABLE_HEADER] !== "0";
    const body = await receive(request.raw, () => path.dirname(node.engine.snapshotPath(database)));
    try {
      const result = await node.loans.submit(database, loan, body, isDurable);
      if (result.kind === "committed") return await reply.send("");
      node.log.warn("refused a forwarded transaction", { db: database, reason: result.reason });
      return await sendText(reply, 409, result.reason);
    } finally {
      if (body.path !== undefined) await fs.rm(body.path, { force: true });
    }
  });

  app.post("/tx/sync", async (request, reply) => {
    const database = queryParameter(request.query, "name");
    const position = parsePosition(queryParameter(request.query, "pos") ?? "");
    if (database === undefined || position === undefined) {
      return sendText(reply, 400, "name and pos required");
    }
    if (!node.role().isPrimary) return sendText(reply, 503, "this node is not the primary");
    const isDurable = await node.loans.makeDurable(database, position);
    return sendText(reply, 200, isDurable ? "durable" : "unknown");
  });

  app.post("/tx/outcome", async (request, reply) => {
    const database = queryParameter(request.query, "name");
    const loan = queryParameter(request.query, "lockID");
    const position = parsePosition(queryParameter(request.query, "pos") ?? "");
    if (database === undefined || loan === undefined || position === undefined) {
      return sendText(reply, 400, "name, lockID and pos required");
    }
    if (!node.role().isPrimary) return sendText(reply, 503, "this node is not the primary");
    const isCommitted = await node.loans.resolve(database, loan, position);
    return sendText(reply, 200, isCommitted ? "committed" : "unknown");
  });
}

interface Body {
  readonly ltx: Uint8Array | undefined;
  readonly path: string | undefined;
}

/** The whole body, in memory or in a file. An incomplete one is an error. */
async function receive(raw: IncomingMessage, directory: () => string): Promise<Body> {
  const pieces: Buffer[] = [];
  let sizeBytes = 0;
  let spool: SnapshotSpool | undefined;
  try {
    for await (const piece of raw) {
      if (!Buffer.isBuffer(piece)) continue;
      sizeBytes += piece.length;
      if (spool === undefined && sizeBytes > MAX_BYTES_IN_MEMORY) {
        const name = `tx-${randomBytes(8).toString("hex")}.ltx.tmp`;
        spool = await SnapshotSpool.create(path.join(directory(), name));
        for (const former of pieces) await spool.write(former);
        pieces.length = 0;
      }
      if (spool === undefined) pieces.push(piece);
      else await spool.write(piece);
    }
    await spool?.finish();
  } catch (error) {
    await spool?.discard().catch(() => undefined);
    throw error;
  }
  if (spool !== undefined) return { ltx: undefined, path: spool.path };
  return { ltx: Buffer.concat(pieces), path: undefined };
}
