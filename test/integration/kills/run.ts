import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";

// Many rounds of the test, told one by one: npm run test:kills -- --rounds 300 --seed 7

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "300" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
  },
});
process.stdout.write(`${values.rounds} rounds with seed ${values.seed}\n`);
const { status } = spawnSync("vitest", ["run", "test/integration/kills", "--reporter=verbose"], {
  stdio: "inherit",
  env: {
    ...process.env,
    LITEFS_KILL_ROUNDS: values.rounds,
    LITEFS_KILL_SEED: values.seed,
  },
});
process.exitCode = status ?? 1;
