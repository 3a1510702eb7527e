import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Database from "better-sqlite3";
import { Cluster, waitFor } from "../../support/cluster.ts";
import type { TestNode } from "../../support/test-node.ts";
import { Random } from "../../unit/database/support/fake-disk.ts";
import { PYTHON } from "../../support/python-path.ts";

const DATABASES = [
  { name: "wal.db", mode: "WAL" },
  { name: "delete.db", mode: "DELETE" },
] as const;
const BATCHES = [1, 1, 8, 60];
const LEVELS = ["FULL", "NORMAL"];
/** Writers of each database: two on the primary, and one on the replica, which forwards. */
const WRITERS = [1, 2, 3];
const REPLICA_WRITER = 3;
/** How long everything runs before something is killed, at most. */
const LOAD_MAX_MS = 500;
/** Every so many rounds all nodes are compared byte for byte, and stopped and started in order. */
const ROUNDS_PER_COMPARISON = 10;

type Victim = "writers" | "primary" | "replica" | "primary and writers" | "both nodes" | "all";
const VICTIMS: readonly Victim[] = [
  "writers",
  "writers",
  "primary",
  "primary",
  "replica",
  "primary and writers",
  "both nodes",
  "all",
];

interface Writer {
  readonly child: ChildProcess;
  readonly isForwarding: boolean;
  readonly ended: Promise<unknown>;
  readonly stderr: () => string;
}

/**
 * A primary and a replica with writers at work, of which some are killed again and again with
 * SIGKILL. What a writer was told of is in files outside of the mount.
 */
export class Kills {
  readonly #cluster: Cluster;
  readonly #random: Random;
  readonly #print: (line: string) => void;
  #writers: Writer[] = [];

  private constructor(cluster: Cluster, seed: number, print: (line: string) => void) {
    this.#cluster = cluster;
    this.#random = new Random(seed);
    this.#print = print;
  }

  /** `seed` decides who is killed and when; what they are doing then is up to the machine. */
  static async run(rounds: number, seed: number, print: (line: string) => void): Promise<number> {
    const cluster = await Cluster.start({ replicas: 1 });
    for (const { name, mode } of DATABASES) {
      const db = new Database(cluster.primary.file(name));
      db.pragma(`journal_mode = ${mode}`);
      db.exec("CREATE TABLE t(writer INTEGER, n INTEGER, x)");
      db.close();
    }
    const kills = new Kills(cluster, seed, print);
    let rows = 0;
    try {
      for (let round = 1; round <= rounds; round++) {
        rows = await kills.#round(round, round % ROUNDS_PER_COMPARISON === 0 || round === rounds);
      }
    } finally {
      await kills.#killWriters();
    }
    return rows;
  }

