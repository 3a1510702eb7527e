import type { ClientHttp2Stream } from "node:http2";
import { LitefsError } from "../../lib/errors.ts";
import { Numbered } from "../../lib/numbered.ts";
import type { Position } from "../../lib/position.ts";
import {
  encodeLoanCommit,
  encodeLoanSync,
  MAX_LOAN_PAYLOAD_BYTES,
} from "../../wire/loan-frames.ts";

export type SubmitResult = "committed" | { readonly refused: string };

interface Waiting {
  answered(word: string, reason: string): void;
  failed(error: Error): void;
}

/**
 * The borrower's end of a loan whose request stays open: what is written under it goes over that one
 * stream. A request of its own for each transaction took half of the two nodes' time for it.
 */
export class LoanChannel {
  readonly #stream: ClientHttp2Stream;
  readonly #waiting = new Numbered<Waiting>();

  constructor(stream: ClientHttp2Stream) {
    this.#stream = stream;
  }

  static carries(ltx: Uint8Array): boolean {
    return ltx.length <= MAX_LOAN_PAYLOAD_BYTES;
  }

  /** Rejects when it cannot be told whether the primary has the transaction. */
  submit(ltx: Uint8Array, isDurable: boolean, signal: AbortSignal): Promise<SubmitResult> {
    return this.#ask(
      (number) => encodeLoanCommit(number, isDurable, ltx),
      (word, reason) => {
        if (word === "committed") return "committed";
        return word === "refused" ? { refused: reason } : undefined;
      },
      signal,
    );
  }

  /** Has the primary sync its log; false when it does not have the position. */
  sync(position: Position, signal: AbortSignal): Promise<boolean> {
    return this.#ask(
      (number) => encodeLoanSync(number, position),
      (word) => (word === "durable" ? true : word === "unknown" ? false : undefined),
      signal,
    );
  }

  #ask<Result>(
    frame: (number: number) => Uint8Array,
    meaning: (word: string, reason: string) => Result | undefined,
    signal: AbortSignal,
  ): Promise<Result> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      if (!this.#stream.writable) throw unanswered();
      const number = this.#waiting.add({
        failed: reject,
        answered: (word, reason) => {
          const result = meaning(word, reason);
          if (result !== undefined) resolve(result);
          else
            reject(new LitefsError("FORWARD_FAILED", `the primary answered "${word}": ${reason}`));
        },
      });
      const onAbort = (): void => this.#waiting.take(number)?.failed(unanswered());
      signal.addEventListener("abort", onAbort, { once: true });
      this.#stream.write(frame(number));
    });
  }

  /** A line of the primary: a word, the number of what it is about, and perhaps a reason. */
  heard(line: string): void {
    const [, word = "", digits = "", reason = ""] = /^(\S+) (\d+) ?(.*)$/.exec(line) ?? [];
    this.#waiting.take(Number(digits))?.answered(word, reason);
  }

  ended(): void {
    for (const waiting of this.#waiting.takeAll()) waiting.failed(unanswered());
  }
}

export function unanswered(cause?: Error): LitefsError {
  const message = "the connection to the primary broke before an answer";
  return new LitefsError("FORWARD_FAILED", message, cause === undefined ? {} : { cause });
}
