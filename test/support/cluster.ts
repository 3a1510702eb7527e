import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Database from "better-sqlite3";
import { afterEach, expect } from "vitest";
import { checkNode } from "../../src/cli/check-node.ts";
import { FaultProxy } from "./fault-proxy.ts";
import { freePorts } from "./free-ports.ts";
import { TestNode } from "./test-node.ts";

const CATCH_UP_TIMEOUT_MS = 30_000;

export interface ClusterOptions {
  readonly replicas?: number;
  /** Lines of YAML added to the configuration of every node. */
  readonly config?: string;
  /** Who keeps SQLite's locks, where a test is about that. */
  readonly locks?: "kernel" | "daemon";
  /** `ulimit -n` of every node. */
  readonly descriptors?: number;
  /** Each replica reaches the primary through a proxy of its own. */
  readonly proxies?: boolean;
  /** After this time a node is killed, see TestNode. */
  readonly lifeMaxSeconds?: number;
}

/** A primary and its replicas on loopback, each a process with a mount, in one temporary directory. */
export class Cluster {
  readonly directory: string;
  readonly nodes: readonly TestNode[];
  readonly #connections: Database.Database[] = [];
  readonly #proxies: readonly FaultProxy[];

  private constructor(
    directory: string,
    nodes: readonly TestNode[],
    proxies: readonly FaultProxy[],
  ) {
    this.directory = directory;
    this.nodes = nodes;
    this.#proxies = proxies;
  }

