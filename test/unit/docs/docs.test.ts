import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";
import { ForwardingStatistics } from "../../../src/cluster/forwarding/statistics.ts";
import { COMMAND_USAGE } from "../../../src/cli/help.ts";
import { renderReference } from "../../../src/config/reference.ts";
import { createMetrics } from "../../../src/metrics/registry.ts";

const noElections = { attempts: 0, won: 0, deferred: 0, lost: 0, handedOver: 0, inherited: 0 };

const ROOT = path.join(import.meta.dirname, "../../..");

function read(name: string): string {
  return fs.readFileSync(path.join(ROOT, name), "utf8");
}

/** What stands in backquotes in the first column of the tables of a document. */
function firstColumn(document: string): string[] {
  return [...document.matchAll(/^\| `([^`]+)` +\|/gm)].map((match) => match[1] ?? "");
}

test("docs/configuration.md has the table of the options", () => {
  // Prettier-like tools align tables; what counts is in the cells.
  const cells = (text: string): string =>
    text.replaceAll(/ {2,}/g, " ").replaceAll(/-{3,}/g, "---");
  expect(cells(read("docs/configuration.md"))).toContain(cells(renderReference()));
});

test("docs/metrics.md names every metric, and no other", async () => {
  const metrics = createMetrics({
    databases: new Map(),
    isPrimary: () => true,
    lagMs: () => 0,
    streamCount: () => 0,
    subscriberCount: () => 0,
    sentFrames: () => new Map(),
    roleCounters: () => noElections,
    leaseRemainingMs: () => undefined,
    forwarding: new ForwardingStatistics(),
    borrowerOf: () => undefined,
    hasBorrowed: () => false,
    applyLatencyMs: () => new Map(),
    syncStatus: () => undefined,
  });
  const text = await metrics.text();
  const registered = [...text.matchAll(/^# TYPE (\S+)/gm)].map((match) => match[1] ?? "");
  expect(registered.length).toBeGreaterThan(20);
  expect(firstColumn(read("docs/metrics.md")).sort()).toEqual(registered.sort());
});

test("docs/errors.md has every code, and no other", () => {
  expect(firstColumn(read("docs/errors.md")).sort()).toEqual([...codesOfSource()].sort());
});

/** Codes of errors are texts in capitals, and the first arguments of errors of the command line. */
function codesOfSource(): Set<string> {
  const codes = new Set<string>();
  for (const name of fs.globSync("src/**/*.ts", { cwd: ROOT })) {
    const source = read(name).replaceAll(/\benv\["[A-Z_]+"\]/g, "");
    // The configuration names codes of the YAML parser, which nobody sees.
    const text = name.startsWith("src/config/")
      ? source.replaceAll(/"[A-Z]+_[A-Z_]+"/g, "")
      : source;
    const typed = text.matchAll(/(?:new (?:Litefs|Format)Error|super)\(\s*"([A-Za-z][\w-]*)",/g);
    const capitals = text.matchAll(/"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)"/g);
    for (const match of [...typed, ...capitals]) codes.add(match[1] ?? "");
  }
  return codes;
}

test("README.md tells of every command", () => {
  const readme = read("README.md");
  for (const name of Object.keys(COMMAND_USAGE)) expect(readme).toContain(`\`litefs ${name}`);
});
