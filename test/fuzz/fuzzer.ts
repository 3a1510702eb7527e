import { Coverage } from "./coverage.ts";
import { mutate } from "./mutate.ts";
import { probe } from "./probe.ts";
import type { Finding } from "./probe.ts";
import { Random } from "./random.ts";
import { DEFAULT_MAX_BYTES } from "./target.ts";
import type { FuzzTarget } from "./target.ts";

/** Inputs between two looks at the coverage. */
const BATCH = 64;

export interface FuzzerOptions {
  readonly seed: number;
  /** Keep inputs that reach new code. Without it a run is a function of its seed alone. */
  readonly coverage: boolean;
  /** Called with every input before it is run, so that one which never returns is known. */
  readonly onInput?: (input: Uint8Array) => void;
}

/** Mutates inputs of one target, and keeps those that get further than the others. */
export class Fuzzer {
  readonly #target: FuzzTarget;
  readonly #random: Random;
  readonly #coverage: Coverage | undefined;
  readonly #onInput: (input: Uint8Array) => void;
  readonly corpus: Uint8Array[];
  /** Inputs that were run. */
  count = 0;

  constructor(target: FuzzTarget, options: FuzzerOptions) {
    this.#target = target;
    this.#random = new Random(options.seed);
    this.#coverage = options.coverage ? new Coverage() : undefined;
    this.#onInput = options.onInput ?? ((): void => undefined);
    this.corpus = target.seeds();
    if (this.corpus.length === 0) throw new Error(`target ${target.name} has no seeds`);
  }

  /** The seeds as they are, before anything is changed. */
  async runSeeds(): Promise<Finding[]> {
    const findings: Finding[] = [];
    for (const seed of this.corpus) findings.push(...(await this.#run(seed)));
    this.#coverage?.grow();
    return findings;
  }

  /** One batch of mutated inputs. */
  async step(): Promise<Finding[]> {
    const findings: Finding[] = [];
    const inputs = Array.from({ length: BATCH }, () => this.#next());
    for (const input of inputs) findings.push(...(await this.#run(input)));
    if (this.#coverage?.wouldGrow() === true) await this.#keepWhatIsNew(inputs);
    return findings;
  }

  get coveredCharacters(): number {
    return this.#coverage?.coveredCharacters ?? 0;
  }

  close(): void {
    this.#coverage?.close();
  }

  #next(): Uint8Array {
    const { dictionary = [], maxBytes = DEFAULT_MAX_BYTES } = this.#target;
    const random = this.#random;
    const mutated = mutate(random.pick(this.corpus), {
      random,
      dictionary,
      maxBytes,
      other: () => random.pick(this.corpus),
    });
    if (this.#target.repair === undefined || random.chance(0.2)) return mutated;
    return this.#target.repair(mutated, random);
  }

  async #run(input: Uint8Array): Promise<Finding[]> {
    this.#onInput(input);
    this.count++;
    const found = await probe(this.#target, input);
    return found === undefined ? [] : [found];
  }

  /** Something in the batch reached new code: each input runs once more, to see which. */
  async #keepWhatIsNew(inputs: readonly Uint8Array[]): Promise<void> {
    const coverage = this.#coverage;
    if (coverage === undefined) return;
    for (const input of inputs) {
      this.#onInput(input);
      await probe(this.#target, input);
      if (coverage.grow()) this.corpus.push(input);
    }
  }
}
