import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { randomBytes } from "node:crypto";
import Database from "better-sqlite3";
import { afterEach, expect } from "vitest";
import { checkNode } from "../../src/cli/check-node.ts";
import { waitFor, waitForPosition } from "./cluster.ts";
import { freePorts } from "./free-ports.ts";
import { TestNode } from "./test-node.ts";

const SETTLE_TIMEOUT_MS = 60_000;

export interface ElectedClusterOptions {
  readonly nodes?: number;
  /** Lines of YAML of the `lease` section, for the backend; `KEY` stands for a key of its own. */
  readonly lease: readonly string[];
  /** Lines of YAML added to the configuration of every node. */
  readonly config?: string;
  /** After this time a node is killed, see TestNode. */
  readonly lifeMaxSeconds?: number;
}

/** Nodes that elect their primary, each a process with a mount, in one temporary directory. */
export class ElectedCluster {
  readonly directory: string;
  readonly nodes: readonly TestNode[];
  /** The key of the lease in the backend. */
  readonly leaseKey: string;
  readonly #connections: Database.Database[] = [];

  private constructor(directory: string, nodes: readonly TestNode[], leaseKey: string) {
    this.directory = directory;
    this.nodes = nodes;
    this.leaseKey = leaseKey;
  }

  static async create(options: ElectedClusterOptions): Promise<ElectedCluster> {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-test-"));
    const ports = await freePorts(options.nodes ?? 3);
    const key = `litefs/test-${randomBytes(4).toString("hex")}`;
    const backend = options.lease.map((line) => line.replaceAll("KEY", key));
    const nodes = ports.map(
      (port, i) =>
        new TestNode({
          name: `n${i}`,
          directory: path.join(directory, `n${i}`),
          port,
          config: options.config ?? "",
          ...(options.lifeMaxSeconds === undefined
            ? {}
            : { lifeMaxSeconds: options.lifeMaxSeconds }),
          isPrimary: false,
          primaryName: "",
          primaryPort: 0,
          lease: [...backend, `hostname: n${i}`, `advertise-url: "http://127.0.0.1:${port}"`],
        }),
    );
    return new ElectedCluster(directory, nodes, key);
  }

  /** The first node becomes the primary, and the others follow it. */
  static async start(options: ElectedClusterOptions): Promise<ElectedCluster> {
    const cluster = await ElectedCluster.create(options);
    try {
      await cluster.node(0).start();
      await Promise.all(cluster.nodes.slice(1).map((node) => node.start()));
    } catch (error) {
      // Nobody has it yet who could end what has started.
      await cluster.dispose();
      throw error;
    }
    started.push(cluster);
    return cluster;
  }

  node(index: number): TestNode {
    const node = this.nodes[index];
    if (node === undefined) throw new Error(`the cluster has no node ${index}`);
    return node;
  }

  get running(): readonly TestNode[] {
    return this.nodes.filter((node) => node.isRunning);
  }

  connect(node: TestNode, name: string, options: Database.Options = {}): Database.Database {
    const db = new Database(node.file(name), options);
    this.#connections.push(db);
    return db;
  }

  closeConnections(): void {
    for (const db of this.#connections.splice(0)) db.close();
  }

  /** Waits until exactly one of these nodes is the primary and the others follow it. */
  async waitForPrimary(among: readonly TestNode[] = this.running): Promise<TestNode> {
    let primary: TestNode | undefined;
    await waitFor("one primary that all others follow", SETTLE_TIMEOUT_MS, async () => {
      const found = await Promise.all(
        among.map(async (node) => ({ node, status: await node.status().catch(() => undefined) })),
      );
      const primaries = found.filter(({ status }) => status?.isPrimary === true);
      const [only] = primaries;
      const follow = found.every(
        ({ status }) =>
          status?.isPrimary === true ||
          (status?.role === "replica" && status.primary?.hostname === only?.node.name),
      );
      primary = only?.node;
      if (primaries.length === 1 && follow) return undefined;
      return found.map(({ node, status }) => `${node.name}=${status?.role}`).join(" ");
    });
    if (primary === undefined) throw new Error("no primary");
    return primary;
  }

  /** Waits until other nodes stand where one stands now. */
  async waitForSame(name: string, source: TestNode, others: readonly TestNode[]): Promise<void> {
    const position = source.position(name);
    if (position === undefined) throw new Error(`${source.name} has no ${name}`);
    for (const node of others) await waitForPosition(node, name, position);
  }

  /** All running nodes are sound and have the same databases, at the same positions, byte by byte. */
  async verify(): Promise<void> {
    this.closeConnections();
    const primary = await this.waitForPrimary();
    const others = this.running.filter((node) => node !== primary);
    const { databases } = await primary.status();
    for (const { name, position } of databases) {
      for (const node of others) {
        await waitFor(
          `${node.name} to reach ${position} of ${name}`,
          SETTLE_TIMEOUT_MS,
          async () => {
            const found = (await node.status()).databases.find((other) => other.name === name);
            return found?.position === position ? undefined : (found?.position ?? "nothing");
          },
        );
      }
    }
    for (const node of this.running) {
      const results = await checkNode({ url: node.url, dataDirectory: node.dataDirectory });
      const problems = results.flatMap(({ name, problems: found }) =>
        found.map((problem) => `${name}: ${problem}`),
      );
      expect(problems, `litefs check on ${node.name}`).toEqual([]);
    }
    for (const { name } of databases) {
      const bytes = await primary.exportBytes(name);
      for (const node of others) {
        const isSame = (await node.exportBytes(name)).equals(bytes);
        expect(isSame, `${name}: ${node.name} has the bytes of ${primary.name}`).toBe(true);
      }
    }
  }

  printLogs(): void {
    for (const node of this.nodes) {
      process.stderr.write(`--- log of ${node.name}\n${node.log.slice(-6000)}\n`);
    }
  }

  async dispose(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.dispose()));
    for (const db of this.#connections.splice(0)) {
      try {
        db.close();
      } catch {
        // Its files are gone with the mount.
      }
    }
    fs.rmSync(this.directory, { recursive: true, force: true });
  }
}

const started: ElectedCluster[] = [];

/** For files whose tests start clusters: shows the logs of a failed one, and ends them. */
export function cleanUpElectedAfterEach(): void {
  afterEach(async ({ task }) => {
    if (task.result?.state === "fail") for (const cluster of started) cluster.printLogs();
    await Promise.all(started.splice(0).map((cluster) => cluster.dispose()));
  });
}
