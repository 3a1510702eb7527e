import type { Random } from "./random.ts";

/** One parser, or a piece of the program behind one, that takes bytes from outside. */
export interface FuzzTarget {
  readonly name: string;
  /** Inputs to start from; valid ones, so that mutations of them get deep. */
  seeds(): Uint8Array[];
  /**
   * Handles one input. It may return or throw a typed error (LitefsError); anything else, an
   * invariant of the target included, is a finding.
   */
  run(input: Uint8Array): void | Promise<void>;
  /** Makes a mutated input pass the first checks, so that what is behind them is reached. */
  repair?(input: Uint8Array, random: Random): Uint8Array;
  /** Pieces that mean something in the format. */
  readonly dictionary?: readonly Uint8Array[];
  readonly maxBytes?: number;
  /** What one input may allocate besides a multiple of its own size. */
  readonly maxAllocatedBytes?: number;
}

export const DEFAULT_MAX_BYTES: number = 64 * 1024;

/** Broken by the program, not by the input. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`invariant: ${message}`);
}

export function tokens(...texts: readonly string[]): Uint8Array[] {
  return texts.map((text) => new Uint8Array(Buffer.from(text)));
}
