/** What was done to a cluster, and what was seen of it, by the time since the beginning. */
export class Timeline {
  readonly #startedAtMs = performance.now();
  readonly #lines: string[] = [];
  readonly #print: (line: string) => void;

  constructor(print: (line: string) => void) {
    this.#print = print;
    // Histories of clients have this clock.
    const seconds = Number(process.hrtime.bigint() / 1_000_000n) / 1000;
    this.add(`begins at ${seconds.toFixed(3)} s of the monotonic clock`);
  }

  get elapsedMs(): number {
    return performance.now() - this.#startedAtMs;
  }

  add(text: string): void {
    const line = `${(this.elapsedMs / 1000).toFixed(3).padStart(8)}  ${text}`;
    this.#lines.push(line);
    this.#print(line);
  }

  get text(): string {
    return `${this.#lines.join("\n")}\n`;
  }
}
