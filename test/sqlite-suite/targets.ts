import { execFile, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { abortConnection } from "../../src/fuse/connection.ts";
import { findMount } from "../../src/fuse/mountinfo.ts";

const LITEFS = path.resolve(import.meta.dirname, "../../bin/litefs");
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 20_000;
const CLEAN_TIMEOUT_MS = 60_000;
/** In every mount, and not to be removed. */
const VIRTUAL: readonly string[] = [".lag", ".role", ".primary"];

/** A directory in which tests run, one after the other. */
export interface Target {
  readonly name: string;
  /** Gives an empty directory. */
  fresh(): Promise<string>;
  /** A test did not come to its end: nothing of what it left is relied upon. */
  recover(): Promise<void>;
  close(): Promise<void>;
}

export class PlainTarget implements Target {
  readonly name = "directory";
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  fresh(): Promise<string> {
    const directory = path.join(this.#directory, "plain");
    fs.rmSync(directory, { recursive: true, force: true });
    fs.mkdirSync(directory, { recursive: true });
    return Promise.resolve(directory);
  }
  recover(): Promise<void> {
    return Promise.resolve();
  }
  close(): Promise<void> {
    fs.rmSync(path.join(this.#directory, "plain"), { recursive: true, force: true });
    return Promise.resolve();
  }
}

/** The root of a mount of this litefs, as a primary without replicas. */
export class MountTarget implements Target {
  readonly name = "mount";
  readonly #directory: string;
  readonly #mountPoint: string;
  #child: ChildProcess | undefined;
  #exited: Promise<void> = Promise.resolve();
  #connectionId = 0;
  #lives = 0;
  #isRefused = false;

  constructor(directory: string) {
    this.#directory = directory;
    this.#mountPoint = path.join(directory, "mnt");
  }

  get logPath(): string {
    return path.join(this.#directory, "litefs.log");
  }
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Nothing is to be started any more. */
  refuse(): void {
    this.#isRefused = true;
  }

  async fresh(): Promise<string> {
    if (this.#isRefused) throw new Error("the run was stopped");
    if (this.#child !== undefined && !(await this.#clean())) await this.recover();
    if (this.#child === undefined) await this.#start();
    return this.#mountPoint;
  }

  /** Never with a call of our own process: that would hang with a mount that does. */
  async #clean(): Promise<boolean> {
    const options = { timeout: CLEAN_TIMEOUT_MS, killSignal: "SIGKILL" } as const;
    try {
      const kept = VIRTUAL.flatMap((name) => ["!", "-name", name]);
      await promisify(execFile)(
        "find",
        [this.#mountPoint, "-mindepth", "1", ...kept, "-delete"],
        options,
      );
      const { stdout } = await promisify(execFile)("ls", ["-A", this.#mountPoint], options);
      return stdout.split("\n").every((name) => name === "" || VIRTUAL.includes(name));
    } catch {
      return false;
    }
  }

  async #start(): Promise<void> {
    const data = path.join(this.#directory, "data");
    fs.rmSync(data, { recursive: true, force: true });
    fs.mkdirSync(this.#mountPoint, { recursive: true });
    const port = await freePort();
    const config = path.join(this.#directory, "litefs.yml");
    const url = `http://127.0.0.1:${port}`;
    const lines = [
      `fuse: {dir: ${JSON.stringify(this.#mountPoint)}}`,
      `data: {dir: ${JSON.stringify(data)}}`,
      `http: {addr: "127.0.0.1:${port}"}`,
      `lease: {type: static, candidate: true, hostname: suite, advertise-url: "${url}"}`,
    ];
    fs.writeFileSync(config, `${lines.join("\n")}\n`);
    const log = fs.openSync(this.logPath, "a");
    fs.writeSync(log, `--- start ${++this.#lives}\n`);
    const from = fs.fstatSync(log).size;
    const stdio = ["ignore", log, log] as const;
    const child = spawn(LITEFS, ["mount", "-config", config], { stdio: [...stdio] });
    fs.closeSync(log);
    this.#child = child;
    this.#exited = new Promise((resolve) => {
      child.once("exit", () => {
        this.#child = undefined;
        resolve();
      });
    });
    const deadline = Date.now() + START_TIMEOUT_MS;
    for (;;) {
      const said = fs.readFileSync(this.logPath, "utf8").slice(from);
      if (said.includes("connected to cluster, ready")) break;
      if (this.#child === undefined || Date.now() > deadline) {
        throw new Error(`litefs does not start:\n${said}`);
      }
      await sleep(20);
    }
    this.#connectionId = (await findMount(this.#mountPoint))?.deviceMinor ?? 0;
  }

  /** Fails whatever waits for the mount, and ends litefs. */
  async recover(): Promise<void> {
    const child = this.#child;
    if (this.#connectionId !== 0) await abortConnection(this.#connectionId, this.#mountPoint);
    this.#connectionId = 0;
    child?.kill("SIGKILL");
    await this.#exited;
    await this.#unmount();
  }

  async close(): Promise<void> {
    const child = this.#child;
    child?.kill("SIGTERM");
    const late = sleep(STOP_TIMEOUT_MS, "late" as const);
    if ((await Promise.race([this.#exited, late])) === "late") await this.recover();
    await this.#unmount();
    fs.rmSync(path.join(this.#directory, "data"), { recursive: true, force: true });
  }

  async #unmount(): Promise<void> {
    if ((await findMount(this.#mountPoint)) === undefined) return;
    await promisify(execFile)("umount", ["-l", this.#mountPoint], { timeout: 10_000 });
  }
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}
