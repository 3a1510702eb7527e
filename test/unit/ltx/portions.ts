import * as fc from "fast-check";

/** How to cut bytes into portions: sizes taken round robin. */
export const portionSizes: fc.Arbitrary<number[]> = fc.array(fc.integer({ min: 1, max: 9000 }), {
  minLength: 1,
  maxLength: 5,
});

export function* cut(bytes: Uint8Array, sizes: readonly number[]): Generator<Uint8Array> {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const end = Math.min(bytes.length, at + (sizes[i % sizes.length] ?? 1));
    yield bytes.subarray(at, end);
    at = end;
  }
}
