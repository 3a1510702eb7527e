/**
 * The base of every expected failure. `code` is stable and documented in docs/errors.md; the
 * message is one line that says what happened, to which database or node, and what to do.
 */
export class LitefsError extends Error {
  override readonly name: string = "LitefsError";
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    // It may quote what somebody wrote, and is a line of a log.
    super(message.replaceAll(/[\r\n]+/g, " "), options);
    this.code = code;
  }
}

/** Bytes from a file or a peer that do not follow their format. */
export class FormatError extends LitefsError {
  override readonly name: string = "FormatError";
}

/** The message of anything that was thrown, in one line and with its causes. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : `: ${errorText(error.cause)}`;
  return `${error.message.replaceAll("\n", " ")}${cause}`;
}

/** The `code` of a system error such as ENOENT, or undefined. */
export function errorCode(error: unknown): string | undefined {
  if (error instanceof Error && "code" in error && typeof error.code === "string") {
    return error.code;
  }
  return undefined;
}
