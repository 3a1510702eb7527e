import { afterAll, expect, test } from "vitest";
import type { Backend, BackendName } from "./backend.ts";
import { startBackend } from "./backend.ts";
import { runChaos } from "./chaos.ts";

/** `npm run test:chaos` sets these. */
const env = (name: string, otherwise: number): number =>
  Number(process.env[`LITEFS_CHAOS_${name}`] ?? otherwise);
const minutes = env("MINUTES", 0);
/** With 3 nodes and 15 s: kills and pauses of the primary, a cut, a clock that jumps. */
const firstSeed = env("SEED", 28);
const nodes = env("NODES", 3);
const seconds = env("SECONDS", 15);
const pauseMs = env("PAUSE_MS", 40);
const backendName = (process.env["LITEFS_CHAOS_LEASE"] ?? "etcd") as BackendName;
const kinds = process.env["LITEFS_CHAOS_FAULTS"];
const isLong = process.env["LITEFS_CHAOS_MINUTES"] !== undefined;
/** A run that takes longer for all that comes before and after the faults hangs. */
const RUN_MARGIN_MS = 300_000;

let backend: Backend | undefined;
afterAll(async () => await backend?.process.dispose());

test(
  "nodes that are cut off, paused and killed lose and invent nothing, and agree at the end",
  async ({ skip }) => {
    const print = (line: string): void => {
      if (isLong) process.stdout.write(`${line}\n`);
    };
    const until = performance.now() + minutes * 60_000;
    let seed = firstSeed;
    do {
      backend = await startBackend(backendName);
      if (backend === undefined) return skip();
      print(`--- seed ${seed}`);
      const lengthMs = seconds * 1000;
      const result = await runChaos({
        seed,
        nodes,
        lengthMs,
        backend,
        pauseMs,
        print,
        ...(kinds === undefined ? {} : { kinds: kinds.split(",") }),
      });
      print(JSON.stringify(result));
      expect(result.acknowledged, "writes that were acknowledged").toBeGreaterThan(nodes);
      expect(result.reads, "reads").toBeGreaterThan(nodes);
      expect(result.terms, "terms").toBeGreaterThan(0);
      expect(result.faults, "faults").toBeGreaterThan(0);
      await backend.process.dispose();
      seed += 1;
    } while (performance.now() < until);
  },
  minutes * 60_000 + seconds * 1000 + RUN_MARGIN_MS,
);
