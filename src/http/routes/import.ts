import type { FastifyInstance } from "fastify";
import { errorText } from "../../lib/errors.ts";
import { parseName } from "../../filesystem/names.ts";
import type { NodeApi } from "../node-api.ts";
import { queryParameter, sendText } from "../replies.ts";

/** POST /import?name=DB: the body, an SQLite file, becomes the database in one transaction. */
export function registerImport(app: FastifyInstance, node: NodeApi, closing: AbortSignal): void {
  app.post("/import", async (request, reply) => {
    const name = queryParameter(request.query, "name");
    if (name === undefined) return sendText(reply, 400, "name required");
    if (!isNameOfDatabase(name)) return sendText(reply, 400, "not a name of a database");
    if (!node.role().isPrimary) {
      const primary = node.role().primaryHostname;
      const where = primary === undefined ? "" : `; the primary is ${primary}`;
      return sendText(reply, 503, `lease expired: this node is not the primary${where}`);
    }
    const state = node.engine.databases.get(name);
    if (state?.status === "quarantined") {
      return sendText(reply, 500, `database is quarantined: ${state.reason}`);
    }
    try {
      const outcome = await node.importer.import(name, request.raw, closing);
      if (outcome.kind === "refused") {
        return await sendText(reply, 400, `cannot import "${name}": ${outcome.reason}`);
      }
      if (outcome.kind === "busy") {
        return await sendText(reply, 409, `cannot import "${name}": ${outcome.reason}`);
      }
      node.log.info("database imported", { db: name, pages: outcome.pageCount });
      return await reply.code(200).send();
    } catch (error) {
      node.log.error("import failed", { db: name, error: errorText(error) });
      return sendText(reply, 500, errorText(error));
    }
  });
}

/** In the mount `app.db-wal` is a file of `app.db`, and `.lag` is none at all. */
function isNameOfDatabase(name: string): boolean {
  const parsed = parseName(name);
  return parsed.kind === "file" && parsed.file === "database";
}
