import { parseArgs } from "node:util";
import { kindOf, shrink } from "./shrink.ts";
import { FAULTS, simulate } from "./simulate.ts";
import type { Fault, Outcome } from "./simulate.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    from: { type: "string", default: "1" },
    /** Prints all that the seed `from` does, whether it fails or not. */
    trace: { type: "boolean", default: false },
    /** What the disks do wrong, see FAULTS. */
    fault: { type: "string", default: "none" },
  },
});

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

function describe(seed: number, { trace, failure }: Outcome): void {
  for (const line of trace) print(`  ${line}`);
  if (failure === undefined) return;
  print(`  ${failure instanceof Error ? failure.stack : JSON.stringify(failure)}`);
  print(`seed ${seed} again: npm run test:simulation -- --seeds 1 --from ${seed} --trace`);
}

function isFault(name: string): name is Fault {
  return name in FAULTS;
}

const { fault } = values;
if (!isFault(fault)) throw new Error(`--fault is one of: ${Object.keys(FAULTS).join(", ")}`);
const from = Number(values.from);
const seeds = Number(values.seeds);
const startMs = performance.now();
const failed = new Map<string, number[]>();
let crashes = 0;
let takenFromShelf = 0;
for (let seed = from; seed < from + seeds; seed++) {
  const outcome = simulate(seed, { fault });
  crashes += outcome.crashes;
  takenFromShelf += outcome.takenFromShelf;
  if (values.trace) describe(seed, outcome);
  if (outcome.failure === undefined) continue;
  const kind = kindOf(outcome);
  const known = failed.get(kind);
  if (known !== undefined) {
    known.push(seed);
    continue;
  }
  failed.set(kind, [seed]);
  print(`seed ${seed}, without the steps that it does not need:`);
  describe(seed, shrink(seed, fault).outcome);
}
for (const [kind, list] of [...failed].sort(([, a], [, b]) => b.length - a.length)) {
  print(`${list.length} × ${kind} (${list.slice(0, 8).join(", ")})`);
}
const count = [...failed.values()].reduce((sum, list) => sum + list.length, 0);
const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
print(
  `${seeds} seeds from ${from}, ${crashes} crashes, ${takenFromShelf} databases from the shelf, ` +
    `${count} failures, ${seconds} s`,
);
process.exitCode = count === 0 ? 0 : 1;
