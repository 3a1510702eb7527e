import { CurrentInput } from "./current-input.ts";
import { Fuzzer } from "./fuzzer.ts";
import { minimize } from "./probe.ts";
import type { Finding } from "./probe.ts";
import { targetNamed } from "./targets/index.ts";

/** From a worker to the program that started it. */
export type FuzzWorkerMessage =
  | { readonly type: "finding"; readonly finding: Finding }
  | {
      readonly type: "progress";
      readonly count: number;
      /** Inputs kept. */
      readonly corpus: number;
      readonly covered: number;
    };

const PROGRESS_INTERVAL_MS = 5000;

const [name = "", seed = "0", endMs = "0", file = ""] = process.argv.slice(2);
const target = targetNamed(name);
const seen = new Set<string>();
const current = new CurrentInput(file);
const note = (input: Uint8Array): void => current.note(input);

function post(message: FuzzWorkerMessage): void {
  process.send?.(message);
}

function progress(): void {
  const { count, corpus, coveredCharacters: covered } = fuzzer;
  post({ type: "progress", count, corpus: corpus.length, covered });
}

async function report(findings: readonly Finding[]): Promise<void> {
  for (const finding of findings) {
    if (seen.has(finding.signature)) continue;
    seen.add(finding.signature);
    post({ type: "finding", finding: await minimize(target, finding, note) });
  }
}

const fuzzer = new Fuzzer(target, { seed: Number(seed), coverage: true, onInput: note });
await report(await fuzzer.runSeeds());
for (let toldMs = Date.now(); Date.now() < Number(endMs);) {
  await report(await fuzzer.step());
  if (Date.now() - toldMs < PROGRESS_INTERVAL_MS) continue;
  toldMs = Date.now();
  progress();
}
progress();
fuzzer.close();
current.close();
// A server that a target has started would keep the process.
process.exit(0);
