import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { compareFile } from "../sqlite-suite/compare-file.ts";
import { findTestFiles } from "../sqlite-suite/run-file.ts";
import { defaultBuildDirectory, prepareSuite, SuiteUnavailable } from "../sqlite-suite/source.ts";
import type { Suite } from "../sqlite-suite/source.ts";
import { MountTarget, PlainTarget } from "../sqlite-suite/targets.ts";

/** Of the files of SQLite's tests those that say most about a file system for their time. */
const FILES = `
  attach backup2 crash2 exclusive incrvacuum journal2 journal3 jrnlmode jrnlmode2 jrnlmode3 lock
  lock2 lock4 lock5 memdb mmap1 pager1 pager2 pager3 pager4 pageropt pagesize savepoint
  savepoint2 shared tempdb trans trans3 vacuum vacuum2 vacuum5 vacuum-into wal wal2 wal3
  wal4 wal5 wal6 wal7 wal8 wal9 walbak walcksum walmode waloverwrite walro walvfs zerodamage
`
  .trim()
  .split(/\s+/);
const BUILD_TIMEOUT_MS = 30 * 60_000;
const FILE_TIMEOUT_MS = 300_000;

const buildDirectory = defaultBuildDirectory();
const work = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-sqlite-"));
const plain = new PlainTarget(work);
const mount = new MountTarget(work);
let suite: Suite | undefined;
let paths: Map<string, string>;

beforeAll(async () => {
  try {
    suite = await prepareSuite({
      buildDirectory,
      report: (what) => process.stderr.write(`SQLite's tests: ${what}\n`),
    });
    paths = findTestFiles(suite);
  } catch (error) {
    if (!(error instanceof SuiteUnavailable)) throw error;
    const line = "!".repeat(80);
    process.stderr.write(`${line}\nSKIPPED: SQLite's own tests: ${error.message}\n${line}\n`);
  }
}, BUILD_TIMEOUT_MS);

afterAll(async () => {
  await mount.close();
  await plain.close();
  fs.rmSync(work, { recursive: true, force: true });
});

for (const name of FILES) {
  test(
    `${name}.test of SQLite's own tests goes on the mount as in a directory`,
    async ({ skip }) => {
      if (suite === undefined) return skip("the source of SQLite cannot be had here");
      const file = paths.get(`${name}.test`);
      if (file === undefined) return skip(`SQLite ${suite.version} has no ${name}.test`);
      const comparison = await compareFile({
        suite,
        buildDirectory,
        file,
        plain,
        mount,
        timeoutMs: FILE_TIMEOUT_MS,
        again: false,
      });
      const unknown = comparison.differences.filter(({ reason }) => reason === undefined);
      expect(unknown).toEqual([]);
      expect(comparison.obsolete).toEqual([]);
      expect(comparison.passedPlain).toBeGreaterThan(0);
    },
    FILE_TIMEOUT_MS * 6,
  );
}
