import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { FlowFault } from "./flows.ts";
import { flowOf } from "./flows.ts";
import type { NetworkAnswer, NetworkCommand, NetworkData } from "./network-worker.ts";

/**
 * The connections among some machines, each pair and direction with faults of its own. Machines are
 * ports on loopback; each calls another one at a port that is made for the two of them.
 */
export class Network {
  readonly #worker: Worker;
  readonly #targets: readonly number[];
  readonly #ports: readonly (readonly number[])[];
  readonly #waiting = new Map<number, () => void>();
  readonly #faults = new Set<FlowFault>();
  #nextId = 1;

  private constructor(worker: Worker, targets: readonly number[], first: NetworkAnswer) {
    this.#worker = worker;
    this.#targets = targets;
    this.#ports = first.ports ?? [];
    worker.on("message", ({ id }: NetworkAnswer) => {
      this.#waiting.get(id)?.();
      this.#waiting.delete(id);
    });
  }

  static async start(ports: readonly number[], seed: number): Promise<Network> {
    const workerData: NetworkData = { ports, seed };
    const worker = new Worker(new URL("./network-worker.ts", import.meta.url), { workerData });
    const [first] = (await once(worker, "message")) as [NetworkAnswer];
    worker.unref();
    return new Network(worker, ports, first);
  }

  /** For the machine that calls: which port to call instead of which. */
  routesOf(from: number): Record<number, number> {
    return Object.fromEntries(
      this.#targets.flatMap((port, to) =>
        to === from ? [] : [[port, this.#ports[from]?.[to] ?? 0] as const],
      ),
    );
  }

  async add(faults: readonly FlowFault[]): Promise<void> {
    for (const fault of faults) this.#faults.add(fault);
    await this.#apply(faults);
    const refused = faults.filter(({ change }) => change.isRefused === true);
    await this.#ask(refused.map(({ from, to }) => ({ type: "break", a: from, b: to })));
  }

  /** Ends faults; what they held arrives now, or is lost with its connections. */
  async remove(faults: readonly FlowFault[], ending: "deliver" | "break"): Promise<void> {
    for (const fault of faults) this.#faults.delete(fault);
    if (ending === "break") {
      await this.#ask(faults.map(({ from, to }) => ({ type: "break", a: from, b: to })));
    }
    await this.#apply(faults);
  }

  async #apply(faults: readonly FlowFault[]): Promise<void> {
    await this.#ask(
      faults.map(({ from, to }) => {
        return { type: "flow", from, to, flow: flowOf(this.#faults, from, to) };
      }),
    );
  }

  async #ask(commands: readonly NetworkCommand[]): Promise<void> {
    const id = this.#nextId++;
    await new Promise<void>((resolve) => {
      this.#waiting.set(id, resolve);
      this.#worker.postMessage({ id, commands });
    });
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}
