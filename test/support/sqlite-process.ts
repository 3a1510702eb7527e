import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import * as readline from "node:readline";
import { PYTHON } from "./python-path.ts";

const PROGRAM = `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
for line in sys.stdin:
  try: print(json.dumps(db.execute(json.loads(line)).fetchall()), flush=True)
  except sqlite3.Error as error: print(json.dumps(str(error)), flush=True)
`;

/**
 * A connection in a process of its own. Where a node is stopped or killed on purpose, one in the
 * test's process would block it: each fork and exec of a server closes inherited descriptors, and
 * that asks the node.
 */
export class SqliteProcess {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;

  constructor(databasePath: string) {
    this.#child = spawn(PYTHON, ["-c", PROGRAM, databasePath], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const { stdout } = this.#child;
    if (stdout === null) throw new Error("the child has no standard output");
    this.#answers = readline.createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  /** The rows of one statement; throws what SQLite said. */
  async run(sql: string): Promise<unknown[][]> {
    this.#child.stdin?.write(`${JSON.stringify(sql)}\n`);
    const { value, done } = await this.#answers.next();
    if (done === true) throw new Error("the process with the connection has ended");
    const answer: unknown = JSON.parse(value);
    if (typeof answer === "string") throw new Error(answer);
    return answer as unknown[][];
  }

  async dispose(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGKILL");
    await once(this.#child, "exit");
  }
}
