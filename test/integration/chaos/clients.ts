import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import * as path from "node:path";
import type { TestNode } from "../../support/test-node.ts";
import type { Random } from "../../unit/database/support/fake-disk.ts";
import type { Operation, Outcome, Snapshot } from "./history.ts";
import { PYTHON } from "../../support/python-path.ts";

interface Client {
  readonly number: number;
  readonly node: TestNode;
  readonly database: string;
  readonly history: string;
  readonly child: ChildProcess;
  readonly ended: Promise<unknown>;
}

export interface ClientOptions {
  readonly directory: string;
  readonly databases: readonly string[];
  readonly random: Random;
  readonly accounts: number;
  readonly pauseMs: number;
}

/** The applications of all nodes, one for each database; who is killed is followed by another. */
export class Clients {
  readonly #options: ClientOptions;
  readonly #all: Client[] = [];
  #isStopping = false;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  start(node: TestNode): void {
    for (const database of this.#options.databases) this.#start(node, database);
  }

  #start(node: TestNode, database: string): void {
    const { directory, random, accounts, pauseMs } = this.#options;
    const number = this.#all.length + 1;
    const history = path.join(directory, `client-${number}.jsonl`);
    fs.writeFileSync(history, "");
    const script = path.join(import.meta.dirname, "client.py");
    const seed = random.below(2 ** 31);
    const args = [script, node.file(database), history, number, seed, accounts, pauseMs].map(
      String,
    );
    const errors = fs.openSync(path.join(directory, `client-${number}.err`), "a");
    const child = spawn(PYTHON, args, { stdio: ["ignore", errors, errors] });
    fs.closeSync(errors);
    const ended = once(child, "exit");
    this.#all.push({ number, node, database, history, child, ended });
    ended.then(
      // Never two at once: what one node has shown must have an order.
      () => this.#isStopping || this.#start(node, database),
      () => undefined,
    );
  }

  /** Whoever waits in a mount that does not answer dies when it does. */
  kill(node: TestNode): void {
    for (const client of this.#all) if (client.node === node) client.child.kill("SIGKILL");
  }

  /** Those of which no write has succeeded since. */
  idleSince(timeUs: number): string[] {
    const running = this.#all.filter(({ child }) => child.exitCode ?? child.signalCode === null);
    return running
      .filter((client) => {
        const isWrite = ({ kind, outcome, endedUs = 0 }: Operation): boolean =>
          kind !== "read" && outcome === "ok" && endedUs > timeUs;
        return !readOperations(client).some(isWrite);
      })
      .map(({ node, database }) => `${database} on ${node.name}`);
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    for (const { child } of this.#all) child.kill("SIGKILL");
    await Promise.all(this.#all.map(({ ended }) => ended));
  }

  /** What those said that ended by an error of their own. */
  get errors(): string {
    return this.#all
      .map(({ number }) => path.join(this.#options.directory, `client-${number}.err`))
      .map((file) => fs.readFileSync(file, "utf8"))
      .join("");
  }

  operations(): Operation[] {
    return this.#all.flatMap((client) => readOperations(client));
  }
}

/** One line of a history: the beginning of an operation, or its end. */
interface Line {
  readonly op: number;
  readonly at: number;
  readonly kind?: Operation["kind"];
  readonly rows?: number;
  readonly outcome?: Outcome;
  readonly error?: string;
  readonly snapshot?: {
    readonly accounts: number;
    readonly balance: number;
    readonly rows: number;
    readonly progress: readonly (readonly [client: number, op: number, rows: number])[];
  };
}

function readOperations(client: Client): Operation[] {
  const { number, node, database, history } = client;
  const operations: Operation[] = [];
  for (const text of fs.readFileSync(history, "utf8").split("\n")) {
    if (text === "") continue;
    const line = JSON.parse(text) as Line;
    const begun = operations.at(-1);
    if (line.kind !== undefined) {
      operations.push({
        client: number,
        number: line.op,
        node: node.name,
        database,
        kind: line.kind,
        rows: line.rows ?? 0,
        invokedUs: line.at,
        endedUs: undefined,
        // Until its end is told.
        outcome: "unknown",
        snapshot: undefined,
        error: undefined,
      });
    } else if (begun !== undefined) {
      operations[operations.length - 1] = {
        ...begun,
        endedUs: line.at,
        outcome: line.outcome ?? "unknown",
        snapshot: line.snapshot === undefined ? undefined : snapshotOf(line.snapshot),
        error: line.error,
      };
    }
  }
  return operations;
}

function snapshotOf(seen: NonNullable<Line["snapshot"]>): Snapshot {
  const progress = seen.progress.map(
    ([client, number, rows]) => [client, { number, rows }] as const,
  );
  return { ...seen, progress: new Map(progress) };
}
