import type { Config } from "../config/config.ts";

export interface RunNodeOptions {
  /** What stood after `--`; it replaces the exec list and is passed on word for word. */
  readonly command: readonly string[] | undefined;
  /** Leave a stale mount on the mount directory alone instead of unmounting it first. */
  readonly skipUnmount: boolean;
  /** Write one line per operation on a database to standard output. */
  readonly tracing: boolean;
  /** The environment of the children. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Runs a node until it is told to stop or its child ends; resolves to the exit code. */
export type RunNode = (config: Config, options: RunNodeOptions) => Promise<number>;
