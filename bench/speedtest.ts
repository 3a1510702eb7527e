import { execFile } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { promisify } from "node:util";
import {
  defaultBuildDirectory,
  prepareSuite,
  SuiteUnavailable,
} from "../test/sqlite-suite/source.ts";
import type { NodeProcess } from "./node-process.ts";

const execute = promisify(execFile);
const MAKE_TIMEOUT_MS = 10 * 60_000;
const RUN_TIMEOUT_MS = 20 * 60_000;
/** Of kvtest: blobs in one table, as in a store of files. */
const BLOBS = 2_000;
const BLOB_BYTES = 10_000;

export interface Speedtest {
  readonly title: string;
  readonly nativeSeconds: number;
  readonly mountSeconds: number;
}

interface Programs {
  readonly speedtest1: string;
  readonly kvtest: string;
}

/** SQLite's own benchmarks, one run in each place; undefined where its source cannot be had. */
export async function measureSpeedtest(
  native: string,
  primary: NodeProcess,
  size: number,
): Promise<readonly Speedtest[] | undefined> {
  const programs = await buildPrograms();
  if (programs === undefined) return undefined;
  const places = [native, primary.mountPoint] as const;
  const results: Speedtest[] = [];
  for (const mode of ["wal", "delete"] as const) {
    const [nativeSeconds, mountSeconds] = await inBoth(places, (directory) =>
      secondsOfSpeedtest(programs.speedtest1, path.join(directory, `speed-${mode}.db`), mode, size),
    );
    results.push({ title: `speedtest1, ${mode.toUpperCase()}`, nativeSeconds, mountSeconds });
  }
  const [nativeSeconds, mountSeconds] = await inBoth(places, (directory) =>
    secondsOfKvtest(programs.kvtest, path.join(directory, "kv.db")),
  );
  results.push({ title: "kvtest, random reads", nativeSeconds, mountSeconds });
  return results;
}

async function inBoth(
  [native, mount]: readonly [string, string],
  run: (directory: string) => Promise<number>,
): Promise<[number, number]> {
  return [await run(native), await run(mount)];
}

async function buildPrograms(): Promise<Programs | undefined> {
  const buildDirectory = defaultBuildDirectory();
  const report = (what: string): void => void process.stderr.write(`${what} …\n`);
  try {
    await prepareSuite({ buildDirectory, report });
  } catch (error) {
    if (!(error instanceof SuiteUnavailable)) throw error;
    process.stderr.write(`no speedtest1 and kvtest: ${error.message}\n`);
    return undefined;
  }
  const build = path.join(buildDirectory, "build");
  const names = ["speedtest1", "kvtest"];
  if (!names.every((name) => fs.existsSync(path.join(build, name)))) {
    report("compiling speedtest1 and kvtest");
    await execute("make", names, { cwd: build, timeout: MAKE_TIMEOUT_MS });
  }
  return { speedtest1: path.join(build, "speedtest1"), kvtest: path.join(build, "kvtest") };
}

async function secondsOfSpeedtest(
  program: string,
  file: string,
  mode: string,
  size: number,
): Promise<number> {
  const options = ["--journal", mode, "--size", String(size), file];
  const { stdout } = await execute(program, options, { timeout: RUN_TIMEOUT_MS });
  const total = /^\s*TOTAL[.\s]+([0-9.]+)s/m.exec(stdout)?.[1];
  if (total === undefined) throw new Error(`speedtest1 gave no total:\n${stdout.slice(-500)}`);
  fs.rmSync(file);
  return Number(total);
}

/** Writing the blobs is not measured: a reader of blobs asks for them in any order. */
async function secondsOfKvtest(program: string, file: string): Promise<number> {
  const init = ["init", file, "--count", String(BLOBS), "--size", String(BLOB_BYTES)];
  await execute(program, init, { timeout: RUN_TIMEOUT_MS });
  const run = ["run", file, "--random", "--count", String(BLOBS * 10)];
  const startedAtMs = performance.now();
  await execute(program, run, { timeout: RUN_TIMEOUT_MS });
  const seconds = (performance.now() - startedAtMs) / 1_000;
  fs.rmSync(file);
  return seconds;
}
