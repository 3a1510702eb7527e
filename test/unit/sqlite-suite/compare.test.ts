import { describe, expect, it } from "vitest";
import { compare } from "../../sqlite-suite/compare.ts";
import type { Exception } from "../../sqlite-suite/exceptions.ts";
import { parseOutput } from "../../sqlite-suite/run-file.ts";
import type { Ending, FileResult } from "../../sqlite-suite/run-file.ts";
import { matchesAny, selectFiles } from "../../sqlite-suite/selection.ts";

const OUTPUT = `wal-1.0... Ok
wal-1.1...
! wal-1.1 expected: [1]
! wal-1.1 got:      [2]
wal-1.2... Ok
wal-1.2... Ok
wal-1.3...
Error: disk I/O error
Error: not of a test
wal-1.4... something printed in between Ok
wal-1.5.../build/testfixture: disk I/O error
    while executing
 Ok
3 errors out of 6 tests on vm Linux 64-bit little-endian
`;

function result(output: string, ending: Ending = "finished"): FileResult {
  return { tests: parseOutput(output), ending, durationMs: 1 };
}

it("reads what the tests print", () => {
  expect(Object.fromEntries(parseOutput(OUTPUT))).toEqual({
    "wal-1.0": { passed: 1, failed: 0 },
    "wal-1.1": { passed: 0, failed: 1 },
    "wal-1.2": { passed: 2, failed: 0 },
    "wal-1.3": { passed: 0, failed: 1 },
    "wal-1.4": { passed: 1, failed: 0 },
    "wal-1.5": { passed: 1, failed: 0 },
  });
});

describe("the comparison", () => {
  const plain = result("a... Ok\nb... Ok\nb... Ok\nc...\n! c expected: [1]\n");

  it("finds nothing when the same passes", () => {
    const { differences, passedMount, passedPlain } = compare("x.test", plain, plain, []);
    expect(differences).toEqual([]);
    expect([passedMount, passedPlain]).toEqual([3, 3]);
  });

  it("finds what fails, what is missing, and a file that does not end", () => {
    const mount = result("a...\n! a expected: [1]\nb... Ok\nc... Ok\n");
    const { differences } = compare("x.test", plain, mount, []);
    expect(differences.map(({ test, what }) => `${test} ${what}`)).toEqual([
      "a fails",
      "b passes 1 times, not 2",
    ]);
    const crashed = compare("x.test", plain, result("a... Ok\n", "crashed"), []);
    expect(crashed.differences.map(({ test, what }) => `${test} ${what}`)).toEqual([
      "(the file) crashed",
    ]);
    expect([crashed.passedMount, crashed.passedPlain]).toEqual([1, 3]);
  });

  it("knows that a series of simulated faults may be shorter, and may not fail", () => {
    const series = result(
      "x-1-ioerr-transient.1... Ok\nx-1-ioerr-transient.2... Ok\nx-2-oom.1... Ok\n",
    );
    const mount = result("x-1-ioerr-transient.1... Ok\n");
    const { differences } = compare("x.test", series, mount, []);
    expect(differences.map(({ test, reason }) => `${test} ${reason}`)).toEqual([
      "x-1-ioerr-transient.2 the number of steps of a fault simulation depends on the file system",
      // All of a series is missing.
      "x-2-oom.1 undefined",
    ]);
    const failing = result("x-1-ioerr-transient.1...\n! x-1-ioerr-transient.1 expected: [1]\n");
    const reasons = compare("x.test", series, failing, []).differences.map(({ reason }) => reason);
    expect(reasons[0]).toBeUndefined();
  });

  it("knows exceptions, and tells when there is nothing left of one", () => {
    const exceptions: Exception[] = [
      { file: "x.test", tests: /^a$/, reason: "as it should be" },
      { file: "x.test", tests: /^b$/, reason: "was so once" },
      { file: "x.test", tests: /^c$/, reason: "happens", isSometimes: true },
      { file: "y.test", tests: /^a$/, reason: "of another file" },
    ];
    const mount = result("a...\n! a expected: [1]\nb... Ok\nb... Ok\n");
    const { differences, obsolete } = compare("x.test", plain, mount, exceptions);
    expect(differences.map(({ reason }) => reason)).toEqual(["as it should be"]);
    expect(obsolete.map(({ reason }) => reason)).toEqual(["was so once"]);
  });
});

it("selects by name, the files that use a file system first", () => {
  expect(matchesAny("wal2.test", ["wal*"])).toBe(true);
  expect(matchesAny("walro.test", ["wal"])).toBe(false);
  expect(matchesAny("e_walauto.test", ["wal*"])).toBe(false);
  const all = ["zeroblob.test", "vacuum.test", "wal.test", "malloc.test", "select1.test"];
  expect(selectFiles(all, ["select1.test", "wal.test"])).toEqual([
    "wal.test",
    "vacuum.test",
    "select1.test",
  ]);
});
