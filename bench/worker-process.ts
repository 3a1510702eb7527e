import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import * as path from "node:path";
import type { WorkerAnswer, WorkerRequest, WorkerResults } from "./worker.ts";

/** Work may take this long before the bench gives up: a hang must not last for ever. */
const ANSWER_TIMEOUT_MS = 120_000;

/** The bench's end of a worker process. One request at a time. */
export class WorkerProcess {
  static readonly #all = new Set<WorkerProcess>();
  readonly #child: ChildProcess;

  constructor() {
    this.#child = fork(path.join(import.meta.dirname, "worker.ts"), { serialization: "advanced" });
    WorkerProcess.#all.add(this);
  }

  async ask<Type extends WorkerRequest["type"]>(
    request: Extract<WorkerRequest, { readonly type: Type }>,
  ): Promise<WorkerResults[Type]> {
    const answer = this.nextAnswer<Type>();
    this.#child.send(request);
    return await answer;
  }

  /** The next answer to a request of this type. */
  async nextAnswer<Type extends WorkerRequest["type"]>(): Promise<WorkerResults[Type]> {
    const { promise, resolve, reject } = Promise.withResolvers<WorkerAnswer<Type>>();
    const onExit = (): void =>
      reject(new Error("a worker process of the bench has ended unexpectedly"));
    const timer = setTimeout(
      () => reject(new Error("a worker process of the bench does not answer")),
      ANSWER_TIMEOUT_MS,
    );
    this.#child.once("message", resolve).once("exit", onExit);
    try {
      const answer = await promise;
      if (!answer.ok) throw new Error(answer.error);
      return answer.result;
    } finally {
      clearTimeout(timer);
      this.#child.off("message", resolve).off("exit", onExit);
    }
  }

  async end(): Promise<void> {
    WorkerProcess.#all.delete(this);
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exited;
  }

  static async endAll(): Promise<void> {
    for (const worker of WorkerProcess.#all) await worker.end();
  }
}
