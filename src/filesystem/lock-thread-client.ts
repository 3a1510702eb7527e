import { MessageChannel, Worker } from "node:worker_threads";
import { kick } from "./lock-link.ts";
import { LOCK_WORDS, LOCK_WORDS_BYTES } from "./lock-messages.ts";
import type {
  LockLinkData,
  LockThreadCall,
  LockThreadData,
  LockThreadEvent,
} from "./lock-messages.ts";

/** The lock thread, as the main thread uses it. */
export class LockThread {
  /** For the mount thread. */
  readonly link: LockLinkData;
  readonly #worker: Worker;
  readonly #control: Int32Array;
  readonly #serving = Promise.withResolvers<void>();

  private constructor(worker: Worker, link: LockLinkData) {
    this.#worker = worker;
    this.link = link;
    this.#control = new Int32Array(link.control);
    worker.on("message", (event: LockThreadEvent) => {
      if (event.type === "serving") this.#serving.resolve();
    });
  }

  /** Resolves to why not, where the kernel cannot keep the locks. */
  static async start(
    dataDirectory: string,
    shared: SharedArrayBuffer,
    onFatal: (error: unknown) => void,
  ): Promise<LockThread | { readonly reason: string }> {
    const control = new SharedArrayBuffer(LOCK_WORDS_BYTES);
    const { port1, port2 } = new MessageChannel();
    const data: LockThreadData = { dataDirectory, port: port2, control, shared };
    const extension = import.meta.url.endsWith(".ts") ? ".ts" : ".js";
    const worker = new Worker(new URL(`./lock-thread${extension}`, import.meta.url), {
      workerData: data,
      transferList: [port2],
      name: "lock-thread",
      resourceLimits: { maxYoungGenerationSizeMb: 1 },
    });
    const started = Promise.withResolvers<LockThreadEvent>();
    worker.once("message", (event: LockThreadEvent) => started.resolve(event));
    worker.once("error", (error) => {
      started.resolve({ type: "unavailable", reason: String(error) });
    });
    const event = await started.promise;
    if (event.type !== "ready") {
      port1.close();
      return { reason: event.type === "unavailable" ? event.reason : "it did not start" };
    }
    worker.on("error", onFatal);
    const { kickFd, threadId } = event;
    return new LockThread(worker, { port: port1, control, kickFd, threadId });
  }

  /** The mount is served by now; resolves once files of it can be opened. */
  async serve(deviceFd: number, mountPoint: string): Promise<void> {
    this.#worker.postMessage({ deviceFd, mountPoint } satisfies LockThreadCall);
    this.#kick();
    const died = new Promise<never>((_resolve, reject) => this.#worker.once("error", reject));
    await Promise.race([this.#serving.promise, died]);
  }

  /** Works in any state, also from an exit handler. */
  requestStop(): void {
    Atomics.store(this.#control, LOCK_WORDS.stop, 1);
    this.#kick();
  }

  /** Resolves when the thread has ended. */
  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#worker.once("exit", resolve));
    if (this.#worker.threadId < 0) return;
    this.requestStop();
    await ended;
  }

  #kick(): void {
    kick(this.link.kickFd);
  }
}
