import type { ClientHttp2Stream } from "node:http2";
import { errorText, LitefsError } from "../../lib/errors.ts";
import { parsePosition } from "../../lib/position.ts";
import type { Position } from "../../lib/position.ts";
import { LoanChannel, unanswered } from "./loan-channel.ts";

/** Tells a primary that knows it to keep the answer open, and to say in it when others wait. */
export const HOLD_HEADER = "litefs-hold";
/** How much of that both understand: lines in the answer, or frames in the request as well. */
export const HOLD = { lines: "1", frames: "2" } as const;

export function isHold(value: unknown): boolean {
  return value === HOLD.lines || value === HOLD.frames;
}

export interface BorrowedRight {
  readonly position: Position;
  /** The primary tells when others wait, and when the loan ends; LiteFS's does not. */
  readonly isHeld: boolean;
  /** Set, once each, before the listener is called. */
  isWanted: boolean;
  isEnded: boolean;
  onWanted: () => void;
  onEnded: () => void;
  /** For what is committed; undefined where each transaction needs a request of its own. */
  readonly channel: LoanChannel | undefined;
  /** Ends the answer, and with it, on a primary that holds it open, the loan. */
  close(): void;
}

/** The first line says where the primary stands; the lines after it come while it is held open. */
export function readLoan(stream: ClientHttp2Stream): Promise<BorrowedRight> {
  return new Promise((resolve, reject) => {
    let status = 0;
    let isHeld = false;
    let text = "";
    let right: BorrowedRight | undefined;
    let channel: LoanChannel | undefined;
    let failure: Error | undefined;
    stream.setEncoding("utf8");
    stream.once("response", (headers) => {
      status = headers[":status"] ?? 0;
      const hold = headers[HOLD_HEADER];
      isHeld = isHold(hold);
      if (hold === HOLD.frames) channel = new LoanChannel(stream);
      // Nothing will follow in the request.
      else stream.end();
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
        channel,
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
        } else channel?.heard(line);
      }
    });
    stream.once("end", () => {
      if (status === 200 && right === undefined) opened(text);
      stream.end();
    });
    stream.on("error", (error) => {
      failure = error;
    });
    stream.once("close", () => {
      channel?.ended();
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
