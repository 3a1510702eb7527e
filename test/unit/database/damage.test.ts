import { describe, expect, it } from "vitest";
import { adoptable, damagedIn, steps } from "./support/damage.ts";

/*
 * Something happens to a file behind our back. Whatever it is, opening the database and reading all
 * of it ends in one of two ways: it is at a position of its history and has the content that it had
 * there, or it is quarantined with one line that says why. In between nobody is served anything else
 * that the log knows better, and nothing is thrown that would concern the other databases.
 */
describe("damage behind our back is found, or does not matter", () => {
  for (const scenario of ["wal", "delete", "segments", "snapshot"] as const) {
    for (const [what, damage] of steps) {
      it(`${scenario}: ${what}`, () => {
        const result = damagedIn(scenario, damage);
        expect(result.cases).toBeGreaterThan(0);
        // A test in which nothing is ever found would prove nothing; a log that goes back to the
        // beginning makes up for most of it.
        const isFound = what === "a flipped bit" || what.startsWith("a directory");
        if (isFound) expect(result.quarantined).toBeGreaterThan(0);
        if (what === "an extra file") expect(result.quarantined).toBe(0);
      });
    }
  }
});

describe("a directory of LiteFS", () => {
  for (const [what, damage] of steps) {
    it(what, () => {
      expect(adoptable(damage).cases).toBeGreaterThan(0);
    });
  }
});
