import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parseArgs } from "node:util";
import { compareFile } from "./compare-file.ts";
import type { Comparison } from "./compare.ts";
import { findTestFiles, listVeryQuick } from "./run-file.ts";
import { matchesAny, selectFiles } from "./selection.ts";
import { defaultBuildDirectory, prepareSuite } from "./source.ts";
import { MountTarget, PlainTarget } from "./targets.ts";

const HELP = `Runs SQLite's own tests in a directory and on a mount, and compares them test by test.

  npm run test:sqlite -- [OPTION…] [PATTERN…]

PATTERN is the name of a test file, such as wal or "fts5*"; without any, all files that
touch the file system and then the permutation "veryquick".

  --build-dir DIR   keeps SQLite's source and programs (${defaultBuildDirectory()})
  --work-dir DIR    where the tests run, on the file system to compare with (a temporary directory)
  --again           runs the tests in the directory again instead of using what they said before
  --timeout N       seconds for a file in the directory; on the mount it is five times as much (300)
  --from FILE       leaves out what comes before this file
`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    "build-dir": { type: "string", default: defaultBuildDirectory() },
    "work-dir": { type: "string" },
    again: { type: "boolean", default: false },
    timeout: { type: "string", default: "300" },
    from: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

const isTerminal = process.stdout.isTTY;

if (values.help) process.stdout.write(HELP);
else process.exitCode = await main();

async function main(): Promise<number> {
  const buildDirectory = path.resolve(values["build-dir"]);
  const suite = await prepareSuite({ buildDirectory, report: say });
  const files = findTestFiles(suite);
  const ordered = selectFiles([...files.keys()], await listVeryQuick(suite));
  const asked = [...files.keys()].filter((file) => matchesAny(file, positionals));
  let chosen = positionals.length === 0 ? ordered : asked.sort();
  if (values.from !== undefined) chosen = chosen.slice(chosen.indexOf(values.from));
  const made = values["work-dir"] === undefined;
  const work = values["work-dir"] ?? fs.mkdtempSync(path.join(os.tmpdir(), "litefs-sqlite-"));
  const plain = new PlainTarget(work);
  const mount = new MountTarget(work);
  const stop = (): void => {
    mount.refuse();
    void mount.recover().finally(() => process.exit(130));
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, stop);
  say(`SQLite ${suite.version}, ${chosen.length} files, in ${work}`);
  const how = { timeoutMs: Number(values.timeout) * 1000, again: values.again };
  const comparisons: Comparison[] = [];
  try {
    for (const [i, name] of chosen.entries()) {
      showProgress(i, chosen.length, name);
      const file = files.get(name) ?? name;
      comparisons.push(await compareFile({ suite, buildDirectory, file, plain, mount, ...how }));
      showLine(comparisons.at(-1));
    }
  } finally {
    await mount.close();
    await plain.close();
    if (made) fs.rmSync(work, { recursive: true, force: true });
  }
  return summarize(comparisons);
}

function say(text: string): void {
  process.stdout.write(`${isTerminal ? "\r\x1b[K" : ""}${text}\n`);
}

function showProgress(done: number, total: number, name: string): void {
  if (!isTerminal) return;
  const bar = "#".repeat(Math.round((done / total) * 30)).padEnd(30);
  process.stdout.write(`\r\x1b[K[${bar}] ${done}/${total} ${name}`);
}

function showLine(comparison: Comparison | undefined): void {
  if (comparison === undefined) return;
  const { file, passedPlain, passedMount, differences } = comparison;
  const open = differences.filter(({ reason }) => reason === undefined);
  const known = differences.length - open.length;
  const count = `${String(passedMount).padStart(7)} of ${String(passedPlain).padStart(7)}`;
  const notes = [
    open.length === 0 ? "" : `${open.length} DIFFERENT`,
    known === 0 ? "" : `${known} known`,
  ];
  say(`${file.padEnd(28)} ${count}  ${notes.filter((note) => note !== "").join(", ")}`.trimEnd());
}

/** Returns the exit code. */
function summarize(comparisons: readonly Comparison[]): number {
  const differences = comparisons.flatMap((comparison) => comparison.differences);
  const open = differences.filter(({ reason }) => reason === undefined);
  const obsolete = comparisons.flatMap((comparison) => comparison.obsolete);
  if (differences.length > 0) {
    say("");
    say(`${"file".padEnd(24)} ${"test".padEnd(34)} on the mount`);
    for (const { file, test, what, reason } of differences) {
      say(`${file.padEnd(24)} ${test.padEnd(34)} ${what}${reason ? ` (known: ${reason})` : ""}`);
    }
  }
  for (const { file, tests } of obsolete) say(`no exception any more: ${file} ${tests.source}`);
  const sum = (key: "passedPlain" | "passedMount"): number =>
    comparisons.reduce((total, comparison) => total + comparison[key], 0);
  say("");
  say(
    `${sum("passedMount")} of ${sum("passedPlain")} tests that pass in a directory pass on the mount; ` +
      `${open.length} differences, ${differences.length - open.length} known, ` +
      `${obsolete.length} exceptions too many`,
  );
  return open.length + obsolete.length > 0 ? 1 : 0;
}
