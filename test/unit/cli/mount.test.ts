import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createMountCommand } from "../../../src/cli/mount.ts";
import type { RunNodeOptions } from "../../../src/cli/run-node-type.ts";
import type { Config } from "../../../src/config/config.ts";
import { recordedContext, type RecordedContext } from "./recorded-context.ts";

let directory: string;
let context: RecordedContext;
let calls: { config: Config; options: RunNodeOptions }[];

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-mount-"));
  context = recordedContext({ currentDirectory: directory, env: { A: "b" } });
  calls = [];
});
afterEach(() => fs.rmSync(directory, { recursive: true }));

/** The command with a node that remembers how it was started and ends with code 7. */
const mount = createMountCommand(() =>
  Promise.resolve((config, options) => {
    calls.push({ config, options });
    return Promise.resolve(7);
  }),
);

function writeConfig(text: string): string {
  const file = path.join(directory, "litefs.yml");
  fs.writeFileSync(file, text);
  return file;
}

test("a node gets the configuration, and its exit code is ours", async () => {
  const file = writeConfig("lease: {type: static}\nfuse: {dir: /mnt/db}\n");
  expect(await mount([], context)).toBe(7);
  expect(context.output).toEqual({ stdout: `config file read from ${file}\n`, stderr: "" });
  expect(calls).toMatchObject([
    {
      config: { fuse: { dir: "/mnt/db", debug: false }, log: { debug: false } },
      options: {
        command: undefined,
        skipUnmount: false,
        tracing: false,
        env: { A: "b", HOSTNAME: "box" },
      },
    },
  ]);
});

test("flags and the command after --", async () => {
  const file = writeConfig("lease: {type: static}\n");
  const flags = ["-skip-unmount", "-fuse.debug", "-debug", "-tracing"];
  await mount(["-config", file, ...flags, "--", "sh", "-c", "exit  1"], context);
  expect(calls).toMatchObject([
    {
      config: { fuse: { debug: true }, log: { debug: true } },
      options: { command: ["sh", "-c", "exit  1"], skipUnmount: true, tracing: true },
    },
  ]);
});

test("-no-expand-env", async () => {
  writeConfig('lease: {type: static, hostname: "$A"}\n');
  await mount([], context);
  await mount(["-no-expand-env"], context);
  expect(calls.map(({ config }) => config.lease.hostname)).toEqual(["b", "$A"]);
});

test.each([
  [
    "lease: {type: static}\nproxy: {target: 'a:1', addr: ':2', db: d}",
    "proxy.target is not supported by this version yet; remove the proxy section",
  ],
  [
    "lease: {type: static}\nbackup: {type: file, path: /b}",
    "backup.type file is not supported by this version yet; remove it",
  ],
])("%s is refused instead of silently not done", async (text, problem) => {
  const file = writeConfig(text);
  await expect(mount([], context)).rejects.toMatchObject({
    code: "config",
    message: `${file}: ${problem}`,
  });
  expect(calls).toEqual([]);
});

test("no node is started with a wrong configuration", async () => {
  writeConfig("lease: {type: static, typo: 1}");
  await expect(mount([], context)).rejects.toMatchObject({ code: "config" });
  expect(calls).toEqual([]);
});
