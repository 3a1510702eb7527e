import { fork } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parseArgs } from "node:util";
import { CurrentInput } from "./current-input.ts";
import { saveFinding } from "./findings.ts";
import type { FuzzWorkerMessage } from "./fuzz-worker.ts";
import { MAX_INPUT_MS } from "./probe.ts";
import type { Finding } from "./probe.ts";
import { TARGETS, targetNamed } from "./targets/index.ts";

/*
 * npm run fuzz [-- --target NAME] [--minutes N] [--seed S]
 *
 * Feeds mutated inputs to every parser of bytes from outside, guided by coverage. What is handled
 * wrongly is made small, printed and written to test/fixtures/fuzz/TARGET, where a test replays it.
 */
const { values } = parseArgs({
  options: {
    target: { type: "string" },
    minutes: { type: "string", default: "1" },
    seed: { type: "string" },
  },
});
const WORKER_HEAP_MB = 768;
const targets = values.target === undefined ? TARGETS : [targetNamed(values.target)];
const seed = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed);
const totalMs = Number(values.minutes) * 60_000;
const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-fuzz-"));

process.stdout.write(`seed ${seed}\n`);
let findingCount = 0;
for (const target of targets) {
  const endMs = Date.now() + totalMs / targets.length;
  // A worker that dies or hangs is replaced, with another seed, until the time is up.
  for (let round = 0; round === 0 || Date.now() < endMs; round++) {
    await fuzzOne(target.name, seed + round, endMs);
  }
}
fs.rmSync(directory, { recursive: true });
process.stdout.write(`${findingCount} findings\n`);
process.exitCode = findingCount === 0 ? 0 : 1;

function show(target: string, finding: Finding): void {
  findingCount++;
  const file = path.relative(process.cwd(), saveFinding(target, finding));
  process.stdout.write(`FINDING in ${target}: ${finding.problem}\n  ${file}\n`);
  const stack = finding.stack.split("\n").filter((line) => line.includes("/src/"));
  for (const line of stack.slice(0, 4)) process.stdout.write(`  ${line.trim()}\n`);
}

function fuzzOne(target: string, workerSeed: number, endMs: number): Promise<void> {
  const file = path.join(directory, "input");
  const current = new CurrentInput(file);
  const program = path.join(import.meta.dirname, "fuzz-worker.ts");
  const worker = fork(program, [target, String(workerSeed), String(endMs), file], {
    execArgv: [`--max-old-space-size=${WORKER_HEAP_MB}`],
    serialization: "advanced",
    stdio: ["ignore", "inherit", "ignore", "ipc"],
  });
  const lost = (problem: string): void => {
    show(target, { input: current.read().input, problem, signature: problem, stack: "" });
  };
  return new Promise((resolve) => {
    let lastCount = -1;
    let isStuck = false;
    const watchdog = setInterval(() => {
      const { count } = current.read();
      isStuck = count === lastCount;
      if (isStuck) worker.kill("SIGKILL");
      lastCount = count;
    }, 2 * MAX_INPUT_MS);
    worker.on("message", (message: FuzzWorkerMessage) => {
      if (message.type === "finding") return show(target, message.finding);
      const { count, corpus, covered } = message;
      process.stdout.write(
        `${target}: ${count} inputs, corpus ${corpus}, ${covered} characters of src covered\n`,
      );
    });
    worker.on("exit", (code, signal) => {
      clearInterval(watchdog);
      if (isStuck) lost(`an input takes longer than ${MAX_INPUT_MS} ms`);
      else if (code !== 0) lost(`the process dies (${signal ?? `exit code ${code}`})`);
      current.close();
      resolve();
    });
  });
}
