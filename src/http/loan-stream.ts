import { constants } from "node:http2";
import type { ServerHttp2Stream } from "node:http2";
import type { FastifyReply, FastifyRequest } from "fastify";
import { HOLD, HOLD_HEADER } from "../cluster/forwarding/borrowed-right.ts";
import { errorText } from "../lib/errors.ts";
import { LoanFrameParser } from "../wire/loan-frames.ts";
import type { LoanFrame } from "../wire/loan-frames.ts";
import type { NodeApi } from "./node-api.ts";

/** A loan whose request and answer stay open: what is done under it comes and goes here. */
export class LoanStream {
  readonly #node: NodeApi;
  readonly #stream: ServerHttp2Stream;
  readonly #database: string;
  readonly #loan: string;

  constructor(node: NodeApi, stream: ServerHttp2Stream, database: string, loan: string) {
    this.#node = node;
    this.#stream = stream;
    this.#database = database;
    this.#loan = loan;
  }

  /** Sends the first line of the answer; the loan ends with the stream. */
  open(request: FastifyRequest, reply: FastifyReply, text: string): void {
    const { log, nodeId } = this.#node;
    const stream = this.#stream;
    reply.hijack();
    stream.on("error", (error) => {
      log.debug("the borrower of a right to write left", { error: errorText(error) });
    });
    stream.once("close", () => this.#giveBack());
    if (stream.destroyed) {
      this.#giveBack();
      return;
    }
    const hold = request.headers[HOLD_HEADER] === HOLD.frames ? HOLD.frames : HOLD.lines;
    const clusterId = this.#node.clusterId();
    stream.respond({
      ":status": 200,
      "content-type": "text/plain; charset=utf-8",
      [HOLD_HEADER]: hold,
      "litefs-id": nodeId,
      ...(clusterId === undefined ? {} : { "litefs-cluster-id": clusterId }),
    });
    stream.write(text);
    if (hold === HOLD.frames) this.#serveFrames(request);
  }

  /** Somebody else waits for the right. */
  wanted(): void {
    this.#say("wanted");
  }

  end(): void {
    this.#stream.end();
  }

  #say(line: string): void {
    if (this.#stream.writable) this.#stream.write(`${line}\n`);
  }

  #serveFrames(request: FastifyRequest): void {
    const parser = new LoanFrameParser();
    request.raw.on("data", (portion: Uint8Array) => {
      try {
        for (const frame of parser.push(portion)) this.#serve(frame);
      } catch (error) {
        this.#node.log.error("a borrower of a right to write sends what cannot be read", {
          db: this.#database,
          error: errorText(error),
        });
        this.#stream.close(constants.NGHTTP2_PROTOCOL_ERROR);
      }
    });
  }

  #serve(frame: LoanFrame): void {
    const answered = frame.kind === "commit" ? this.#commit(frame) : this.#sync(frame);
    answered.catch((error: unknown) => {
      // Whether the log has it, the borrower asks.
      this.#node.log.error("cannot serve the borrower of a right to write", {
        db: this.#database,
        error: errorText(error),
      });
      this.#say(`failed ${frame.number} ${oneLine(errorText(error))}`);
    });
  }

  async #commit({ number, ltx, isDurable }: Extract<LoanFrame, { kind: "commit" }>): Promise<void> {
    const { loans, log } = this.#node;
    const refuse = (reason: string): void => {
      log.warn("refused a forwarded transaction", { db: this.#database, reason });
      this.#say(`refused ${number} ${oneLine(reason)}`);
    };
    if (!loans.has(this.#database, this.#loan)) {
      refuse("the halt lock has expired or was never held");
      return;
    }
    const transaction = { ltx, path: undefined };
    const result = await loans.submit(this.#database, this.#loan, transaction, isDurable);
    if (result.kind === "committed") this.#say(`committed ${number}`);
    else refuse(result.reason);
  }

  async #sync({ number, position }: Extract<LoanFrame, { kind: "sync" }>): Promise<void> {
    const isDurable = await this.#node.loans.makeDurable(this.#database, position);
    this.#say(`${isDurable ? "durable" : "unknown"} ${number}`);
  }

  #giveBack(): void {
    this.#node.loans.giveBack(this.#database, this.#loan).catch((error: unknown) => {
      const fields = { db: this.#database, error: errorText(error) };
      this.#node.log.debug("cannot end a halt lock", fields);
    });
  }
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ");
}
