import * as fs from "node:fs";
import * as path from "node:path";
import { compare } from "./compare.ts";
import type { Comparison } from "./compare.ts";
import { EXCEPTIONS } from "./exceptions.ts";
import { runFile } from "./run-file.ts";
import type { FileResult, TestCount } from "./run-file.ts";
import type { Suite } from "./source.ts";
import type { Target } from "./targets.ts";

/** Every lock and every write is a round trip to litefs, and some files do nothing else. */
const MOUNT_FACTOR = 40;
const MOUNT_MIN_MS = 60_000;
const MOUNT_MAX_FACTOR = 5;

export interface CompareFileOptions {
  readonly suite: Suite;
  /** Keeps results and logs. */
  readonly buildDirectory: string;
  /** Path of the test, from the directory of the source. */
  readonly file: string;
  readonly plain: Target;
  readonly mount: Target;
  /** For the directory; the mount gets more, in proportion to what the directory took. */
  readonly timeoutMs: number;
  /** Runs the tests in the directory even if it is known what they say there. */
  readonly again: boolean;
}

/** Runs a file of tests in the directory, unless its result is known, and on the mount. */
export async function compareFile(options: CompareFileOptions): Promise<Comparison> {
  const { suite, buildDirectory, file, plain, mount, timeoutMs } = options;
  const name = path.basename(file);
  const kept = path.join(buildDirectory, "results", `${suite.version}-1`, `${name}.json`);
  let there = options.again ? undefined : readResult(kept);
  if (there === undefined) {
    there = await runOn(plain, options, timeoutMs);
    fs.mkdirSync(path.dirname(kept), { recursive: true });
    fs.writeFileSync(kept, JSON.stringify({ ...there, tests: [...there.tests] }));
  }
  const proportionalMs = Math.max(MOUNT_MIN_MS, there.durationMs * MOUNT_FACTOR);
  const here = await runOn(mount, options, Math.min(timeoutMs * MOUNT_MAX_FACTOR, proportionalMs));
  return compare(name, there, here, EXCEPTIONS);
}

async function runOn(
  target: Target,
  { suite, buildDirectory, file }: CompareFileOptions,
  timeoutMs: number,
): Promise<FileResult> {
  const directory = await target.fresh();
  const logPath = path.join(buildDirectory, "logs", target.name, `${path.basename(file)}.log`);
  const result = await runFile({ suite, file, directory, logPath, timeoutMs });
  if (result.ending === "hung" || result.ending === "timeout") await target.recover();
  return result;
}

function readResult(file: string): FileResult | undefined {
  if (!fs.existsSync(file)) return undefined;
  const kept = JSON.parse(fs.readFileSync(file, "utf8")) as Omit<FileResult, "tests"> & {
    tests: [string, TestCount][];
  };
  return { ...kept, tests: new Map(kept.tests) };
}
