import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ElectedCluster } from "../../support/elected-cluster.ts";
import type { NodeStatus, TestNode } from "../../support/test-node.ts";
import type { Backend } from "./backend.ts";
import { Network } from "./network.ts";
import { TermWatch } from "./term-watch.ts";
import type { Timeline } from "./timeline.ts";

const PRELOAD = path.join(import.meta.dirname, "node-preload.ts");
const WATCH_INTERVAL_MS = 150;
const STATUS_TIMEOUT_MS = 600;
/** Nothing is thrown away that tells what became of a write. */
const DATA_CONFIG = ["kept-copies: 10000", "kept-copies-max-size: 0", "retention: 24h"];
const STOP_TIMEOUT_MS = 60_000;

/** Nodes that reach each other, and the backend of their lease, through a network with faults. */
export class ChaosCluster {
  readonly cluster: ElectedCluster;
  readonly network: Network;
  readonly backend: Backend;
  readonly terms: TermWatch;
  readonly #timeline: Timeline;
  readonly #watching = new AbortController();
  #watch: Promise<unknown> = Promise.resolve();
  /** The last that was known. */
  #primary = 0;

  private constructor(
    cluster: ElectedCluster,
    network: Network,
    backend: Backend,
    timeline: Timeline,
  ) {
    this.cluster = cluster;
    this.network = network;
    this.backend = backend;
    this.terms = new TermWatch((signal) => backend.holder(cluster.leaseKey, signal));
    this.#timeline = timeline;
  }

  static async create(options: {
    readonly nodes: number;
    readonly seed: number;
    readonly backend: Backend;
    readonly lifeMaxSeconds: number;
    readonly timeline: Timeline;
  }): Promise<ChaosCluster> {
    const { nodes, seed, backend, lifeMaxSeconds, timeline } = options;
    const config = "log: {timestamp: true}";
    const cluster = await ElectedCluster.create({
      nodes,
      lease: backend.lease,
      config,
      lifeMaxSeconds,
    });
    for (const node of cluster.nodes) for (const line of DATA_CONFIG) node.useDataConfig(line);
    const ports = [...cluster.nodes.map((node) => node.options.port), backend.port];
    return new ChaosCluster(cluster, await Network.start(ports, seed), backend, timeline);
  }

  /** The first node becomes the primary. */
  async start(): Promise<void> {
    for (const i of this.cluster.nodes.keys()) this.setClock(i, 0);
    this.launch(0);
    await this.node(0).waitForLog("connected to cluster, ready");
    for (const i of this.cluster.nodes.keys()) if (i > 0) this.launch(i);
    for (const node of this.cluster.nodes) await node.waitForLog("connected to cluster, ready");
    const watched = this.cluster.nodes.map((_, i) => this.#watchNode(i));
    this.#watch = Promise.all([...watched, this.terms.run(this.#watching.signal)]);
  }

  node(index: number): TestNode {
    return this.cluster.node(index);
  }

  /** The number that the lease's backend has in the network. */
  get leaseMachine(): number {
    return this.cluster.nodes.length;
  }

  get primary(): number {
    return this.#primary;
  }

  /** Starts a node without waiting for it. */
  launch(index: number): void {
    this.node(index).launch([], {
      ...process.env,
      NODE_OPTIONS: `--disable-warning=ExperimentalWarning --import=${PRELOAD}`,
      LITEFS_CHAOS_ROUTES: JSON.stringify(this.network.routesOf(index)),
      LITEFS_CHAOS_CLOCK: this.#clockFile(index),
    });
  }

  /** Moves the wall clock of a node, and of nobody else. */
  setClock(index: number, offsetMs: number): void {
    const file = this.#clockFile(index);
    // It is read while it is written.
    fs.writeFileSync(`${file}.new`, String(offsetMs));
    fs.renameSync(`${file}.new`, file);
  }

  #clockFile(index: number): string {
    return path.join(this.node(index).options.directory, "clock");
  }

  async #watchNode(index: number): Promise<void> {
    const node = this.node(index);
    let role = "";
    while (!this.#watching.signal.aborted) {
      const signal = AbortSignal.timeout(STATUS_TIMEOUT_MS);
      const status = await fetch(`${node.url}/status`, { signal })
        .then(async (answer) => (await answer.json()) as NodeStatus)
        .catch(() => undefined);
      if (status?.isPrimary === true) this.#primary = index;
      const now =
        status === undefined ? "silent" : `${status.role} of ${status.primary?.hostname ?? "none"}`;
      if (now !== role) this.#timeline.add(`${node.name} is ${now}`);
      role = now;
      await sleep(WATCH_INTERVAL_MS);
    }
  }

  async stopWatching(): Promise<void> {
    this.#watching.abort();
    await this.#watch;
  }

  /** How often a node became the primary, by what they have printed. */
  countElections(): number {
    return this.cluster.nodes
      .map(({ log }) => log.match(/primary lease acquired/g))
      .reduce((sum, found) => sum + (found?.length ?? 0), 0);
  }

  /** In order; their logs on the disk are complete then. */
  async stop(): Promise<void> {
    await this.stopWatching();
    for (const node of this.cluster.running) node.signal("SIGTERM");
    await Promise.all(this.cluster.running.map((node) => node.ended(STOP_TIMEOUT_MS)));
  }

  /** Nothing is left running; the files only if they are wanted. */
  async dispose(keepsFiles: boolean): Promise<void> {
    await this.stopWatching();
    if (keepsFiles) await Promise.all(this.cluster.nodes.map((node) => node.dispose()));
    else await this.cluster.dispose();
    await this.network.close();
  }
}
