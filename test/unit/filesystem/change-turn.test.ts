import { expect, test } from "vitest";
import { ChangeTurn } from "../../../src/filesystem/change-turn.ts";
import type { SharedAtomics } from "../../../src/filesystem/change-turn.ts";
import { SHARED_BYTES } from "../../../src/filesystem/messages.ts";

function newWords(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(SHARED_BYTES));
}

test("one event at a time; who waits is woken", () => {
  const turn = new ChangeTurn(newWords());
  expect(turn.take()).toBe(true);
  expect(turn.take()).toBe(false);
  expect(turn.take()).toBe(false);
  expect(turn.release()).toBe(true);
  expect(turn.take()).toBe(true);
  expect(turn.release()).toBe(false);
});

/** Runs `step` before the nth operation on the shared words. */
function interrupted(n: number, step: () => void): SharedAtomics {
  let operation = 0;
  const before = (): void => {
    if (operation++ === n) step();
  };
  // The methods are overloaded for bigints, which these words are not.
  return {
    exchange: (array: Int32Array, index: number, value: number) => {
      before();
      return Atomics.exchange(array, index, value);
    },
    load: (array: Int32Array, index: number) => {
      before();
      return Atomics.load(array, index);
    },
    store: (array: Int32Array, index: number, value: number) => {
      before();
      return Atomics.store(array, index, value);
    },
  } as SharedAtomics;
}

test.each([0, 1, 2, 3, 4])("no change is left behind when both meet at operation %i", (n) => {
  const words = newWords();
  const main = new ChangeTurn(words);
  expect(main.take()).toBe(true);
  let released = false;
  let woken = false;
  const release = (): void => {
    released = true;
    woken = main.release();
  };
  const posted = new ChangeTurn(words, interrupted(n, release)).take();
  if (!released) release();
  // Either the change went out, or the one that has it is told to try again.
  expect(posted || woken).toBe(true);
});
