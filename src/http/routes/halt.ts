import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Loan } from "../../cluster/forwarding/loan-desk.ts";
import { HOLD_HEADER, isHold } from "../../cluster/forwarding/borrowed-right.ts";
import { errorText } from "../../lib/errors.ts";
import { formatChecksum, formatTxid } from "../../lib/position.ts";
import { isDatabaseName } from "../../wire/database-name.ts";
import { LoanStream } from "../loan-stream.ts";
import type { NodeApi } from "../node-api.ts";
import { http2StreamOf } from "../raw-exchange.ts";
import { nodeIdOf, queryParameter, sendText } from "../replies.ts";

const MAX_ID = 2n ** 63n - 1n;

/**
 * POST and DELETE /halt: the right to write a database, as LiteFS's nodes ask for it. Ours say that
 * they understand more: then the answer stays open, says `wanted` when others wait, and ends with
 * the loan; and the loan ends with it. Newer ones keep the request open too, and send in it what they
 * commit.
 */
export function registerHalt(app: FastifyInstance, node: NodeApi): void {
  app.post("/halt", async (request, reply) => {
    const asked = parseHalt(request, node);
    if (typeof asked === "string") return sendText(reply, 400, asked);
    const stream = http2StreamOf(request);
    const isHeld = stream !== undefined && isHold(request.headers[HOLD_HEADER]);
    const gone = new AbortController();
    if (stream === undefined) request.raw.socket.once("close", () => gone.abort());
    else stream.once("close", () => gone.abort());
    let isWanted = false;
    let onWanted = (): void => {
      isWanted = true;
    };
    let isEnded = false;
    let onEnded = (): void => {
      isEnded = true;
    };
    let loan: Loan;
    try {
      loan = await node.loans.borrow({
        ...asked,
        nodeId: nodeIdOf(request),
        onWanted: () => onWanted(),
        onEnded: () => onEnded(),
        signal: gone.signal,
      });
    } catch (error) {
      return sendText(reply, 503, errorText(error));
    }
    const text = describeLoan(asked.loan, loan);
    if (!isHeld) {
      return reply.header("content-type", "text/plain; charset=utf-8").send(text);
    }
    const held = new LoanStream(node, stream, asked.database, asked.loan);
    held.open(request, reply, text);
    onWanted = () => held.wanted();
    onEnded = () => held.end();
    if (isWanted) onWanted();
    if (isEnded || stream.destroyed) onEnded();
    return reply;
  });

  app.delete("/halt", async (request, reply) => {
    const asked = parseHalt(request, node);
    if (typeof asked === "string") return sendText(reply, 400, asked);
    await node.loans.giveBack(asked.database, asked.loan);
    return reply.send("");
  });
}

interface AskedHalt {
  readonly database: string;
  readonly loan: string;
}

function parseHalt(request: FastifyRequest, node: NodeApi): AskedHalt | string {
  if (nodeIdOf(request) === node.nodeId) return "cannot halt a database on the node itself";
  const database = queryParameter(request.query, "name");
  if (database === undefined) return "name required";
  if (!isDatabaseName(database)) return "invalid database name";
  const id = queryParameter(request.query, "id") ?? "";
  const loan = /^-?\d{1,19}$/.test(id) ? BigInt(id) : 0n;
  if (loan === 0n || loan > MAX_ID || loan < -MAX_ID - 1n) return "invalid halt lock id";
  return { database, loan: String(loan) };
}

/** In LiteFS's words. The ID goes in as it came: JavaScript's numbers would round it. */
function describeLoan(id: string, { position, expiresAtMs }: Loan): string {
  const pos = {
    TXID: formatTxid(position.txid),
    PostApplyChecksum: formatChecksum(position.checksum),
  };
  const expires = new Date(expiresAtMs).toISOString();
  return `{"id":${id},"pos":${JSON.stringify(pos)},"expires":"${expires}"}\n`;
}
