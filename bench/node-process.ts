import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Locks } from "./operations.ts";
import { sum } from "./statistics.ts";

const LITEFS = path.join(import.meta.dirname, "../bin/litefs");
const START_TIMEOUT_MS = 180_000;
const STOP_TIMEOUT_MS = 10_000;
/** Requests of the kernel that nobody waits for: close(2) returns before a RELEASE is answered. */
const NOT_ROUND_TRIPS = new Set([
  "FORGET",
  "BATCH_FORGET",
  "NOTIFY_REPLY",
  "INTERRUPT",
  "RELEASE",
  "RELEASEDIR",
]);

interface DebugVars {
  readonly fuse: Readonly<Record<string, number>>;
  readonly store: { readonly dbs: Readonly<Record<string, { txid: string; checksum: string }>> };
}

export interface ProcessorTime {
  readonly totalUs: number;
  readonly userUs: number;
}

/** A litefs daemon in a directory of its own. */
export class NodeProcess {
  static readonly #all = new Set<NodeProcess>();
  /** Who keeps SQLite's locks on all of them. */
  static locks: Locks = "daemon";
  readonly directory: string;
  readonly mountPoint: string;
  readonly port: number;
  readonly #child: ChildProcess;
  readonly #startedAtMs = performance.now();
  #output = "";
  #readyAfterMs = 0;
  #mountThread: string | undefined;

  private constructor(directory: string, port: number, primaryPort: number) {
    this.directory = directory;
    this.mountPoint = path.join(directory, "mnt");
    this.port = port;
    fs.mkdirSync(this.mountPoint, { recursive: true });
    const config = path.join(directory, "litefs.yml");
    fs.writeFileSync(
      config,
      JSON.stringify({
        fuse: { dir: this.mountPoint, locks: NodeProcess.locks },
        data: { dir: path.join(directory, "data") },
        http: { addr: `127.0.0.1:${port}` },
        lease: {
          type: "static",
          hostname: "primary",
          "advertise-url": `http://127.0.0.1:${primaryPort}`,
          candidate: port === primaryPort,
        },
      }),
    );
    this.#startedAtMs = performance.now();
    this.#child = spawn(LITEFS, ["mount", "-config", config], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    NodeProcess.#all.add(this);
  }

  /** Without the port of a primary it is the primary. Resolves when the node is ready. */
  static async start(directory: string, primaryPort?: number): Promise<NodeProcess> {
    const port = await freePort();
    const node = new NodeProcess(directory, port, primaryPort ?? port);
    await node.#ready();
    return node;
  }

  async #ready(): Promise<void> {
    const ready = Promise.withResolvers<void>();
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#output = (this.#output + text).slice(-10_000);
      if (!this.#output.includes("connected to cluster, ready")) return;
      if (this.#readyAfterMs === 0) this.#readyAfterMs = performance.now() - this.#startedAtMs;
      ready.resolve();
    });
    const fail = (what: string): void =>
      ready.reject(new Error(`litefs ${what} before it was ready:\n${this.#output}`));
    this.#child.once("exit", () => fail("ended"));
    const timer = setTimeout(() => fail("took too long"), START_TIMEOUT_MS);
    try {
      await ready.promise;
    } finally {
      clearTimeout(timer);
    }
    // It would fall back, and the figures would be those of the other way.
    if (
      NodeProcess.locks === "kernel" &&
      !this.#output.includes("the kernel keeps SQLite's locks")
    ) {
      throw new Error(`litefs does not leave the locks to the kernel here:\n${this.#output}`);
    }
  }

  /** From the start of the process. */
  get readyAfterMs(): number {
    return this.#readyAfterMs;
  }
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async #debugVars(): Promise<DebugVars> {
    try {
      const response = await fetch(`http://127.0.0.1:${this.port}/debug/vars`);
      const vars: DebugVars = JSON.parse(await response.text());
      return vars;
    } catch (cause) {
      throw new Error(`litefs does not answer; the end of its log:\n${this.#output}`, { cause });
    }
  }

  /** Requests since the start for which somebody has waited, by kind. */
  async roundTrips(): Promise<Readonly<Record<string, number>>> {
    const { fuse } = await this.#debugVars();
    return Object.fromEntries(Object.entries(fuse).filter(([name]) => !NOT_ROUND_TRIPS.has(name)));
  }

  async positions(): Promise<string> {
    const { store } = await this.#debugVars();
    const positions = Object.entries(store.dbs).map(([name, db]) => `${name} ${db.txid}`);
    return positions.sort().join("\n");
  }

  mountThreadTime(): ProcessorTime {
    this.#mountThread ??= threadsOf(this.pid).find((thread) => nameOf(thread) === "mount-thread");
    if (this.#mountThread === undefined) throw new Error("the daemon has no mount thread");
    return timeOf(this.#mountThread);
  }

  processTimeUs(): number {
    return sum(threadsOf(this.pid).map((thread) => timeOf(thread).totalUs));
  }

  residentBytes(): number {
    const status = fs.readFileSync(`/proc/${this.pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1_024;
  }

  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    NodeProcess.#all.delete(this);
    const isRunning = this.#child.exitCode === null && this.#child.signalCode === null;
    if (isRunning) {
      const exited = once(this.#child, "exit").then(() => true);
      this.#child.kill(signal);
      if (!(await Promise.race([exited, sleep(STOP_TIMEOUT_MS, false)]))) {
        this.#child.kill("SIGKILL");
        spawnSync("umount", ["-l", this.mountPoint], { timeout: 5_000 });
        await exited;
      }
    }
    // Nothing is left to unmount after an orderly end; then this fails, as it should.
    spawnSync("umount", ["-l", this.mountPoint], { timeout: 5_000, stdio: "ignore" });
  }

  static async stopAll(): Promise<void> {
    for (const node of [...NodeProcess.#all].reverse()) await node.stop();
  }
}

/** Waits until the replica is where the primary is, so that nothing runs in the background. */
export async function waitUntilEqual(primary: NodeProcess, replica: NodeProcess): Promise<void> {
  const deadline = performance.now() + 60_000;
  while ((await primary.positions()) !== (await replica.positions())) {
    if (performance.now() > deadline) throw new Error("the replica does not catch up");
    await sleep(20);
  }
}

function threadsOf(pid: number): string[] {
  return fs.readdirSync(`/proc/${pid}/task`).map((tid) => `/proc/${pid}/task/${tid}`);
}

function nameOf(thread: string): string {
  return fs.readFileSync(`${thread}/comm`, "utf8").trim();
}

/** schedstat counts nanoseconds; how they divide into user and kernel, stat samples in ticks. */
function timeOf(thread: string): ProcessorTime {
  const totalUs = Number(fs.readFileSync(`${thread}/schedstat`, "utf8").split(" ")[0]) / 1_000;
  const stat = fs.readFileSync(`${thread}/stat`, "utf8");
  // Behind the name in parentheses, which may hold blanks: state is field 3, utime field 14.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return { totalUs, userUs: Number(fields[11]) * 10_000 };
}

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port is free");
  return address.port;
}
