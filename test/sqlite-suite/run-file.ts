import { execFile, spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import type { Suite } from "./source.ts";

/** After SIGKILL; a process that is there even then waits for a mount that hangs. */
const KILL_TIMEOUT_MS = 15_000;

/** How the tests of one name went; loops in the tests use a name again and again. */
export interface TestCount {
  passed: number;
  failed: number;
}

export type Ending = "finished" | "crashed" | "timeout" | "hung";

export interface FileResult {
  readonly tests: ReadonlyMap<string, TestCount>;
  readonly ending: Ending;
  readonly durationMs: number;
}

export interface RunOptions {
  readonly suite: Suite;
  /** Path of the test, from the directory of the source. */
  readonly file: string;
  /** Where the test has its files. */
  readonly directory: string;
  readonly logPath: string;
  readonly timeoutMs: number;
}

/**
 * Runs one file of tests. What it starts is a process group of its own, so that at the end of its
 * time all of it goes.
 */
export async function runFile(options: RunOptions): Promise<FileResult> {
  const { suite, file, directory, logPath, timeoutMs } = options;
  fs.mkdirSync(path.dirname(logPath), { recursive: true });
  const log = fs.openSync(logPath, "w");
  const startMs = Date.now();
  const test = path.join(suite.sourceDirectory, file);
  const child = spawn(suite.testfixture, [test, `--testdir=${directory}`], {
    // Some tests leave files where they were started.
    cwd: path.dirname(logPath),
    stdio: ["ignore", log, log],
    detached: true,
  });
  fs.closeSync(log);
  const ended = new Promise<number | undefined>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => resolve(code ?? undefined));
  });
  const timer = new AbortController();
  const late = sleep(timeoutMs, "late" as const, { signal: timer.signal }).catch(() => undefined);
  const first = await Promise.race([ended, late]);
  timer.abort();
  let ending: Ending = "finished";
  if (first === "late") {
    ending = "timeout";
    const killed = await killGroup(child.pid ?? 0, ended);
    if (!killed) ending = "hung";
  } else await killGroup(child.pid ?? 0, ended);
  const durationMs = Date.now() - startMs;
  const output = fs.readFileSync(logPath, "latin1");
  if (ending === "finished" && !/^\d+ errors out of \d+ tests/m.test(output)) ending = "crashed";
  return { tests: parseOutput(output), ending, durationMs };
}

/** False when a process does not even die of SIGKILL. */
async function killGroup(pid: number, ended: Promise<unknown>): Promise<boolean> {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Nothing of the group is left.
  }
  const timer = new AbortController();
  const late = sleep(KILL_TIMEOUT_MS, "late", { signal: timer.signal }).catch(() => undefined);
  const first = await Promise.race([ended, late]);
  timer.abort();
  return first !== "late";
}

/** `NAME... Ok` and `! NAME expected: …`; a test that is cut off counts as neither. */
export function parseOutput(output: string): Map<string, TestCount> {
  const tests = new Map<string, TestCount>();
  const count = (name: string): TestCount => {
    const existing = tests.get(name);
    if (existing !== undefined) return existing;
    const fresh = { passed: 0, failed: 0 };
    tests.set(name, fresh);
    return fresh;
  };
  let running = "";
  for (const line of output.split("\n")) {
    const started = /^(\S+?)\.\.\./.exec(line)?.[1];
    if (started !== undefined) running = started;
    const failed = /^! (\S+) expected:/.exec(line)?.[1];
    // What the test itself prints may come in between.
    const isOk = line === " Ok" || (started !== undefined && line.endsWith(" Ok"));
    if (failed !== undefined) count(failed).failed++;
    else if (running !== "" && isOk) count(running).passed++;
    else if (running !== "" && line.startsWith("Error: ")) count(running).failed++;
    else continue;
    running = "";
  }
  return tests;
}

/** The files of the permutation `veryquick`, as the tests themselves define it. */
export async function listVeryQuick(suite: Suite): Promise<string[]> {
  const tests = path.join(suite.sourceDirectory, "test");
  const script = path.join(path.dirname(suite.testfixture), "litefs-list.tcl");
  const scratch = path.join(path.dirname(suite.testfixture), "litefs-list");
  fs.writeFileSync(
    script,
    `set argv0 ${tests}/list.tcl
     set testdir ${tests}
     source ${tests}/permutations.test
     array set spec $::testspec(veryquick)
     foreach file $spec(-files) { puts "FILE [file tail $file]" }
     exit 0`,
  );
  const { stdout } = await promisify(execFile)(
    suite.testfixture,
    [script, `--testdir=${scratch}`],
    {
      timeout: 60_000,
      maxBuffer: 16 * 1024 * 1024,
    },
  );
  return [...stdout.matchAll(/^FILE (\S+)$/gm)].flatMap(([, name]) => name ?? []);
}

/** Every test file of the source, by its name. */
export function findTestFiles(suite: Suite): Map<string, string> {
  const files = new Map<string, string>();
  const directories = ["test", "ext/rtree", "ext/fts5/test", "ext/expert", "ext/recover"];
  for (const directory of directories.concat("ext/session", "ext/rbu", "ext/misc")) {
    const full = path.join(suite.sourceDirectory, directory);
    if (!fs.existsSync(full)) continue;
    for (const name of fs.readdirSync(full)) {
      if (name.endsWith(".test")) files.set(name, path.join(directory, name));
    }
  }
  return files;
}
