import type { FastifyInstance } from "fastify";
import type { VerifyResult } from "../../database/engine.ts";
import { assertNever } from "../../lib/assert.ts";
import { formatChecksum, formatPosition } from "../../lib/position.ts";
import type { NodeApi } from "../node-api.ts";
import { queryParameter, sendJson, sendText } from "../replies.ts";

/**
 * GET /check?name=DB: reads every page and compares their checksum with the position. Used by
 * `litefs check`. A database that is damaged is an answer (200), not an error of the request.
 */
export function registerCheck(app: FastifyInstance, node: NodeApi): void {
  app.get("/check", async (request, reply) => {
    const name = queryParameter(request.query, "name");
    if (name === undefined) return sendText(reply, 400, "name required");
    if (!node.engine.databases.has(name)) return sendText(reply, 404, "database not found");
    return sendJson(reply, 200, { name, ...describe(await node.engine.verify(name)) });
  });
}

function describe(result: VerifyResult): Readonly<Record<string, string>> {
  switch (result.kind) {
    case "ok":
      return { result: "ok", position: formatPosition(result.position) };
    case "mismatch":
      return {
        result: "mismatch",
        position: formatPosition(result.position),
        computed: formatChecksum(result.computed),
      };
    case "changed":
      return { result: "changed" };
    case "failed":
      return { result: "failed", reason: result.reason };
    default:
      return assertNever(result);
  }
}
