import * as fs from "node:fs";
import * as http2 from "node:http2";
import { pipeline } from "node:stream/promises";
import { errorText, LitefsError } from "../../lib/errors.ts";
import { formatPosition, parsePosition } from "../../lib/position.ts";
import type { Position } from "../../lib/position.ts";
import { connectHttp2, parsePrimaryUrl } from "../replication/http2-transport.ts";

/** Tells a primary that knows it to keep the answer open, and to say in it when others wait. */
export const HOLD_HEADER = "litefs-hold";
/** What the application of a forwarded transaction wants: `1` to have it on the disk. */
export const DURABLE_HEADER = "litefs-durable";

export interface BorrowedRight {
  readonly position: Position;
  /** The primary tells when others wait, and when the loan ends; LiteFS's does not. */
  readonly isHeld: boolean;
  /** Set, once each, before the listener is called. */
  isWanted: boolean;
  isEnded: boolean;
  onWanted: () => void;
  onEnded: () => void;
  /** Ends the answer, and with it, on a primary that holds it open, the loan. */
  close(): void;
}

export type SubmitResult = "committed" | { readonly refused: string };

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
    const headers = { [HOLD_HEADER]: "1" };
    try {
      signal.throwIfAborted();
      const stream = this.#request("POST", "/halt", query, headers, waiting.signal);
      stream.end();
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
    stream.setEncoding("utf8");
    stream.once("response", (headers) => {
      status = headers[":status"] ?? 0;
    });
    stream.on("data", (chunk: unknown) => {
      if (text.length < 4096) text += String(chunk);
    });
    stream.once("end", () => {
      if (status !== 0) resolve({ status, text: text.trim() });
    });
    stream.on("error", (error) => {
      failure = error;
    });
    stream.once("close", () => reject(unanswered(failure)));
  });
}

/** The first line says where the primary stands; the lines after it come while it is held open. */
function readLoan(stream: http2.ClientHttp2Stream): Promise<BorrowedRight> {
  return new Promise((resolve, reject) => {
    let status = 0;
    let isHeld = false;
    let text = "";
    let right: BorrowedRight | undefined;
    let failure: Error | undefined;
    stream.setEncoding("utf8");
    stream.once("response", (headers) => {
      status = headers[":status"] ?? 0;
      isHeld = headers[HOLD_HEADER] === "1";
    });
    const opened = (line: string): void => {
      const position = positionOf(line);
      if (position === undefined) {
        reject(new LitefsError("FORWARD_FAILED", `the primary sent an unreadable halt lock`));
        stream.close();
        return;
      }
      right = {
        position,
        isHeld,
        isWanted: false,
        isEnded: false,
        onWanted: () => undefined,
        onEnded: () => undefined,
        close: () => stream.close(),
      };
      resolve(right);
    };
    stream.on("data", (chunk: unknown) => {
      text += String(chunk);
      if (status !== 200) return;
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        const line = text.slice(0, end);
        text = text.slice(end + 1);
        if (right === undefined) opened(line);
        else if (line === "wanted") {
          right.isWanted = true;
          right.onWanted();
        }
      }
    });
    stream.once("end", () => {
      if (status === 200 && right === undefined) opened(text);
    });
    stream.on("error", (error) => {
      failure = error;
    });
    stream.once("close", () => {
      if (right === undefined) {
        const refusal = new LitefsError(
          "FORWARD_FAILED",
          `the primary answered ${status}: ${text.trim()}`,
        );
        reject(status === 0 ? unanswered(failure) : refusal);
      } else if (isHeld) {
        right.isEnded = true;
        right.onEnded();
      }
    });
  });
}

function unanswered(cause: Error | undefined): LitefsError {
  const message = "the connection to the primary broke before an answer";
  return new LitefsError("FORWARD_FAILED", message, cause === undefined ? {} : { cause });
}

/** `{"id":5,"pos":{"TXID":"…","PostApplyChecksum":"…"},"expires":"…"}` */
function positionOf(json: string): Position | undefined {
  let pos: unknown;
  try {
    const value: unknown = JSON.parse(json);
    pos = typeof value === "object" && value !== null ? Reflect.get(value, "pos") : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw new Error(errorText(error), { cause: error });
  }
  if (typeof pos !== "object" || pos === null) return undefined;
  const txid: unknown = Reflect.get(pos, "TXID");
  const checksum: unknown = Reflect.get(pos, "PostApplyChecksum");
  return parsePosition(`${String(txid)}/${String(checksum)}`);
}
