import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const LAUNCHER = path.resolve(import.meta.dirname, "../../../bin/litefs");
let directory: string;

beforeEach(() => {
  directory = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "litefs-launcher-")));
});
afterEach(() => fs.rmSync(directory, { recursive: true }));

function write(name: string, text: string, mode = 0o644): string {
  const file = path.join(directory, name);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, text, { mode });
  return file;
}

test("starts litefs through a chain of symbolic links, from anywhere", () => {
  fs.mkdirSync(path.join(directory, "bin"));
  fs.symlinkSync(
    path.relative(path.join(directory, "bin"), LAUNCHER),
    path.join(directory, "bin/one"),
  );
  fs.symlinkSync("one", path.join(directory, "bin/litefs"));
  const env = { PATH: `${path.join(directory, "bin")}:/usr/bin:/bin` };
  const { stdout, stderr, status } = spawnSync("litefs", ["version"], { cwd: "/", env });
  expect(String(stderr)).toBe("");
  expect(String(stdout)).toMatch(/^LiteFS v/);
  expect(status).toBe(0);
});

test("is litefs itself: signals reach a command of run, and its exit code comes back", async () => {
  const script =
    'process.on("SIGTERM", () => process.exit(9)); setInterval(() => {}, 1000); console.log("up")';
  const child = spawn(LAUNCHER, ["run", "--", process.execPath, "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  child.kill("SIGTERM");
  expect(await once(child, "exit")).toEqual([9, null]);
});

test("gives Node.js more threads, of which a command sees nothing", () => {
  const script = "console.log(process.env.UV_THREADPOOL_SIZE, process.env.LITEFS_SET_THREADPOOL)";
  const args = ["run", "--", process.execPath, "-e", script];
  const { UV_THREADPOOL_SIZE: _, ...env } = process.env;
  expect(String(spawnSync(LAUNCHER, args, { env }).stdout)).toBe("undefined undefined\n");
  const own = { ...env, UV_THREADPOOL_SIZE: "7" };
  expect(String(spawnSync(LAUNCHER, args, { env: own }).stdout)).toBe("7 undefined\n");
});

test("a reader that goes away changes neither the command nor its exit code", () => {
  const script = `{ "${LAUNCHER}" help; echo "code $?" >&2; } | true`;
  const { stderr } = spawnSync("/bin/sh", ["-c", script]);
  expect(String(stderr)).toBe("code 2\n");
});

describe("chooses a Node.js", () => {
  /** A package with nothing but the launcher and an entry. */
  function install(entry = "src/cli/main.ts"): string {
    write(entry, "");
    return write("bin/litefs", fs.readFileSync(LAUNCHER, "utf8"), 0o755);
  }

  /** A node that says its version, and else with what it was called. */
  function fakeNode(name: string, version: string): void {
    const script = `#!/bin/sh
[ "$1" = --version ] && { echo ${version}; exit 0; }
echo "${name}:$*"
`;
    write(name, script, 0o755);
  }

  function launch(launcher: string): { stdout: string; stderr: string; status: number | null } {
    // Only the fake node and the tools of the launcher are in PATH.
    for (const tool of ["dirname", "readlink", "find", "head"]) {
      const file = path.join(directory, "path", tool);
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.symlinkSync(fs.existsSync(`/usr/bin/${tool}`) ? `/usr/bin/${tool}` : `/bin/${tool}`, file);
    }
    const env = { PATH: path.join(directory, "path") };
    const { stdout, stderr, status } = spawnSync("/bin/sh", [launcher, "a b", "c"], { env });
    return { stdout: String(stdout), stderr: String(stderr), status };
  }

  test.each(["v24.12.0", "v24.21.0", "v25.0.0", "v26.1.0-nightly"])("%s will do", (version) => {
    const launcher = install();
    fakeNode("path/node", version);
    const { stdout, stderr, status } = launch(launcher);
    expect(stdout.replaceAll(/ ?--\S+/g, "")).toBe(
      `path/node: ${directory}/src/cli/main.ts a b c\n`,
    );
    expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
  });

  test.each(["v20.20.2", "v24.11.9", "v0.10.48", "nonsense"])("%s will not", (version) => {
    const launcher = install();
    fakeNode("path/node", version);
    const stderr = `ERROR: the node in PATH is ${version}, which is too old; install Node.js 24.12 or later (https://nodejs.org), or run npm install node@24 in ${directory}\n`;
    expect(launch(launcher)).toEqual({ stdout: "", stderr, status: 1 });
  });

  test("none at all", () => {
    const { stderr, status } = launch(install());
    expect(stderr).toMatch(/^ERROR: there is no node in PATH; install Node\.js 24\.12.*\n$/);
    expect(status).toBe(1);
  });

  test("the project's own is taken without a look at PATH", () => {
    const launcher = install();
    fakeNode("path/node", "v20.0.0");
    fakeNode("node_modules/node/bin/node", "v24.21.0");
    expect(launch(launcher).stdout).toMatch(/^node_modules\/node\/bin\/node:/);
  });

  test("a source edited after the build is preferred to what was built", () => {
    write("dist/cli/main.js", "");
    fs.utimesSync(path.join(directory, "dist/cli/main.js"), 1, 1);
    const launcher = install();
    fakeNode("path/node", "v24.21.0");
    expect(launch(launcher).stdout).toContain("src/cli/main.ts");
  });

  test("what was built is preferred to the source", () => {
    write("dist/cli/main.js", "");
    const launcher = install();
    fs.utimesSync(path.join(directory, "src/cli/main.ts"), 1, 1);
    fakeNode("path/node", "v24.21.0");
    expect(launch(launcher).stdout).toContain("/dist/cli/main.js a b c");
  });

  test("a package without an entry", () => {
    const launcher = install("README.md");
    const { stderr, status } = launch(launcher);
    const main = `${directory}/src/cli/main.ts`;
    expect(stderr).toBe(`ERROR: litefs is not complete: there is no ${main}; install it again\n`);
    expect(status).toBe(1);
  });
});
