import { FAULT_COUNT, faultSeries } from "./exceptions.ts";
import type { Exception } from "./exceptions.ts";
import type { FileResult, TestCount } from "./run-file.ts";

/** A test, or a file as a whole, that goes otherwise on the mount. */
export interface Difference {
  readonly file: string;
  readonly test: string;
  readonly what: string;
  /** Why that is as it should be. */
  readonly reason: string | undefined;
}

export interface Comparison {
  readonly file: string;
  /** Tests that pass in the directory, and of them those that pass on the mount. */
  readonly passedPlain: number;
  readonly passedMount: number;
  readonly differences: readonly Difference[];
  /** Exceptions to which nothing corresponds any more. */
  readonly obsolete: readonly Exception[];
}

const NOTHING: TestCount = { passed: 0, failed: 0 };

/**
 * What passes in a directory and not on the mount. What fails in both, or only in the directory, says
 * nothing about the mount.
 */
export function compare(
  file: string,
  plain: FileResult,
  mount: FileResult,
  exceptions: readonly Exception[],
): Comparison {
  const found: (Omit<Difference, "reason"> & { reason?: string })[] = [];
  const series = new Set([...mount.tests.keys()].map(faultSeries));
  let passedPlain = 0;
  let passedMount = 0;
  for (const [test, there] of plain.tests) {
    const here = mount.tests.get(test) ?? NOTHING;
    passedPlain += there.passed;
    passedMount += Math.min(there.passed, here.passed);
    if (here.failed > there.failed) found.push({ file, test, what: "fails" });
    else if (here.passed < there.passed && mount.ending === "finished") {
      const what = `passes ${here.passed} times, not ${there.passed}`;
      const ofSeries = faultSeries(test);
      const isShorter = ofSeries !== undefined && here.passed === 0 && series.has(ofSeries);
      found.push({ file, test, what, ...(isShorter ? { reason: FAULT_COUNT } : {}) });
    }
  }
  for (const [test, here] of mount.tests) {
    if (!plain.tests.has(test) && here.failed > 0) found.push({ file, test, what: "fails" });
  }
  if (mount.ending !== "finished" && plain.ending === "finished") {
    found.push({ file, test: "(the file)", what: mount.ending });
  }
  const ours = exceptions.filter((exception) => exception.file === file);
  const used = new Set<Exception>();
  const differences = found.map((difference) => {
    const exception = ours.find(({ tests }) => tests.test(difference.test));
    if (exception !== undefined) used.add(exception);
    return { ...difference, reason: exception?.reason ?? difference.reason };
  });
  const obsolete = ours.filter((exception) => !used.has(exception) && !exception.isSometimes);
  return { file, passedPlain, passedMount, differences, obsolete };
}
