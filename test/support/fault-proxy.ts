import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { Faults, ProxyAnswer, ProxyCommand } from "./fault-proxy-worker.ts";

const NONE: Faults = { latencyMs: 0, toServer: "pass", toClient: "pass", isCut: false };
type WithoutId<T> = T extends { id: number } ? Omit<T, "id"> : never;

/** A TCP connection that can be slow, deaf, dumb or cut, on a thread of its own. */
export class FaultProxy {
  readonly port: number;
  readonly #worker: Worker;
  readonly #waiting = new Map<number, (answer: ProxyAnswer) => void>();
  #nextId = 1;
  #faults: Faults = NONE;

  private constructor(worker: Worker, port: number) {
    this.#worker = worker;
    this.port = port;
    worker.on("message", (answer: ProxyAnswer) => {
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
  }

  static async start(targetPort: number): Promise<FaultProxy> {
    const worker = new Worker(new URL("./fault-proxy-worker.ts", import.meta.url), {
      workerData: { targetPort },
    });
    const [first] = (await once(worker, "message")) as [ProxyAnswer];
    worker.unref();
    return new FaultProxy(worker, first.port ?? 0);
  }

  /** Changes what is named and leaves the rest. */
  async set(faults: Partial<Faults>): Promise<void> {
    this.#faults = { ...this.#faults, ...faults };
    await this.#ask({ type: "faults", faults: this.#faults });
  }

  /** Everything passes again. */
  async heal(): Promise<void> {
    await this.set(NONE);
  }

  /** Breaks every connection that is open. */
  async reset(): Promise<void> {
    await this.#ask({ type: "reset" });
  }

  /** Breaks every connection and refuses new ones until `heal`. */
  async cut(): Promise<void> {
    await this.set({ isCut: true });
    await this.reset();
  }

  async counts(): Promise<{ fromClients: number; fromServer: number }> {
    const { fromClients = 0, fromServer = 0 } = await this.#ask({ type: "counts" });
    return { fromClients, fromServer };
  }

  #ask(command: WithoutId<ProxyCommand>): Promise<ProxyAnswer> {
    const id = this.#nextId++;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      this.#worker.postMessage({ ...command, id });
    });
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}
