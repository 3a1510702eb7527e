import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";

const CHILD = path.resolve(import.meta.dirname, "../support/exit-child.ts");
let directory: string;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-exits-"));
});

afterEach(() => {
  try {
    execFileSync("umount", ["-l", path.join(directory, "mnt")], { stdio: "ignore" });
  } catch {
    // Not mounted any more, which is what some of the tests are about.
  }
  fs.rmSync(directory, { recursive: true, force: true });
});

async function run(how: string): Promise<number | null> {
  const child = spawn(process.execPath, [CHILD, how, directory], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const exit = once(child, "exit");
  // It may end before it has said anything.
  await Promise.race([once(child.stdout, "data"), exit]);
  // A process that hangs, half alive, is what this is about: the test must not hang with it.
  const killer = setTimeout(() => child.kill("SIGKILL"), 20_000);
  const [code] = (await exit) as [number | null];
  clearTimeout(killer);
  return code;
}

// A worker that blocks in read(2) on /dev/fuse keeps a process alive for ever unless it is woken.
test.each([
  ["process.exit", 7],
  ["throw", 1],
  ["reject", 1],
])("a process that ends by %s ends", async (how, code) => {
  expect(await run(how)).toBe(code);
});

test("a connection that the kernel aborts ends the session", async () => {
  expect(await run("aborted")).toBe(5);
});

test.each([
  ["early", 3],
  ["early and stop", 4],
])(
  "what is asked before the mount is there is answered after, or when it stops: %s",
  async (how, code) => {
    expect(await run(how)).toBe(code);
  },
);

test("a node goes on when nobody reads its log any more, and stops in order", async () => {
  const mountPoint = path.join(directory, "mnt");
  const port = await freePort();
  const config = path.join(directory, "litefs.yml");
  fs.writeFileSync(
    config,
    [
      `fuse: { dir: ${mountPoint} }`,
      `data: { dir: ${path.join(directory, "data")} }`,
      `http: { addr: "127.0.0.1:${port}" }`,
      `lease: { type: static, candidate: true, advertise-url: "http://127.0.0.1:${port}" }`,
    ].join("\n"),
  );
  const main = path.resolve(import.meta.dirname, "../../src/cli/main.ts");
  const child = spawn(process.execPath, [main, "mount", "-config", config], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const exit = once(child, "exit");
  const killer = setTimeout(() => child.kill("SIGKILL"), 30_000);
  let log = "";
  for await (const chunk of child.stderr) {
    log += String(chunk);
    // Leaving the loop closes the pipe.
    if (log.includes("connected to cluster, ready")) break;
  }
  fs.writeFileSync(path.join(mountPoint, "file"), "text");
  child.kill("SIGTERM");
  const [code, signal] = (await exit) as [number | null, string | null];
  clearTimeout(killer);
  expect([code, signal], log).toEqual([0, null]);
  expect(fs.readdirSync(mountPoint)).toEqual([]);
  expect(fs.existsSync(path.join(directory, "data/clean"))).toBe(true);
});

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  server.close();
  return port;
}
