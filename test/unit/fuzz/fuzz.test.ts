import * as fs from "node:fs";
import { afterAll, describe, expect, test } from "vitest";
import { FINDINGS_DIRECTORY, savedInputs } from "../../fuzz/findings.ts";
import { Fuzzer } from "../../fuzz/fuzzer.ts";
import { minimize, probe } from "../../fuzz/probe.ts";
import type { Finding } from "../../fuzz/probe.ts";
import type { FuzzTarget } from "../../fuzz/target.ts";
import { removeTemporaryDirectory } from "../../fuzz/temporary.ts";
import { databaseHeader } from "../../fuzz/targets/sqlite-files.ts";
import { TARGETS } from "../../fuzz/targets/index.ts";
import { FormatError } from "../../../src/lib/errors.ts";

/** A smoke run: `npm run fuzz` looks for longer. */
const SMOKE_MS = 500;
const SEED = 20261121;

afterAll(removeTemporaryDirectory);

function problems(findings: readonly Finding[]): string[] {
  return findings.map(({ problem, input, stack }) => {
    const shown = Buffer.from(input.subarray(0, 64)).toString("hex");
    return `${problem} (${input.length} bytes: ${shown})\n${stack}`;
  });
}

describe.each(TARGETS)("$name", (target) => {
  test("handles inputs that once were handled wrongly", async () => {
    const findings: Finding[] = [];
    for (const input of savedInputs(target.name).values()) {
      const found = await probe(target, input);
      if (found !== undefined) findings.push(found);
    }
    expect(problems(findings)).toEqual([]);
  });

  test("handles mutated inputs", { timeout: 120_000 }, async () => {
    const fuzzer = new Fuzzer(target, { seed: SEED, coverage: false });
    const findings = await fuzzer.runSeeds();
    // However slow the machine, one batch; on a fast one, as many as there is time for.
    const endMs = performance.now() + SMOKE_MS;
    do {
      findings.push(...(await fuzzer.step()));
    } while (performance.now() < endMs && findings.length === 0);
    expect(problems(findings)).toEqual([]);
  });
});

test("saved inputs belong to a target", () => {
  const names = TARGETS.map(({ name }) => name);
  expect(fs.readdirSync(FINDINGS_DIRECTORY).filter((name) => !names.includes(name))).toEqual([]);
});

describe("the fuzzer itself", () => {
  const target = (run: FuzzTarget["run"]): FuzzTarget => ({
    name: "broken",
    seeds: () => [new Uint8Array(100)],
    run,
  });
  const found = async (broken: FuzzTarget): Promise<string | undefined> =>
    (await probe(broken, new Uint8Array(100)))?.problem;

  test("takes typed errors and values", async () => {
    expect(await found(target(() => undefined))).toBeUndefined();
    const refuse = target(() => {
      throw new FormatError("X", "no");
    });
    expect(await found(refuse)).toBeUndefined();
  });

  test("finds other errors, also later ones", async () => {
    const leak = target(() => void new Uint8Array(-1));
    expect(await found(leak)).toMatch(/RangeError/);
    const late = target(async () => {
      await Promise.resolve();
      throw new TypeError("x");
    });
    expect(await found(late)).toMatch(/TypeError/);
  });

  test("finds an input that allocates out of proportion", async () => {
    const kept: Uint8Array[] = [];
    const greedy = target(() => void kept.push(new Uint8Array(100 * 1024 * 1024)));
    expect(await found(greedy)).toMatch(/100 bytes of input allocate/);
  });

  test("keeps inputs that reach new code", { timeout: 120_000 }, async () => {
    // Too short to be a header: what is behind that check comes with the first one that is longer.
    const seeds = (): Uint8Array[] => databaseHeader.seeds().map((bytes) => bytes.slice(0, 95));
    const fuzzer = new Fuzzer({ ...databaseHeader, seeds }, { seed: 1, coverage: true });
    await fuzzer.runSeeds();
    const { coveredCharacters, corpus } = fuzzer;
    const seedCount = corpus.length;
    for (let i = 0; i < 20; i++) await fuzzer.step();
    fuzzer.close();
    expect(fuzzer.coveredCharacters).toBeGreaterThan(coveredCharacters);
    expect(corpus.length).toBeGreaterThan(seedCount);
  });

  test("makes an input small that keeps its problem", async () => {
    const picky = target((input) => {
      if (input.includes(7)) throw new Error("seven");
    });
    const input = new Uint8Array(100).fill(7, 40, 60);
    const finding = await probe(picky, input);
    expect(finding).toBeDefined();
    if (finding === undefined) return;
    const small = await minimize(picky, finding, () => undefined);
    expect([...small.input]).toEqual([7]);
  });
});
