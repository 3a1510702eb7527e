import type { CommandContext } from "../../../src/cli/context.ts";

export interface RecordedContext extends CommandContext {
  /** What was printed so far. */
  readonly output: { stdout: string; stderr: string };
}

/** A context that keeps what a command prints. */
export function recordedContext(overrides: Partial<CommandContext> = {}): RecordedContext {
  const output = { stdout: "", stderr: "" };
  return {
    env: { PATH: process.env["PATH"] },
    currentDirectory: "/nowhere",
    homeDirectory: "/nowhere",
    hostname: "box",
    isTerminal: false,
    ...overrides,
    output,
    print: (text) => void (output.stdout += text),
    printError: (text) => void (output.stderr += text),
  };
}
