import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import * as readline from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { parseReport } from "./report.ts";

const LITEFS = path.join(import.meta.dirname, "../bin/litefs");
const APP = path.join(import.meta.dirname, "app.ts");
const STOP_TIMEOUT_MS = 10_000;
const KEPT_LOG_LINES = 20;

export interface DemoNodeOptions {
  readonly name: string;
  readonly directory: string;
  readonly port: number;
  readonly primaryPort: number;
  /** The first that goes wrong. */
  onFailure(reason: string): void;
}

/** One node of the demo: a litefs process with its application, and what the latter has told. */
export class DemoNode {
  readonly name: string;
  readonly port: number;
  readonly isPrimary: boolean;
  readonly mountPoint: string;
  rows = 0;
  position = "";
  isDone = false;
  refusal = "";
  /** Every latency so far, in order. */
  readonly latenciesMs: number[] = [];
  readonly #options: DemoNodeOptions;
  readonly #log: string[] = [];
  #process: ChildProcess | undefined;
  #exited: Promise<void> = Promise.resolve();
  #isStopping = false;

  constructor(options: DemoNodeOptions) {
    this.#options = options;
    this.name = options.name;
    this.port = options.port;
    this.isPrimary = options.port === options.primaryPort;
    this.mountPoint = path.join(options.directory, "mnt");
  }

  start(): void {
    const config = path.join(this.#options.directory, "litefs.yml");
    fs.mkdirSync(this.#options.directory, { recursive: true });
    fs.writeFileSync(config, this.#config());
    const role = this.isPrimary ? "writer" : "reader";
    const database = path.join(this.mountPoint, "demo.db");
    const args = ["mount", "-config", config, "--", process.execPath, APP, role, database];
    // A process group of its own, so that Ctrl-C comes to the demo alone, which ends things in order.
    const child = spawn(LITEFS, args, { stdio: ["pipe", "pipe", "pipe"], detached: true });
    this.#process = child;
    child.stdin.on("error", () => undefined);
    readline.createInterface({ input: child.stdout }).on("line", (line) => this.#onLine(line));
    readline.createInterface({ input: child.stderr }).on("line", (line) => {
      this.#log.push(line);
      if (this.#log.length > KEPT_LOG_LINES) this.#log.shift();
    });
    this.#exited = new Promise((resolve) => {
      child.once("error", (error) => {
        this.#options.onFailure(`${this.name} cannot be started: ${error.message}`);
        resolve();
      });
      child.once("exit", (code, signal) => {
        this.#process = undefined;
        if (!this.#isStopping) {
          const said = ["", ...this.#log].join("\n  ");
          this.#options.onFailure(`${this.name} ended with ${code ?? signal}, having said:${said}`);
        }
        resolve();
      });
    });
  }

  /** Tells the application to write no more. */
  stopWriting(): void {
    this.#process?.stdin?.write("stop\n");
  }

  /** Recomputes the checksum of the whole database; answers the position if it is right. */
  async check(): Promise<string> {
    const url = `http://127.0.0.1:${this.port}/check?name=demo.db`;
    const response = await fetch(url, { signal: AbortSignal.timeout(STOP_TIMEOUT_MS) });
    const answer: unknown = await response.json();
    if (typeof answer !== "object" || answer === null) return "no answer";
    const { result, position } = { result: "", position: "", ...answer };
    return result === "ok" ? position : `${this.name}: ${JSON.stringify(answer)}`;
  }

  /** Ends litefs as a process manager would. Whatever happens, nothing is left behind. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#process?.kill("SIGTERM");
    if (!(await this.#exitsWithin(STOP_TIMEOUT_MS))) this.#kill();
    // Even a killed process may stay, if the kernel waits for something in its name.
    await this.#exitsWithin(STOP_TIMEOUT_MS);
    if (this.#isMounted()) spawnSync("umount", ["-l", this.mountPoint], { timeout: 5_000 });
    if (this.#isMounted()) throw new Error(`${this.mountPoint} is still mounted`);
  }

  #exitsWithin(timeoutMs: number): Promise<boolean> {
    return Promise.race([this.#exited.then(() => true), sleep(timeoutMs, false, { ref: false })]);
  }

  /** The application shares the process group with its litefs. */
  #kill(): void {
    const pid = this.#process?.pid;
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
  }

  #isMounted(): boolean {
    return fs.readFileSync("/proc/self/mounts", "utf8").includes(` ${this.mountPoint} `);
  }

  #onLine(line: string): void {
    const report = parseReport(line);
    if (report === undefined) return;
    this.rows = report.rows;
    this.position = report.position;
    this.latenciesMs.push(...report.latenciesMs);
    this.isDone = report.isDone === true;
    this.refusal = report.refusal ?? "";
  }

  #config(): string {
    const { directory, port, primaryPort } = this.#options;
    return [
      `fuse:  { dir: "${this.mountPoint}" }`,
      `data:  { dir: "${path.join(directory, "data")}" }`,
      `http:  { addr: "127.0.0.1:${port}" }`,
      "lease:",
      "  type: static",
      `  candidate: ${this.isPrimary}`,
      "  hostname: node-1",
      `  advertise-url: "http://127.0.0.1:${primaryPort}"`,
      "",
    ].join("\n");
  }
}