  /** Makes the nodes without starting them. */
  static async create(options: ClusterOptions = {}): Promise<Cluster> {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-test-"));
    const count = 1 + (options.replicas ?? 2);
    const ports = await freePorts(count);
    const proxies: FaultProxy[] = [];
    for (let i = 1; i < count && options.proxies === true; i++) {
      proxies.push(await FaultProxy.start(ports[0] ?? 0));
    }
    const nodes = ports.map(
      (port, i) =>
        new TestNode({
          name: `n${i}`,
          directory: path.join(directory, `n${i}`),
          port,
          config: options.config ?? "",
          ...(options.descriptors === undefined ? {} : { descriptors: options.descriptors }),
          ...(options.locks === undefined ? {} : { locks: options.locks }),
          ...(options.lifeMaxSeconds === undefined
            ? {}
            : { lifeMaxSeconds: options.lifeMaxSeconds }),
          isPrimary: i === 0,
          primaryName: "n0",
          primaryPort: proxies[i - 1]?.port ?? ports[0] ?? 0,
        }),
    );
    const cluster = new Cluster(directory, nodes, proxies);
    clusters.push(cluster);
    return cluster;
  }

  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const cluster = await Cluster.create(options);
    await cluster.primary.start();
    await Promise.all(cluster.replicas.map((node) => node.start()));
    return cluster;
  }

  get primary(): TestNode {
    return this.node(0);
  }
  get replicas(): readonly TestNode[] {
    return this.nodes.slice(1);
  }
  node(index: number): TestNode {
    const node = this.nodes[index];
    if (node === undefined) throw new Error(`the cluster has no node ${index}`);
    return node;
  }
  get replica(): TestNode {
    return this.node(1);
  }
  /** Between a replica and the primary. */
  proxyOf(index: number): FaultProxy {
    const proxy = this.#proxies[index - 1];
    if (proxy === undefined) throw new Error(`node ${index} has no proxy`);
    return proxy;
  }
  get proxy(): FaultProxy {
    return this.proxyOf(1);
  }

  /** Opens a database with better-sqlite3; closed at the end of the test if not before. */
  connect(node: TestNode, name: string, options: Database.Options = {}): Database.Database {
    const db = new Database(node.file(name), options);
    this.#connections.push(db);
    return db;
  }

  closeConnections(): void {
    for (const db of this.#connections.splice(0)) db.close();
  }

  /** Waits until every running replica stands where the primary stands. */
  async waitForReplicas(name: string, timeoutMs: number = CATCH_UP_TIMEOUT_MS): Promise<string> {
    const position = this.primary.position(name);
    if (position === undefined) throw new Error(`the primary has no database "${name}"`);
    for (const node of this.replicas) {
      if (node.isRunning) await waitForPosition(node, name, position, timeoutMs);
    }
    return position;
  }

  /**
   * What every test ends with: each node is sound by `litefs check`, and all of them have the same
   * databases at the same positions with the same bytes. Returns the positions.
   */
  async verify(): Promise<Readonly<Record<string, string>>> {
    this.closeConnections();
    const running = this.nodes.filter((node) => node.isRunning);
    const expected: Record<string, string> = {};
    for (const database of await listDatabases(this.primary)) {
      if (database.status !== "ok" && database.status !== "deleted") continue;
      const { position } = database;
      expected[database.name] = position;
      for (const node of running) await waitForState(node, database.name, position);
    }
    for (const node of running) {
      const problems = (await checkNode({ url: node.url, dataDirectory: node.dataDirectory }))
        .filter((result) => result.name in expected)
        .flatMap((result) => result.problems.map((problem) => `${result.name}: ${problem}`));
      expect(problems, `litefs check on ${node.name}`).toEqual([]);
    }
    for (const [name, position] of Object.entries(expected)) {
      if (position.endsWith("/8000000000000000") || position.startsWith("0000000000000000/")) {
        continue;
      }
      const bytes = await this.primary.exportBytes(name);
      for (const node of running.slice(1)) {
        const other = await node.exportBytes(name);
        expect(other.equals(bytes), `${name}: ${node.name} has the bytes of the primary`).toBe(
          true,
        );
      }
    }
    return expected;
  }

  printLogs(): void {
    for (const node of this.nodes) {
      process.stderr.write(`--- log of ${node.name}\n${node.log.slice(-6000)}\n`);
    }
  }

  async dispose(): Promise<void> {
    // Nodes first: closing a connection on a mount that hangs would hang as well.
    await Promise.all(this.nodes.map((node) => node.dispose()));
    for (const db of this.#connections.splice(0)) {
      try {
        db.close();
      } catch {
        // Its files are gone with the mount.
      }
    }
    for (const proxy of this.#proxies) await proxy.close();
    fs.rmSync(this.directory, { recursive: true, force: true });
  }
}

const clusters: Cluster[] = [];

/** For files whose tests make clusters of their own: shows the logs of a failed one. */
export function cleanUpAfterEach(): void {
  afterEach(async ({ task }) => {
    if (task.result?.state === "fail") for (const cluster of clusters) cluster.printLogs();
    await Promise.all(clusters.splice(0).map((cluster) => cluster.dispose()));
  });
}

export async function waitForPosition(
  node: TestNode,
  name: string,
  position: string,
  timeoutMs: number = CATCH_UP_TIMEOUT_MS,
): Promise<void> {
  await waitFor(`${node.name} to reach ${position} of ${name}`, timeoutMs, () =>
    node.position(name) === position ? undefined : (node.position(name) ?? "no database"),
  );
}

export interface ListedDatabase {
  readonly name: string;
  readonly position: string;
  readonly status: string;
  readonly reason: string;
}

/** The databases of a node as it tells them. */
export async function listDatabases(node: TestNode): Promise<ListedDatabase[]> {
  const store = member(await (await node.get("/debug/vars")).json(), "store");
  return Object.entries(member(store, "dbs") ?? {}).map(([name, value]: [string, unknown]) => ({
    name,
    position: `${text(value, "txid")}/${text(value, "checksum")}`,
    status: text(value, "status"),
    reason: text(value, "reason"),
  }));
}

function member(value: unknown, name: string): object | undefined {
  const found: unknown =
    typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
  return typeof found === "object" && found !== null ? found : undefined;
}

function text(value: unknown, name: string): string {
  const found: unknown =
    typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
  return typeof found === "string" ? found : "";
}

async function waitForState(node: TestNode, name: string, position: string): Promise<void> {
  await waitFor(`${node.name} to reach ${position} of ${name}`, CATCH_UP_TIMEOUT_MS, async () => {
    const found = (await listDatabases(node)).find((database) => database.name === name);
    // One that was never written is nothing to replicate.
    const now = found?.position ?? "0000000000000000/0000000000000000";
    return now === position ? undefined : now;
  });
}

/** Polls until the probe returns undefined; what it returns otherwise is told at the end. */
export async function waitFor(
  what: string,
  timeoutMs: number,
  probe: () => string | undefined | Promise<string | undefined>,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const state = await probe();
    if (state === undefined) return;
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs} ms for ${what}: ${state}`);
    await sleep(5);
  }
}
