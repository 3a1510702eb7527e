import { Readable } from "node:stream";
import type { FastifyInstance } from "fastify";
import type { SnapshotReader } from "../../database/engine.ts";
import { errorText } from "../../lib/errors.ts";
import { formatPosition } from "../../lib/position.ts";
import type { NodeApi } from "../node-api.ts";
import { queryParameter, sendText } from "../replies.ts";

/** Zeros are written in pieces of this size when the lock page, or more, must be filled in. */
const MAX_FILL_BYTES = 65536;

/** GET /export?name=DB: the database file at one position, on primaries and replicas alike. */
export function registerExport(app: FastifyInstance, node: NodeApi): void {
  app.get("/export", async (request, reply) => {
    const name = queryParameter(request.query, "name");
    if (name === undefined) return sendText(reply, 400, "name required");
    const state = node.engine.databases.get(name);
    // A deleted database has no file any more; LiteFS answers 500 with a path here.
    if (state === undefined || state.status === "deleted") {
      return sendText(reply, 404, "database not found");
    }
    if (state.status === "quarantined") {
      return sendText(reply, 500, `database is quarantined: ${state.reason}`);
    }
    if (state.position.txid === 0) return reply.header("content-length", 0).send();
    const reader = await node.engine.openSnapshot(name);
    const body = Readable.from(databaseBytes(reader), { objectMode: false });
    body.once("error", (error) => {
      node.log.error("export failed", { db: name, error: errorText(error) });
    });
    return reply
      .header("content-type", "application/octet-stream")
      .header("litefs-position", formatPosition(reader.position))
      .send(body);
  });
}

/** The file: pages in order, with zeros for those that no snapshot has (the lock page). */
export async function* databaseBytes(reader: SnapshotReader): AsyncGenerator<Uint8Array> {
  const { pageSize, pageCount } = reader;
  try {
    let nextPgno = 1;
    for (;;) {
      const pages = await reader.next();
      if (pages === undefined) break;
      let runStart = 0;
      for (let i = 0; i < pages.pgnos.length; i++) {
        const pgno = pages.pgnos[i] ?? 0;
        if (pgno !== nextPgno) {
          yield pages.data.subarray(runStart * pageSize, i * pageSize);
          yield* zeros((pgno - nextPgno) * pageSize);
          runStart = i;
        }
        nextPgno = pgno + 1;
      }
      yield pages.data.subarray(runStart * pageSize);
    }
    yield* zeros((pageCount + 1 - nextPgno) * pageSize);
  } finally {
    await reader.close();
  }
}

function* zeros(sizeBytes: number): Generator<Uint8Array> {
  for (let left = sizeBytes; left > 0; left -= MAX_FILL_BYTES) {
    yield new Uint8Array(Math.min(left, MAX_FILL_BYTES));
  }
}
