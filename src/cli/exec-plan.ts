import type { ExecEntry } from "../config/config.ts";
import type { Logger } from "../lib/log.ts";

/** The commands of a node, in the order in which they run. */
export interface ExecPlan {
  /** Each runs to its end before the next, and before `background`. */
  readonly foreground: readonly (readonly string[])[];
  /** Stays; when it ends, so does the node. */
  readonly background: readonly string[] | undefined;
}

export interface ExecPlanOptions {
  readonly exec: readonly ExecEntry[];
  /** What stood after `--` on the command line. */
  readonly command: readonly string[] | undefined;
  readonly isCandidate: boolean;
  readonly logger: Logger;
}

/** The last entry stays in the background; skipped there as a non-candidate, nothing does. */
export function planExec(options: ExecPlanOptions): ExecPlan {
  const { exec, command, logger } = options;
  if (command !== undefined) {
    if (exec.length > 0) logger.info("exec is overridden by the command line");
    return { foreground: [], background: command };
  }
  const runs = (entry: ExecEntry): boolean => {
    if (options.isCandidate || !entry.ifCandidate) return true;
    logger.info("node is not a candidate, skipping command", { command: entry.argv.join(" ") });
    return false;
  };
  const last = exec.at(-1);
  return {
    foreground: exec
      .slice(0, -1)
      .filter(runs)
      .map((entry) => entry.argv),
    background: last !== undefined && runs(last) ? last.argv : undefined,
  };
}