  async #round(round: number, compares: boolean): Promise<number> {
    const { primary, replica } = this.#cluster;
    this.#startWriters();
    await this.#untilWritersWork();
    await sleep(this.#random.below(LOAD_MAX_MS));
    const victim = VICTIMS[this.#random.below(VICTIMS.length)] ?? "all";
    const nodes: TestNode[] = [];
    if (victim.startsWith("primary") || victim === "both nodes" || victim === "all") {
      nodes.push(primary);
    }
    if (victim === "replica" || victim === "both nodes" || victim === "all") nodes.push(replica);
    for (const node of nodes) node.signal("SIGKILL");
    if (victim.endsWith("writers") || victim === "all") await this.#killWriters();
    await Promise.all(nodes.map((node) => node.ended()));
    // Before the dead mount goes: they would go on in the directory below it.
    await this.#killWriters();
    for (const node of nodes) node.unmount();
    for (const node of [primary, replica]) if (!node.isRunning) await node.start();
    const rows = DATABASES.map(({ name }) => this.#checkRows(primary, name));
    this.#print(`round ${round}: killed ${victim}; rows: ${rows.join(" and ")}`);
    if (compares) await this.#compare();
    return rows.reduce((sum, count) => sum + count, 0);
  }

  #startWriters(): void {
    const { primary, replica } = this.#cluster;
    for (const { name } of DATABASES) {
      for (const writer of WRITERS) {
        const batch = BATCHES[this.#random.below(BATCHES.length)] ?? 1;
        const level = LEVELS[this.#random.below(LEVELS.length)] ?? "FULL";
        const isPython = writer > 1;
        const node = writer === REPLICA_WRITER ? replica : primary;
        const script = path.join(import.meta.dirname, isPython ? "writer.py" : "writer.ts");
        const args = [script, node.file(name), this.#ackFile(name, writer), String(writer)];
        fs.rmSync(this.#ackFile(name, writer), { force: true });
        const command = isPython ? PYTHON : process.execPath;
        const child = spawn(command, [...args, String(batch), level], {
          stdio: ["ignore", "ignore", "pipe"],
        });
        let stderr = "";
        child.stderr.on("data", (data: Buffer) => (stderr += data.toString()));
        const ended = once(child, "exit");
        const isForwarding = writer === REPLICA_WRITER;
        this.#writers.push({ child, isForwarding, ended, stderr: () => stderr });
      }
    }
  }

  #ackFile(name: string, writer: number): string {
    return path.join(this.#cluster.directory, `${name}.${writer}.ack`);
  }

  #acknowledged(name: string, writer: number): number {
    const file = this.#ackFile(name, writer);
    return fs.existsSync(file) ? Number(fs.readFileSync(file, "latin1")) : -1;
  }

  /** At least one writer of each database has been told of a commit since it was started. */
  async #untilWritersWork(): Promise<void> {
    for (const { name } of DATABASES) {
      const first = WRITERS.map((writer) => this.#acknowledged(name, writer));
      await waitFor(`the writers of ${name}`, 30_000, () => {
        const now = WRITERS.map((writer) => this.#acknowledged(name, writer));
        const isMoving = now.some((count, i) => (first[i] ?? -1) >= 0 && count > (first[i] ?? 0));
        for (const [i, count] of now.entries()) if ((first[i] ?? -1) < 0) first[i] = count;
        // A write that was forwarded may be refused, and then SQLite says that the disk has failed.
        const local = this.#writers.filter((writer) => !writer.isForwarding);
        const error = local.map((writer) => writer.stderr()).join("");
        if (error !== "") throw new Error(`a writer of ${name} failed: ${error}`);
        return isMoving ? undefined : now.join(", ");
      });
    }
  }

  async #killWriters(): Promise<void> {
    for (const { child } of this.#writers) child.kill("SIGKILL");
    await Promise.all(this.#writers.map(({ ended }) => ended));
    this.#writers = [];
  }

  /** Every acknowledged row is there, none is missing before the last, and none is there twice. */
  #checkRows(node: TestNode, name: string): number {
    const db = new Database(node.file(name), { timeout: 20_000 });
    try {
      let total = 0;
      for (const writer of WRITERS) {
        const row = db
          .prepare(
            "SELECT count(*), count(DISTINCT n), coalesce(max(n), 0) FROM t WHERE writer = ?",
          )
          .raw()
          .get(writer) as [number, number, number];
        const [count, distinct, last] = row;
        const acknowledged = this.#acknowledged(name, writer);
        if (last < acknowledged || count !== last || distinct !== last) {
          throw new Error(
            `${name} on ${node.name}: writer ${writer} was told of ${acknowledged} rows; there are ` +
              `${count}, ${distinct} different ones, the last is ${last}`,
          );
        }
        total += count;
      }
      const check: unknown = db.pragma("quick_check", { simple: true });
      if (check !== "ok") throw new Error(`${name} on ${node.name}: ${JSON.stringify(check)}`);
      return total;
    } finally {
      db.close();
    }
  }

  async #compare(): Promise<void> {
    const { primary, replica } = this.#cluster;
    for (const { name } of DATABASES) {
      await this.#cluster.waitForReplicas(name);
      this.#checkRows(replica, name);
    }
    await this.#cluster.verify();
    // A node that is never killed would reach the end of its life, see TestNode.
    await replica.restart();
    await primary.restart();
    this.#print("all nodes are the same");
  }
}
