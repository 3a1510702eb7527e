import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";

// Runs one after the other, each with the next seed, told as they go:
// npm run test:chaos -- --minutes 30 --seed 7 --nodes 5

const { values } = parseArgs({
  options: {
    /** A run that has begun is ended; 0 is one run. */
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    nodes: { type: "string", default: "5" },
    /** Of faults, in each run. */
    seconds: { type: "string", default: "45" },
    lease: { type: "string", default: "etcd" },
    /** Only these kinds, with commas in between. */
    faults: { type: "string" },
    "pause-ms": { type: "string", default: "80" },
  },
});
process.stdout.write(`${values.nodes} nodes, ${values.minutes} minutes from seed ${values.seed}\n`);
const { status } = spawnSync("vitest", ["run", "test/integration/chaos", "--reporter=verbose"], {
  stdio: "inherit",
  env: {
    ...process.env,
    LITEFS_CHAOS_MINUTES: values.minutes,
    LITEFS_CHAOS_SEED: values.seed,
    LITEFS_CHAOS_NODES: values.nodes,
    LITEFS_CHAOS_SECONDS: values.seconds,
    LITEFS_CHAOS_LEASE: values.lease,
    LITEFS_CHAOS_PAUSE_MS: values["pause-ms"],
    ...(values.faults === undefined ? {} : { LITEFS_CHAOS_FAULTS: values.faults }),
  },
});
process.exitCode = status ?? 1;
