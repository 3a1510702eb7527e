import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { checkDirectory } from "../../../src/cli/check-directory.ts";
import { OverlayFiles } from "../../../src/cli/check-overlay.ts";
import { dispatch } from "../../../src/cli/dispatch.ts";
import { nodeFiles } from "../../../src/database/files.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import { dataDirectoryCases } from "../../support/litefs-data-dirs.ts";
import { startFakeNode } from "./fake-node.ts";
import { recordedContext } from "./recorded-context.ts";

let directory: string;
beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-check-"));
});
afterEach(() => fs.rmSync(directory, { recursive: true }));

/** Every file below a directory with the hash of its content. */
function fingerprint(root: string): Record<string, string> {
  const files: Record<string, string> = {};
  for (const entry of fs.readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath, entry.name);
    files[path.relative(root, file)] = createHash("sha256")
      .update(fs.readFileSync(file))
      .digest("hex");
  }
  return files;
}

/** LiteFS starts on these by throwing databases away, forgetting positions or not looking. */
const TREATED_OTHERWISE = new Set([
  "no-ltx-at-all",
  "database-header-bad",
  "database-50-bytes",
  "older-ltx-corrupt",
]);

describe("a stopped node", () => {
  test.each(dataDirectoryCases().filter(({ starts }) => starts))(
    "$name: tells the position of the start and changes nothing",
    async ({ name, databases, unpack }) => {
      const dataDirectory = path.join(directory, "data");
      unpack(dataDirectory);
      const before = fingerprint(dataDirectory);
      const results = await checkDirectory({ dataDirectory });
      expect(fingerprint(dataDirectory)).toEqual(before);
      if (TREATED_OTHERWISE.has(name)) return;
      for (const result of results) {
        const expected = databases[result.name]?.pos;
        expect(formatPosition(result.position), result.name).toBe(expected);
        if (name !== "ltx-gap") expect(result.problems, result.name).toEqual([]);
      }
      expect(results.map((result) => result.name)).toEqual(Object.keys(databases).sort());
    },
  );

  test.each([
    ["other-page-damaged", "app.db", /has checksum .* its newest transaction promises/],
    ["newest-ltx-corrupt", "app.db", /damaged/],
    ["older-ltx-corrupt", "app.db", /ltx\/0+[1-5]-.* is damaged/],
    ["wal-missing", "app.db", /has checksum/],
  ])("%s: names the problem, and exits with 1", async (name, database, problem) => {
    const found = dataDirectoryCases().find((other) => other.name === name);
    const dataDirectory = path.join(directory, "data");
    found?.unpack(dataDirectory);
    const context = recordedContext();
    const args = ["check", "-data-dir", dataDirectory, "-name", database, "-json"];
    expect(await dispatch(args, context)).toBe(1);
    const [result] = JSON.parse(context.output.stdout);
    expect(result).toMatchObject({ name: database, ok: false });
    expect(result.problems.join("\n")).toMatch(problem);
  });

  test("one line for each database", async () => {
    const clean = dataDirectoryCases().find(({ name }) => name === "clean.tar");
    const dataDirectory = path.join(directory, "data");
    clean?.unpack(dataDirectory);
    const context = recordedContext();
    expect(await dispatch(["check", "-data-dir", dataDirectory], context)).toBe(0);
    expect(context.output.stdout).toBe(
      "app.db  ok  0000000000000006/c32d717fce1f66d5  13 pages  6 transactions\n" +
        "dropped.db  deleted  0000000000000002/8000000000000000  0 pages  2 transactions\n" +
        "empty.db  ok  0000000000000000/0000000000000000  0 pages  0 transactions\n" +
        "persist.db  ok  0000000000000002/916ceb8df52c2056  2 pages  2 transactions\n" +
        "roll.db  ok  000000000000000e/f60289e363cc1da9  7 pages  14 transactions\n",
    );
  });
});

test.each([
  [["check", "x"], 2, 'ERROR: unexpected argument "x"; a command to run goes after --\n'],
  [["check", "-url", "ftp://x"], 2, /-url must be an http:/],
  [["check", "-url", "http://127.0.0.1:1"], 1, /no node listens at http:\/\/127.0.0.1:1/],
  [["check", "-data-dir", "/nowhere/at/all"], 1, /cannot read data directory \/nowhere\/at\/all/],
  [["check", "-config", "/nowhere.yml"], 2, /config file not found/],
])("%j", async (args, code, message) => {
  const context = recordedContext();
  expect(await dispatch(args, context)).toBe(code);
  if (typeof message === "string") expect(context.output.stderr).toContain(message);
  else expect(context.output.stderr).toMatch(message);
});

test("what else listens there is not taken for a node", async () => {
  const node = await startFakeNode((_, response) => void response.end("hello"));
  const context = recordedContext();
  expect(await dispatch(["check", "-url", node.url], context)).toBe(1);
  node.close();
  expect(context.output.stderr).toContain("not a litefs node");
});

test("the overlay reads as if every change had been made, and makes none", () => {
  const file = path.join(directory, "file");
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 9000 });
  const write = fc.record({ op: fc.constant("write" as const), at: fc.nat(20_000), bytes });
  const cut = fc.record({ op: fc.constant("truncate" as const), at: fc.nat(20_000) });
  fc.assert(
    fc.property(bytes, fc.array(fc.oneof(write, cut), { maxLength: 8 }), (initial, changes) => {
      fs.writeFileSync(file, initial);
      const overlay = new OverlayFiles(nodeFiles);
      const over = overlay.open(file);
      let model = Buffer.from(initial);
      for (const change of changes) {
        const grown = Buffer.alloc(
          change.op === "write" ? change.at + change.bytes.length : change.at,
        );
        if (change.op === "truncate") {
          model.copy(grown);
          model = grown;
          over?.truncate(change.at);
        } else {
          const size = Math.max(model.length, grown.length);
          const next = Buffer.alloc(size);
          model.copy(next);
          next.set(change.bytes, change.at);
          model = next;
          over?.writeAt(change.bytes, 0, change.bytes.length, change.at);
        }
      }
      const out = Buffer.alloc(40_000);
      const count = over?.readAt(out, 0, out.length, 0);
      expect(count).toBe(model.length);
      expect(out.subarray(0, count).equals(model)).toBe(true);
      expect(fs.readFileSync(file).equals(initial)).toBe(true);
      overlay.close();
    }),
    { numRuns: 200 },
  );
});
