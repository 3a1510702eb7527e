import * as fs from "node:fs";
import * as http2 from "node:http2";
import { pipeline } from "node:stream/promises";
import { LitefsError } from "../../lib/errors.ts";
import { formatPosition } from "../../lib/position.ts";
import type { Position } from "../../lib/position.ts";
import { HOLD, HOLD_HEADER, readLoan } from "./borrowed-right.ts";
import type { BorrowedRight } from "./borrowed-right.ts";
import { unanswered } from "./loan-channel.ts";
import type { SubmitResult } from "./loan-channel.ts";
import { connectHttp2, parsePrimaryUrl } from "../replication/http2-transport.ts";

/** What the application of a forwarded transaction wants: `1` to have it on the disk. */
export const DURABLE_HEADER = "litefs-durable";

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** One connection to the primary for all that forwarding says to it; made when needed. */
export class PrimaryLink {
  readonly #url: URL;
  readonly #nodeId: string;
  #session: http2.ClientHttp2Session | undefined;

  constructor(primaryUrl: string, nodeId: string) {
    this.#url = parsePrimaryUrl(primaryUrl);
    this.#nodeId = nodeId;
  }

  close(): void {
    this.#session?.destroy();
    this.#session = undefined;
  }

  /** Waits for the right to write; the same loan again renews it. */
  async borrow(database: string, loan: string, signal: AbortSignal): Promise<BorrowedRight> {
    const query = { name: database, id: loan };
    // The answer stays open for as long as the right is here; the signal only ends the wait for it.
    const waiting = new AbortController();
    const onAbort = (): void => waiting.abort();
    signal.addEventListener("abort", onAbort, { once: true });
    const headers = { [HOLD_HEADER]: HOLD.frames };
    try {
      signal.throwIfAborted();
      const stream = this.#request("POST", "/halt", query, headers, waiting.signal);
      return await readLoan(stream);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  async renew(database: string, loan: string, signal: AbortSignal): Promise<void> {
    const stream = this.#request("POST", "/halt", { name: database, id: loan }, {}, signal);
    stream.end();
    requireOk(await readAnswer(stream));
  }

  async giveBack(database: string, loan: string, signal: AbortSignal): Promise<void> {
    const stream = this.#request("DELETE", "/halt", { name: database, id: loan }, {}, signal);
    stream.end();
    requireOk(await readAnswer(stream));
  }

  /** Rejects when it cannot be told whether the primary has the transaction. */
  async submit(
    database: string,
    loan: string,
    transaction: { readonly ltx: Uint8Array | undefined; readonly path: string | undefined },
    isDurable: boolean,
    signal: AbortSignal,
  ): Promise<SubmitResult> {
    const query = { name: database, lockID: loan };
    const headers = { [DURABLE_HEADER]: isDurable ? "1" : "0" };
    const stream = this.#request("POST", "/tx", query, headers, signal);
    const answered = readAnswer(stream);
    if (transaction.ltx !== undefined) stream.end(transaction.ltx);
    else if (transaction.path !== undefined) {
      // A primary that refuses early stops reading; its answer counts, not the broken pipe.
      pipeline(fs.createReadStream(transaction.path), stream).catch(() => undefined);
    }
    const { status, text } = await answered;
    if (status === 200) return "committed";
    if (status === 409 || status === 400 || status === 404) return { refused: text };
    throw new LitefsError("FORWARD_FAILED", `the primary answered ${status}: ${text}`);
  }

  /** Whether the primary has a position in its log, now and for good: the loan ends with it. */
  async resolve(
    database: string,
    loan: string,
    position: Position,
    signal: AbortSignal,
  ): Promise<boolean> {
    const query = { name: database, lockID: loan, pos: formatPosition(position) };
    const stream = this.#request("POST", "/tx/outcome", query, {}, signal);
    stream.end();
    const answer = requireOk(await readAnswer(stream));
    return answer.trim() === "committed";
  }

  /** Has the primary sync its log; false when it does not have the position. */
  async makeDurable(database: string, position: Position, signal: AbortSignal): Promise<boolean> {
    const query = { name: database, pos: formatPosition(position) };
    const stream = this.#request("POST", "/tx/sync", query, {}, signal);
    stream.end();
    const answer = requireOk(await readAnswer(stream));
    return answer.trim() === "durable";
  }

  #request(
    method: string,
    path: string,
    query: Readonly<Record<string, string>>,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): http2.ClientHttp2Stream {
    signal.throwIfAborted();
    const stream = this.#connected().request({
      ":method": method,
      ":path": `${path}?${new URLSearchParams(query).toString()}`,
      ":authority": this.#url.host,
      "litefs-id": this.#nodeId,
      ...headers,
    });
    const onAbort = (): void => stream.close(http2.constants.NGHTTP2_CANCEL);
    signal.addEventListener("abort", onAbort, { once: true });
    stream.once("close", () => signal.removeEventListener("abort", onAbort));
    return stream;
  }

  #connected(): http2.ClientHttp2Session {
    const existing = this.#session;
    if (existing !== undefined && !existing.destroyed && !existing.closed) return existing;
    const session = connectHttp2(this.#url);
    // Errors reach the requests under way; without a listener they would be uncaught.
    session.on("error", () => undefined);
    session.once("close", () => {
      if (this.#session === session) this.#session = undefined;
    });
    this.#session = session;
    return session;
  }
}

function requireOk({ status, text }: Answer): string {
  if (status === 200) return text;
  throw new LitefsError("FORWARD_FAILED", `the primary answered ${status}: ${text}`);
}

function readAnswer(stream: http2.ClientHttp2Stream): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let status = 0;
    let text = "";
    let failure: Error | undefined;
    let isAnswered = false;
    stream.setEncoding("utf8");
    stream.once("response", (headers) => {
      status = headers[":status"] ?? 0;
    });
    stream.on("data", (chunk: unknown) => {
      if (text.length < 4096) text += String(chunk);
    });
    stream.once("end", () => {
      isAnswered = status !== 0;
      if (isAnswered) resolve({ status, text: text.trim() });
    });
    stream.on("error", (error) => {
      failure = error;
    });
    stream.once("close", () => {
      // An error is not made unless somebody gets it: its stack costs more than the rest of this.
      if (!isAnswered) reject(unanswered(failure));
    });
  });
}
