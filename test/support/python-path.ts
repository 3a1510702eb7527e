import { spawnSync } from "node:child_process";

/**
 * The interpreter itself: the `python3` in PATH may be a script of a version manager that starts four
 * processes before it, which tests that call it hundreds of times feel.
 */
export const PYTHON: string = interpreter();

function interpreter(): string {
  const args = ["-c", "import sys; print(sys.executable)"];
  const { stdout, status } = spawnSync("python3", args, { encoding: "utf8" });
  // The test that needs it says that it is missing.
  return status === 0 && stdout.trim() !== "" ? stdout.trim() : "python3";
}
