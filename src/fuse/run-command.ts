import { spawn } from "node:child_process";
import { assert } from "../lib/assert.ts";

export interface CommandResult {
  /** undefined when it was killed because it took too long. */
  readonly exitCode: number | undefined;
  /** In one line. */
  readonly stderr: string;
}

/**
 * Runs a program of the system (mount, umount) without a shell. `inheritedFd` becomes its fd 3.
 * Rejects only when it cannot be started.
 */
export function runCommand(
  program: string,
  args: readonly string[],
  options: { readonly timeoutMs: number; readonly inheritedFd?: number },
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ["ignore", "ignore", "pipe", options.inheritedFd ?? "ignore"],
      // Messages are matched against, so they must not be translated.
      env: { ...process.env, LC_ALL: "C" },
    });
    const output = child.stderr;
    assert(output !== null, "stderr is a pipe");
    let stderr = "";
    let timedOut = false;
    output.setEncoding("utf8");
    output.on("data", (text: string) => (stderr += text));
    const done = (code: number | null): void => {
      clearTimeout(timer);
      resolve({
        exitCode: timedOut ? undefined : (code ?? -1),
        stderr: stderr.trim().replaceAll(/\s*\n\s*/g, "; "),
      });
    };
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill("SIGKILL");
      // A process that waits inside the kernel for a dead mount does not die before it is freed.
      output.destroy();
      child.unref();
      done(null);
    }, options.timeoutMs);
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on("close", done);
  });
}
