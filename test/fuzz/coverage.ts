import { Session } from "node:inspector";
import type { Profiler } from "node:inspector";

/**
 * Which characters of `src` have been executed so far, from V8's own precise coverage. Taking it
 * costs about a millisecond, so the fuzzer takes it for many inputs at once.
 */
export class Coverage {
  readonly #session = new Session();
  /** By script: one byte per character, 1 once it was executed. */
  readonly #seen = new Map<string, Uint8Array>();

  constructor() {
    this.#session.connect();
    this.#post("Profiler.enable");
    this.#post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
  }

  /** Whether something was executed since the last call that never was before. */
  wouldGrow(): boolean {
    return this.#look(false);
  }

  /** The same, and from now on it was. */
  grow(): boolean {
    return this.#look(true);
  }

  #look(keep: boolean): boolean {
    let isNew = false;
    for (const script of this.#take()) {
      if (script.url.includes("/src/") && this.#compare(script, keep)) isNew = true;
    }
    return isNew;
  }

  get coveredCharacters(): number {
    let count = 0;
    for (const bytes of this.#seen.values()) for (const byte of bytes) count += byte;
    return count;
  }

  close(): void {
    this.#session.disconnect();
  }

  #compare({ url, functions }: Profiler.ScriptCoverage, keep: boolean): boolean {
    const ranges = functions.flatMap((called) => called.ranges);
    // Inner ranges follow the outer ones and correct what those say of them.
    ranges.sort((a, b) => a.startOffset - b.startOffset || b.endOffset - a.endOffset);
    const length = ranges.reduce((end, range) => Math.max(end, range.endOffset), 0);
    const covered = new Uint8Array(length);
    for (const { startOffset, endOffset, count } of ranges) {
      covered.fill(count > 0 ? 1 : 0, startOffset, endOffset);
    }
    const seen = this.#seenOf(url, length);
    let isNew = false;
    for (let i = 0; i < length; i++) {
      if (covered[i] === 0 || seen[i] === 1) continue;
      if (!keep) return true;
      seen[i] = 1;
      isNew = true;
    }
    return isNew;
  }

  #seenOf(url: string, length: number): Uint8Array {
    let seen = this.#seen.get(url);
    if (seen === undefined || seen.length < length) {
      const larger = new Uint8Array(length);
      if (seen !== undefined) larger.set(seen);
      this.#seen.set(url, larger);
      seen = larger;
    }
    return seen;
  }

  #take(): Profiler.ScriptCoverage[] {
    let result: Profiler.ScriptCoverage[] = [];
    this.#session.post("Profiler.takePreciseCoverage", (error, taken) => {
      if (error !== null) throw error;
      result = taken.result;
    });
    return result;
  }

  #post(method: string, parameters: object = {}): void {
    this.#session.post(method, parameters, (error: Error | null) => {
      if (error !== null) throw error;
    });
  }
}
