/**
 * A broken invariant: a bug in litefs itself, never bad input. It is not caught anywhere but at the
 * top of a thread, where the process says what broke and stops before it can do harm.
 */
export class InvariantError extends Error {
  override readonly name = "InvariantError";
}

/** Stays on in production: a wrong assumption in a storage engine must stop it, not corrupt data. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

/** Makes the compiler prove that a switch over a union is complete. */
export function assertNever(value: never): never {
  throw new InvariantError(`unexpected value: ${String(value)}`);
}
