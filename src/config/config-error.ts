import { LitefsError } from "../lib/errors.ts";

/** A configuration that cannot be used. The message begins with the file and, if known, the line. */
export class ConfigError extends LitefsError {
  override readonly name = "ConfigError";
  readonly line: number | undefined;

  constructor(file: string, line: number | undefined, problem: string, options?: ErrorOptions) {
    super("config", `${file}:${line === undefined ? "" : `${line}:`} ${problem}`, options);
    this.line = line;
  }
}
