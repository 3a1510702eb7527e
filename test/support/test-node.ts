import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { shell } from "./shell.ts";

const LITEFS = path.resolve(import.meta.dirname, "../../bin/litefs");
/** Who keeps SQLite's locks: all tests hold for each. */
const LOCKS = process.env["LITEFS_TEST_LOCKS"] ?? "";
const START_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 20_000;
/** A test blocked in a call on a mount that hangs is freed by the death of its node. */
const NODE_LIFE_MAX_SECONDS = 240;
const GUARD_SECONDS = 5;

export interface NodeOptions {
  readonly name: string;
  /** Holds everything of this node; removed by whoever made it. */
  readonly directory: string;
  readonly port: number;
  /** Lines of YAML added to the configuration. */
  readonly config: string;
  readonly isPrimary: boolean;
  readonly primaryName: string;
  readonly primaryPort: number;
  /** After this the process is killed whatever happens. */
  readonly lifeMaxSeconds?: number;
  /** `ulimit -n` of the process. */
  readonly descriptors?: number;
  /** Who keeps SQLite's locks, where a test is about that. */
  readonly locks?: "kernel" | "daemon";
  /** Lines of YAML in the `lease` section that replace those of a static lease. */
  readonly lease?: readonly string[];
}

/** The members of GET /status that tests look at. */
export interface NodeStatus {
  readonly nodeID: string;
  readonly hostname: string;
  readonly role: string;
  readonly isPrimary: boolean;
  readonly primary: { readonly hostname: string; readonly url: string } | null;
  readonly progress: number;
  readonly databases: readonly {
    readonly name: string;
    readonly position: string;
    readonly divergedHistories: number;
  }[];
  readonly replicas: readonly { readonly nodeID: string; readonly hostname?: string }[];
}

/** How a node process ended. */
export interface NodeExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A litefs process of its own, with its own mount, data directory and log. */
export class TestNode {
  readonly options: NodeOptions;
  readonly mountPoint: string;
  dataDirectory: string;
  #child: ChildProcess | undefined;
  #exit: Promise<NodeExit> | undefined;
  #guard: ChildProcess | undefined;
  #logStart = 0;
  readonly #dataConfig: string[] = [];

  constructor(options: NodeOptions) {
    this.options = options;
    this.mountPoint = path.join(options.directory, "mnt");
    this.dataDirectory = path.join(options.directory, "data");
    fs.mkdirSync(options.directory, { recursive: true });
  }

