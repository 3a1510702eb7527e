import { getHeapStatistics } from "node:v8";
import { LitefsError } from "../../src/lib/errors.ts";
import type { FuzzTarget } from "./target.ts";

/** No input may take this long, on the slowest machine. */
export const MAX_INPUT_MS = 10_000;
/** Inputs that 1 byte of which allocates more than this are amplifiers. */
const ALLOCATION_PER_BYTE = 1024;
const DEFAULT_ALLOCATION_BYTES = 32 * 1024 * 1024;

export interface Finding {
  readonly input: Uint8Array;
  /** One line. */
  readonly problem: string;
  /** Equal for findings that have the same cause, most likely. */
  readonly signature: string;
  readonly stack: string;
}

/** Runs one input; gives what is wrong with how it was handled. */
export async function probe(target: FuzzTarget, input: Uint8Array): Promise<Finding | undefined> {
  const copy = input.slice();
  const bytesBefore = allocatedBytes();
  const startMs = performance.now();
  try {
    const pending = target.run(copy);
    if (pending !== undefined) await pending;
  } catch (error) {
    if (!(error instanceof LitefsError)) return findingOf(input, error);
    if (error.message.includes("\n")) {
      return findingOf(input, new Error(`message of ${error.code} is not one line`));
    }
  }
  const bytes = allocatedBytes() - bytesBefore;
  const limit =
    (target.maxAllocatedBytes ?? DEFAULT_ALLOCATION_BYTES) + input.length * ALLOCATION_PER_BYTE;
  if (bytes > limit) {
    return findingOf(input, new Error(`${input.length} bytes of input allocate ${bytes} bytes`));
  }
  const tookMs = performance.now() - startMs;
  if (tookMs > MAX_INPUT_MS) {
    return findingOf(input, new Error(`${input.length} bytes of input take ${tookMs} ms`));
  }
  return undefined;
}

/** Garbage counts too, until it is collected: what is large has not been by then. */
function allocatedBytes(): number {
  const { used_heap_size: heapBytes, external_memory: externalBytes } = getHeapStatistics();
  return heapBytes + externalBytes;
}

function findingOf(input: Uint8Array, error: unknown): Finding {
  const stack = error instanceof Error ? (error.stack ?? String(error)) : String(error);
  const problem =
    error instanceof Error ? `${error.name}: ${error.message}`.replaceAll("\n", " ") : stack;
  const place = /\n\s+at ([^\n]*)/.exec(stack)?.[1] ?? "";
  const signature = `${problem.replaceAll(/[0-9a-f]{16}|\d+|"[^"]*"/g, "#")} ${place}`;
  return { input, problem, signature, stack };
}

/** The smallest input with the same finding that removing pieces leads to. */
export async function minimize(
  target: FuzzTarget,
  finding: Finding,
  onInput: (input: Uint8Array) => void,
): Promise<Finding> {
  let best = finding;
  const endMs = performance.now() + MAX_INPUT_MS;
  for (let size = best.input.length >> 1; size >= 1; size >>= 1) {
    for (let at = 0; at < best.input.length && performance.now() < endMs;) {
      const { input } = best;
      const shorter = Buffer.concat([input.subarray(0, at), input.subarray(at + size)]);
      onInput(shorter);
      const found = await probe(target, new Uint8Array(shorter));
      if (found !== undefined && found.signature === finding.signature) best = found;
      else at += size;
    }
  }
  return best;
}
