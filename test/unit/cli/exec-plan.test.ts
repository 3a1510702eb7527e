import { expect, test } from "vitest";
import { planExec, type ExecPlan } from "../../../src/cli/exec-plan.ts";
import type { ExecEntry } from "../../../src/config/config.ts";
import { createLogger } from "../../../src/lib/log.ts";

const entry = (word: string, ifCandidate = false): ExecEntry => ({ argv: [word], ifCandidate });

function plan(
  exec: readonly ExecEntry[],
  options: { command?: readonly string[]; isCandidate?: boolean } = {},
): ExecPlan & { log: string } {
  let log = "";
  const logger = createLogger(
    { format: "text", timestamp: false, debug: false },
    (line) => (log += line),
  );
  const { command, isCandidate = true } = options;
  return { ...planExec({ exec, command, isCandidate, logger }), log };
}

test("all but the last run in the foreground", () => {
  expect(plan([entry("a"), entry("b"), entry("c")])).toEqual({
    foreground: [["a"], ["b"]],
    background: ["c"],
    log: "",
  });
  expect(plan([entry("a")])).toMatchObject({ foreground: [], background: ["a"] });
  expect(plan([])).toEqual({ foreground: [], background: undefined, log: "" });
});

test("candidates run everything, others leave out what is for candidates", () => {
  const exec = [entry("a", true), entry("b"), entry("c")];
  expect(plan(exec)).toMatchObject({ foreground: [["a"], ["b"]], background: ["c"] });
  expect(plan(exec, { isCandidate: false })).toEqual({
    foreground: [["b"]],
    background: ["c"],
    log: 'level=INFO msg="node is not a candidate, skipping command" command=a\n',
  });
});

test("when the last is left out, nothing stays in its place", () => {
  const exec = [entry("a"), entry("b", true)];
  expect(plan(exec, { isCandidate: false })).toMatchObject({
    foreground: [["a"]],
    background: undefined,
  });
});

test("the command line replaces the whole list, word for word, and says so", () => {
  const command = ["sh", "-c", "a  'b'"];
  expect(plan([entry("a"), entry("b")], { command })).toEqual({
    foreground: [],
    background: command,
    log: 'level=INFO msg="exec is overridden by the command line"\n',
  });
  expect(plan([], { command }).log).toBe("");
});