  get name(): string {
    return this.options.name;
  }
  get url(): string {
    return `http://127.0.0.1:${this.options.port}`;
  }
  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error(`node ${this.name} is not running`);
    return pid;
  }
  get isRunning(): boolean {
    return this.#child !== undefined;
  }
  get configPath(): string {
    return path.join(this.options.directory, "litefs.yml");
  }
  get logPath(): string {
    return path.join(this.options.directory, "log");
  }

  /** Everything the node has printed in all its lives. */
  get log(): string {
    return fs.existsSync(this.logPath) ? fs.readFileSync(this.logPath, "utf8") : "";
  }

  file(name: string): string {
    return path.join(this.mountPoint, name);
  }
  /** A path below the data directory of one database. */
  dataFile(database: string, name = ""): string {
    return path.join(this.dataDirectory, "dbs", database, name);
  }

  /** Adds a setting to the `data` section. */
  useDataConfig(line: string): void {
    this.#dataConfig.push(line);
  }

  /** Who keeps SQLite's locks; empty: nobody has said. */
  get locks(): string {
    return this.options.locks ?? LOCKS;
  }

  writeConfig(extra: string = this.options.config): void {
    const { options } = this;
    const { locks } = this;
    const fuse = [`dir: ${JSON.stringify(this.mountPoint)}`];
    if (locks !== "") fuse.push(`locks: ${locks}`);
    const lines = [
      `fuse: {${fuse.join(", ")}}`,
      `http: {addr: "127.0.0.1:${options.port}"}`,
      "lease:",
      ...(
        options.lease ?? [
          "type: static",
          `hostname: ${options.primaryName}`,
          `advertise-url: "http://127.0.0.1:${options.primaryPort}"`,
          `candidate: ${options.isPrimary}`,
        ]
      ).map((line) => `  ${line}`),
      "  reconnect-delay: 100ms",
      extra,
    ];
    const data = [`dir: ${JSON.stringify(this.dataDirectory)}`, ...this.#dataConfig].join(", ");
    lines.push(`data: {${data}}`);
    fs.writeFileSync(this.configPath, `${lines.join("\n")}\n`);
  }

  /** Starts the process without waiting for anything. */
  launch(args: readonly string[] = [], env: NodeJS.ProcessEnv = process.env): void {
    if (this.#child !== undefined) throw new Error(`node ${this.name} is running already`);
    this.writeConfig();
    this.#logStart = this.log.length;
    // A file, not a pipe: the test may be blocked in the mount while the node has much to say.
    const log = fs.openSync(this.logPath, "a");
    const limit = this.options.descriptors;
    const wrapper = limit === undefined ? [] : ["prlimit", `--nofile=${limit}`];
    const [program = LITEFS, ...words] = [
      ...wrapper,
      LITEFS,
      "mount",
      "-config",
      this.configPath,
      ...args,
    ];
    const child = spawn(program, words, {
      stdio: ["ignore", log, log],
      env,
    });
    fs.closeSync(log);
    this.#child = child;
    this.#exit = new Promise((resolve) => {
      child.once("exit", (code, signal) => {
        this.#child = undefined;
        this.#stopGuard();
        resolve({ code, signal });
      });
    });
    // Ends with the node: by then its number may belong to somebody else.
    const rounds = Math.ceil(
      (this.options.lifeMaxSeconds ?? NODE_LIFE_MAX_SECONDS) / GUARD_SECONDS,
    );
    const watch =
      `for i in $(seq ${rounds}); do sleep ${GUARD_SECONDS}; kill -0 ${child.pid} || exit 0; done; ` +
      `kill -9 ${child.pid}`;
    this.#guard = spawn("sh", ["-c", watch], { stdio: "ignore", detached: true });
    this.#guard.unref();
  }

  /** Starts the node and waits until it serves. */
  async start(args: readonly string[] = []): Promise<this> {
    this.launch(args);
    await this.waitForLog("connected to cluster, ready");
    return this;
  }

  /** Waits for a text in the log of the present life. */
  async waitForLog(text: string | RegExp, timeoutMs: number = START_TIMEOUT_MS): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const log = this.log.slice(this.#logStart);
      if (typeof text === "string" ? log.includes(text) : text.test(log)) return;
      if (this.#child === undefined) {
        const exit = JSON.stringify(await this.#exit);
        throw new Error(`node ${this.name} ended, ${exit}:\n${log}`);
      }
      if (Date.now() > deadline) {
        throw new Error(`node ${this.name} never said ${String(text)}:\n${log}`);
      }
      await sleep(10);
    }
  }

  #stopGuard(): void {
    const pid = this.#guard?.pid;
    this.#guard = undefined;
    // The shell and its sleep are a process group of their own.
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
  }

  /** What GET /status says. */
  async status(): Promise<NodeStatus> {
    return (await (await this.get("/status")).json()) as NodeStatus;
  }

  async post(target: string): Promise<Response> {
    const signal = AbortSignal.timeout(60_000);
    return await fetch(`${this.url}${target}`, { method: "POST", signal });
  }

  /** The content of `.role`. */
  role(): string {
    return fs.readFileSync(this.file(".role"), "latin1").trimEnd();
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name);
  }

  /** SIGSTOP, and not one instruction after it: a thread that waits for a processor stops late. */
  async freeze(): Promise<void> {
    this.signal("SIGSTOP");
    const tasks = `/proc/${this.#child?.pid}/task`;
    const deadline = Date.now() + STOP_TIMEOUT_MS;
    const isStopped = (task: string): boolean => {
      const status = fs.readFileSync(`${tasks}/${task}/status`, "latin1");
      return /^State:\s+T/m.test(status);
    };
    while (!fs.readdirSync(tasks).every(isStopped)) {
      if (Date.now() > deadline) throw new Error(`node ${this.name} does not stop`);
      await sleep(5);
    }
  }

  /** Resolves when the process has ended by itself or by a signal sent before. */
  async ended(timeoutMs: number = STOP_TIMEOUT_MS): Promise<NodeExit> {
    if (this.#exit === undefined) throw new Error(`node ${this.name} was never started`);
    const timeout = new AbortController();
    const late = sleep(timeoutMs, undefined, { signal: timeout.signal }).then(
      () => undefined,
      () => undefined,
    );
    const exit = await Promise.race([this.#exit, late]);
    timeout.abort();
    if (exit !== undefined) return exit;
    throw new Error(`node ${this.name} did not end within ${timeoutMs} ms:\n${this.log}`);
  }

  /** SIGTERM, as a process manager does it. */
  async stop(): Promise<NodeExit> {
    this.signal("SIGTERM");
    return await this.ended();
  }

  /** kill -9: what is left is what was durable. */
  async kill(): Promise<NodeExit> {
    this.signal("SIGKILL");
    const exit = await this.ended();
    // The kernel has aborted the session; the dead mount would hide the directory.
    this.unmount();
    return exit;
  }

  async restart(): Promise<this> {
    await this.stop();
    return await this.start();
  }

  isMounted(): boolean {
    const mounts = fs.readFileSync("/proc/self/mountinfo", "utf8");
    return mounts.split("\n").some((line) => line.split(" ")[4] === this.mountPoint);
  }

  unmount(): void {
    if (this.isMounted()) shell("umount", ["-l", this.mountPoint]);
  }

  /** For every way out of a test: nothing of the node is left running or mounted. */
  async dispose(): Promise<void> {
    if (this.#child !== undefined) {
      this.signal("SIGKILL");
      await this.#exit;
    }
    this.#stopGuard();
    this.unmount();
  }

  async get(target: string): Promise<Response> {
    return await fetch(`${this.url}${target}`, { signal: AbortSignal.timeout(30_000) });
  }

  async exportBytes(database: string): Promise<Buffer> {
    const response = await this.get(`/export?name=${encodeURIComponent(database)}`);
    if (response.status !== 200) {
      throw new Error(`export of ${database} on ${this.name}: ${await response.text()}`);
    }
    return Buffer.from(await response.arrayBuffer());
  }

  /** The content of `<db>-pos`, without the newline; undefined when there is none. */
  position(database: string): string | undefined {
    try {
      return fs.readFileSync(this.file(`${database}-pos`), "latin1").trimEnd();
    } catch {
      return undefined;
    }
  }

  /** Resident memory of the process, in bytes. */
  residentBytes(): number {
    const match = /^VmRSS:\s+(\d+) kB/m.exec(fs.readFileSync(`/proc/${this.pid}/status`, "utf8"));
    return Number(match?.[1] ?? 0) * 1024;
  }
}
