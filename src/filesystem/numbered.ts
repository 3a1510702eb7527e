/** What waits for an answer from another thread, under numbers that the answer repeats. */
export class Numbered<Value> {
  readonly #waiting = new Map<number, Value>();
  #next = 1;

  add(value: Value): number {
    const number = this.#next++;
    this.#waiting.set(number, value);
    return number;
  }

  /** Once for each number; afterwards, and for one that was never given out, undefined. */
  take(number: number): Value | undefined {
    const value = this.#waiting.get(number);
    this.#waiting.delete(number);
    return value;
  }
}
