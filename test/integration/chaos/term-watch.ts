import { setTimeout as sleep } from "node:timers/promises";
import type { Term } from "./history.ts";

const INTERVAL_MS = 50;
const TIMEOUT_MS = 1_000;

/**
 * Asks the lease's backend again and again who has the lease. A term lasts certainly from the answer
 * that tells of it first to the last question that was answered with it.
 */
export class TermWatch {
  readonly terms: Term[] = [];
  readonly #ask: (signal: AbortSignal) => Promise<string | undefined>;
  readonly #nowUs: () => number;

  constructor(
    ask: (signal: AbortSignal) => Promise<string | undefined>,
    nowUs: () => number = () => Number(process.hrtime.bigint() / 1000n),
  ) {
    this.#ask = ask;
    this.#nowUs = nowUs;
  }

  async run(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      await this.look();
      await sleep(INTERVAL_MS);
    }
  }

  async look(): Promise<void> {
    const askedUs = this.#nowUs();
    let holder: string | undefined;
    try {
      holder = await this.#ask(AbortSignal.timeout(TIMEOUT_MS));
    } catch {
      // A backend that is paused. Whoever has the lease afterwards has had it all the time.
      return;
    }
    if (holder === undefined) return;
    const last = this.terms.at(-1);
    if (last?.holder === holder) {
      this.terms[this.terms.length - 1] = { ...last, toUs: Math.max(last.fromUs, askedUs) };
      return;
    }
    const fromUs = this.#nowUs();
    this.terms.push({ holder, fromUs, toUs: fromUs });
  }
}
