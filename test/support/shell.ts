import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { PYTHON } from "./python-path.ts";

const TIMEOUT_MS = 60_000;

export interface ShellResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end and tells how it went. */
export function tryShell(command: string, args: readonly string[], input = ""): ShellResult {
  const result = spawnSync(command, args, {
    input,
    encoding: "utf8",
    timeout: TIMEOUT_MS,
    killSignal: "SIGKILL",
    maxBuffer: 64 * 1024 * 1024,
  });
  if (result.error !== undefined) throw result.error;
  return { code: result.status, stdout: result.stdout, stderr: result.stderr };
}

/** Runs a program that must succeed; returns what it printed. */
export function shell(command: string, args: readonly string[], input = ""): string {
  const { code, stdout, stderr } = tryShell(command, args, input);
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${code}: ${stderr}`);
  return stdout.trimEnd();
}

export function isInstalled(command: string): boolean {
  return spawnSync("sh", ["-c", `command -v ${command}`], { stdio: "ignore" }).status === 0;
}

/** Python's own sqlite3 module, in autocommit mode as `db`; sys.argv[1] is the path. */
export function python(databasePath: string, source: string): string {
  return shell(PYTHON, ["-c", pythonProgram(source), databasePath]);
}

/** The same, while the test goes on. Killed when the signal is aborted. */
export async function startPython(
  databasePath: string,
  source: string,
  stop?: AbortSignal,
): Promise<ShellResult> {
  const child = spawn(PYTHON, ["-c", pythonProgram(source), databasePath], {
    stdio: ["ignore", "pipe", "pipe"],
    timeout: TIMEOUT_MS,
    killSignal: "SIGKILL",
  });
  stop?.addEventListener("abort", () => child.kill("SIGKILL"));
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  return { code: child.exitCode, stdout: stdout.trimEnd(), stderr };
}

function pythonProgram(source: string): string {
  return [
    "import sqlite3, sys, os, time",
    "db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)",
    source,
  ].join("\n");
}

/** The sqlite3 command line program. */
export function sqliteCli(databasePath: string, sql: string): string {
  return shell("sqlite3", ["-batch", "-bail", databasePath], sql);
}
