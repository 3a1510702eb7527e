import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const READY_TIMEOUT_MS = 60_000;
/** Whatever becomes of the test, its servers do not outlive it by much. */
const LIFE_MAX_SECONDS = 600;

/** A server of a test: a process with a directory and a log, gone after `dispose`. */
export class ServerProcess {
  readonly directory: string = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-test-server-"));
  readonly #command: string;
  readonly #args: readonly string[];
  #child: ChildProcess | undefined;

  constructor(command: string, args: (directory: string) => readonly string[]) {
    this.#command = command;
    this.#args = args(this.directory);
  }

  get log(): string {
    const file = path.join(this.directory, "log");
    return fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
  }

  start(): void {
    const log = fs.openSync(path.join(this.directory, "log"), "a");
    this.#child = spawn(
      "timeout",
      ["-s", "KILL", String(LIFE_MAX_SECONDS), this.#command, ...this.#args],
      { stdio: ["ignore", log, log], detached: true },
    );
    fs.closeSync(log);
  }

  /** Polls until the server answers as it should. */
  async ready(what: string, probe: () => Promise<boolean>): Promise<void> {
    const deadline = Date.now() + READY_TIMEOUT_MS;
    for (;;) {
      if (await probe().catch(() => false)) return;
      if (Date.now() > deadline) throw new Error(`${what} never became ready:\n${this.log}`);
      await sleep(50);
    }
  }

  /** To the server and the `timeout` around it. */
  signal(name: NodeJS.Signals): void {
    const pid = this.#child?.pid;
    if (pid !== undefined && this.#child?.exitCode === null) process.kill(-pid, name);
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    process.kill(-child.pid, "SIGKILL");
    await ended;
  }

  async dispose(): Promise<void> {
    await this.kill();
    fs.rmSync(this.directory, { recursive: true, force: true });
  }
}
