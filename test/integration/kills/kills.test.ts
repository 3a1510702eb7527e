import { test } from "vitest";
import { cleanUpAfterEach } from "../../support/cluster.ts";
import { Kills } from "./kills.ts";

cleanUpAfterEach();

/** `npm run test:kills` runs hundreds. */
const rounds = Number(process.env["LITEFS_KILL_ROUNDS"] ?? 5);
const seed = Number(process.env["LITEFS_KILL_SEED"] ?? 1);
const ROUND_MAX_MS = 30_000;

test(
  "kill -9 of writers, primary and replica under load loses and doubles no row",
  async () => {
    const print = (line: string): void => {
      if (process.env["LITEFS_KILL_ROUNDS"] !== undefined) process.stdout.write(`${line}\n`);
    };
    await Kills.run(rounds, seed, print);
  },
  60_000 + rounds * ROUND_MAX_MS,
);
