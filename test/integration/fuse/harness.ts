import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { type FileHandle, mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import { type FuseMount, mountFuse } from "../../../src/fuse/mount.ts";
import { writeNotificationAsync } from "../../../src/fuse/notify.ts";
import { runCommand } from "../../../src/fuse/run-command.ts";
import { wakeMessage } from "../../../src/fuse/wake.ts";
import { PIN_NODE_ID } from "./memory-filesystem.ts";
import type { WorkerInput } from "./mount-worker.ts";
import { PYTHON } from "../../support/python-path.ts";

export type MountEvent = Readonly<Record<string, unknown>> & { readonly kind: string };

/** A memory file system, mounted and served by a worker. */
export class TestMount {
  readonly mount: FuseMount;
  readonly worker: Worker;
  readonly #commands: MessagePort;
  readonly #events: MountEvent[] = [];
  readonly #listeners = new Set<() => void>();
  readonly #children: ChildProcess[] = [];
  readonly #pin: FileHandle[] = [];

  private constructor(mount: FuseMount, posixLocks: boolean, spinMs: number) {
    this.mount = mount;
    const { port1, port2 } = new MessageChannel();
    this.#commands = port1;
    const workerData: WorkerInput = { fd: mount.fd, commands: port2, posixLocks, spinMs };
    this.worker = new Worker(new URL("./mount-worker.ts", import.meta.url), {
      workerData,
      transferList: [port2],
    });
    port1.on("message", (event: MountEvent) => this.#add(event));
    this.worker.on("error", (error) => this.#add({ kind: "crash", error: String(error) }));
  }

  static async start(options: { posixLocks?: boolean; spinMs?: number } = {}): Promise<TestMount> {
    const directory = await temporaryDirectory();
    const mount = await mountFuse({ directory, fsname: "litefs-test", allowOther: true });
    const test = new TestMount(mount, options.posixLocks ?? true, options.spinMs ?? 0.1);
    started.push(test);
    test.#pin.push(await open(test.path("pin"), "r"));
    return test;
  }

  /** As long as it is open, the mount is busy. */
  async closePin(): Promise<void> {
    for (const file of this.#pin.splice(0)) await file.close();
  }

  path(name: string): string {
    return join(this.mount.mountPoint, name);
  }

  /** The events so far of one kind. */
  events(kind: string): MountEvent[] {
    return this.#events.filter((event) => event.kind === kind);
  }

  /** The first event, past or future, that fits. */
  event(kind: string, fits: (event: MountEvent) => boolean = () => true): Promise<MountEvent> {
    return new Promise((resolve) => {
      const look = (): void => {
        const found = this.#events.find((event) => event.kind === kind && fits(event));
        if (found === undefined) return;
        this.#listeners.delete(look);
        resolve(found);
      };
      this.#listeners.add(look);
      look();
    });
  }

  notify(message: Uint8Array): Promise<string> {
    return writeNotificationAsync(this.mount.fd, message);
  }

  async wake(command: string): Promise<void> {
    this.#commands.postMessage(command, []);
    await this.notify(wakeMessage(PIN_NODE_ID));
  }

  /** Runs a Python program with the mount point as sys.argv[1] to its end. */
  async python(source: string): Promise<string> {
    const child = this.startPython(source);
    const [output, errors] = await Promise.all([text(child.stdout!), text(child.stderr!)]);
    if (child.exitCode === null) await once(child, "close");
    if (child.exitCode !== 0) throw new Error(`python: ${errors}`);
    return output.trim();
  }

  startPython(source: string): ChildProcess {
    const child = spawn(PYTHON, ["-c", source, this.mount.mountPoint]);
    this.#children.push(child);
    return child;
  }

  /** Whatever the test did and wherever it failed: nothing stays mounted and nothing hangs. */
  async cleanUp(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    await this.mount.abort().catch(() => undefined);
    await runCommand("umount", ["-l", this.mount.mountPoint], { timeoutMs: 5000 });
    await Promise.all(this.#pin.map((file) => file.close().catch(() => undefined)));
    await this.worker.terminate();
    this.#commands.close();
    await this.mount.close();
  }

  #add(event: MountEvent): void {
    this.#events.push(event);
    for (const listener of this.#listeners) listener();
  }
}

const started: TestMount[] = [];
const directories: string[] = [];

export async function temporaryDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "litefs-fuse-"));
  directories.push(directory);
  return directory;
}

/** For afterEach. */
export async function cleanUpAll(): Promise<void> {
  for (const test of started.splice(0)) await test.cleanUp();
  for (const directory of directories.splice(0)) {
    await runCommand("umount", ["-l", directory], { timeoutMs: 5000 });
    await rm(directory, { recursive: true, force: true });
  }
}

/** The next line that a child prints. */
export async function readLine(child: ChildProcess): Promise<string> {
  const [chunk]: unknown[] = await once(child.stdout!, "data");
  return String(chunk).trim();
}
