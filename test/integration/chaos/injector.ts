import { setTimeout as sleep } from "node:timers/promises";
import type { Clients } from "./clients.ts";
import type { ChaosCluster } from "./chaos-cluster.ts";
import type { FlowFault } from "./flows.ts";
import { both } from "./flows.ts";
import type { Fault, Step, Target } from "./plan.ts";
import { describeFault } from "./plan.ts";
import type { Timeline } from "./timeline.ts";

/** Makes the faults of a plan, and takes them back. */
export class Injector {
  readonly #cluster: ChaosCluster;
  readonly #clients: Clients;
  readonly #timeline: Timeline;
  /** Nodes that a fault of another kind has to leave alone. */
  readonly #busy = new Set<number>();

  constructor(cluster: ChaosCluster, clients: Clients, timeline: Timeline) {
    this.#cluster = cluster;
    this.#clients = clients;
    this.#timeline = timeline;
  }

  /** Resolves when every fault is over. */
  async run(plan: readonly Step[]): Promise<void> {
    const startedAtMs = this.#timeline.elapsedMs;
    const running: Promise<void>[] = [];
    for (const step of plan) {
      await sleep(Math.max(0, startedAtMs + step.atMs - this.#timeline.elapsedMs));
      running.push(this.#inject(step));
    }
    await Promise.all(running);
  }

  async #inject({ fault, durationMs }: Step): Promise<void> {
    const primary = this.#cluster.primary;
    const name = `${describeFault(fault)} for ${durationMs} ms, primary=n${primary}`;
    const end = await this.#begin(fault, primary);
    if (end === undefined) {
      this.#timeline.add(`left out: ${name}`);
      return;
    }
    this.#timeline.add(name);
    await sleep(durationMs);
    await end();
    this.#timeline.add(`over: ${describeFault(fault)}`);
  }

  /** Returns what ends the fault; undefined when it is not possible now. */
  async #begin(fault: Fault, primary: number): Promise<(() => Promise<void>) | undefined> {
    const at = (target: Target): number => (target === "primary" ? primary : target);
    switch (fault.kind) {
      case "slow":
        return this.#flows(this.#around(at(fault.node), true, { latencyMs: fault.latencyMs }));
      case "loss":
        return this.#flows(this.#around(at(fault.node), true, { lossRate: fault.rate }));
      case "cut":
      case "one-way cut": {
        const [from, to] = [at(fault.from), fault.to];
        if (from === to) return undefined;
        const cut = both([[from, to]], { isHeld: true });
        return this.#flows(fault.kind === "cut" ? cut : cut.slice(0, 1), fault.ending);
      }
      case "refuse":
        if (at(fault.from) === fault.to) return undefined;
        return this.#flows(both([[at(fault.from), fault.to]], { isRefused: true }));
      case "isolate":
        return this.#flows(
          this.#around(at(fault.node), fault.withLease, { isHeld: true }),
          fault.ending,
        );
      case "lease cut":
        return this.#flows(
          both([[at(fault.node), this.#cluster.leaseMachine]], { isHeld: true }),
          fault.ending,
        );
      case "lease pause":
        this.#cluster.backend.process.signal("SIGSTOP");
        return async () => this.#cluster.backend.process.signal("SIGCONT");
      case "clock":
        this.#cluster.setClock(at(fault.node), fault.offsetMs);
        return async () => this.#cluster.setClock(at(fault.node), 0);
      case "promote":
        return this.#promote(fault.node);
      case "kill clients":
        this.#clients.kill(this.#cluster.node(at(fault.node)));
        return async () => undefined;
      case "pause":
        return this.#pause(at(fault.node));
      case "kill":
        return await this.#kill(at(fault.node), fault.withClients);
      case "restart":
        return this.#restart(at(fault.node));
    }
  }

  async #flows(
    faults: readonly FlowFault[],
    ending: "deliver" | "break" = "deliver",
  ): Promise<() => Promise<void>> {
    await this.#cluster.network.add(faults);
    return async () => await this.#cluster.network.remove(faults, ending);
  }

  /** Between a machine and all others, the lease's backend among them or not. */
  #around(node: number, withLease: boolean, change: FlowFault["change"]): FlowFault[] {
    const { leaseMachine } = this.#cluster;
    const count = withLease ? leaseMachine + 1 : leaseMachine;
    const others = Array.from({ length: count }, (_, i) => i).filter((i) => i !== node);
    return both(
      others.map((other) => [node, other] as const),
      change,
    );
  }

  #promote(number: number): () => Promise<void> {
    const node = this.#cluster.node(number);
    node.post("/promote").then(
      async (answer) => this.#timeline.add(`promote ${node.name}: ${await answer.text()}`.trim()),
      (error: unknown) => this.#timeline.add(`promote ${node.name}: ${String(error)}`),
    );
    return async () => undefined;
  }

  #pause(number: number): (() => Promise<void>) | undefined {
    const node = this.#cluster.node(number);
    if (!this.#claim(number)) return undefined;
    node.signal("SIGSTOP");
    return async () => {
      node.signal("SIGCONT");
      this.#busy.delete(number);
    };
  }

  async #kill(number: number, withClients: boolean): Promise<(() => Promise<void>) | undefined> {
    const node = this.#cluster.node(number);
    if (!this.#claim(number)) return undefined;
    if (withClients) this.#clients.kill(node);
    await node.kill();
    return async () => {
      this.#cluster.launch(number);
      this.#busy.delete(number);
    };
  }

  #restart(number: number): (() => Promise<void>) | undefined {
    const node = this.#cluster.node(number);
    if (!this.#claim(number)) return undefined;
    node.signal("SIGTERM");
    return async () => {
      await node.ended(STOP_TIMEOUT_MS);
      node.unmount();
      this.#cluster.launch(number);
      this.#busy.delete(number);
    };
  }

  #claim(number: number): boolean {
    if (this.#busy.has(number)) return false;
    this.#busy.add(number);
    return true;
  }
}

/** A node that ends in order may have to wait for answers that a cut holds up. */
const STOP_TIMEOUT_MS = 60_000;
