/** What waits for answers from another thread or node, under numbers that the answers repeat. */
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

  /** Everything that still waits; nothing does any more. */
  takeAll(): Value[] {
    const values = [...this.#waiting.values()];
    this.#waiting.clear();
    return values;
  }
}
