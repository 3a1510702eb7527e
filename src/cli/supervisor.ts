import { spawn as spawnChild, type ChildProcess, type SpawnOptions } from "node:child_process";
import * as os from "node:os";
import { assert } from "../lib/assert.ts";
import { errorCode, errorText, LitefsError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { ExecPlan } from "./exec-plan.ts";
import { EXIT_FAILURE } from "./exit-codes.ts";

export type Spawn = (
  command: string,
  args: readonly string[],
  options: SpawnOptions,
) => ChildProcess;

export interface SupervisorOptions {
  readonly logger: Logger;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly spawn?: Spawn;
}

/** What a process manager, a terminal or a person sends to us and means for the application. */
export const FORWARDED_SIGNALS: readonly NodeJS.Signals[] = [
  "SIGINT",
  "SIGTERM",
  "SIGHUP",
  "SIGQUIT",
  "SIGUSR1",
  "SIGUSR2",
];

/**
 * Runs the application: commands one after the other, then one that stays. Children share our
 * standard streams and our process group. Signals are passed on, again and again if they come
 * again, and never turned into a SIGKILL: how long to wait is for whoever signals us to decide.
 */
export class Supervisor {
  /** The exit code of the background command; 1 when it could not be started. */
  readonly exited: Promise<number>;
  readonly #options: SupervisorOptions;
  readonly #spawn: Spawn;
  readonly #resolveExited: (exitCode: number) => void;
  #running: ChildProcess | undefined;
  #hasBackground = false;
  #stopping = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#spawn = options.spawn ?? spawnChild;
    const { promise, resolve } = Promise.withResolvers<number>();
    this.exited = promise;
    this.#resolveExited = resolve;
  }

  /**
   * Runs the whole plan. Resolves to the code of the first foreground command that fails, without
   * starting the next; to undefined when all went well or a signal said to stop in between.
   */
  async run(plan: ExecPlan): Promise<number | undefined> {
    for (const argv of plan.foreground) {
      if (this.#stopping) return undefined;
      const exitCode = await this.runSync(argv);
      if (exitCode !== 0 && !this.#stopping) return exitCode;
    }
    if (plan.background !== undefined && !this.#stopping) this.startBackground(plan.background);
    return undefined;
  }

  /** Runs a command to its end; resolves to its exit code, rejects when it cannot be started. */
  async runSync(argv: readonly string[]): Promise<number> {
    this.#options.logger.info(`starting subprocess: ${describe(argv)}`);
    return await this.#start(argv);
  }

  /** Starts the command that stays; `exited` tells its end. */
  startBackground(argv: readonly string[]): void {
    assert(!this.#hasBackground, "only one command can stay in the background");
    this.#hasBackground = true;
    this.#options.logger.info(`starting background subprocess: ${describe(argv)}`);
    this.#start(argv).then(this.#resolveExited, (error: unknown) => {
      this.#options.logger.error(errorText(error));
      this.#resolveExited(EXIT_FAILURE);
    });
  }

  /** Whether the background command was started; `exited` tells of no other. */
  get hasBackground(): boolean {
    return this.#hasBackground;
  }

  /** Whether a command was started and has not ended. */
  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  /** Whether SIGINT or SIGTERM came: the end of a child is then no failure, whatever its code. */
  get isStopping(): boolean {
    return this.#stopping;
  }

  /** Passes a signal on to the running child. SIGINT and SIGTERM also keep `run` from going on. */
  signal(name: NodeJS.Signals): void {
    if (name === "SIGINT" || name === "SIGTERM") this.#stopping = true;
    this.#running?.kill(name);
  }

  #start(argv: readonly string[]): Promise<number> {
    assert(this.#running === undefined, "only one child runs at a time");
    const [command = "", ...args] = argv;
    return new Promise((resolve, reject) => {
      const child = this.#spawn(command, args, { stdio: "inherit", env: this.#options.env });
      this.#running = child;
      child.once("error", (error) => {
        // Also emitted when a signal cannot be delivered; that child still ends by itself.
        if (child.pid !== undefined) return;
        this.#running = undefined;
        reject(new LitefsError("command-start", startProblem(command, error), { cause: error }));
      });
      child.once("exit", (exitCode, signal) => {
        this.#running = undefined;
        resolve(exitCode ?? exitCodeOfSignal(signal));
      });
    });
  }
}

/** A child killed by a signal has no code of its own; shells report 128 and the signal's number. */
function exitCodeOfSignal(signal: NodeJS.Signals | null): number {
  return 128 + (signal === null ? 0 : os.constants.signals[signal]);
}

function startProblem(command: string, error: Error): string {
  const code = errorCode(error);
  if (code === "ENOENT") return `cannot start "${command}": no such command, check the path`;
  if (code === "EACCES") return `cannot start "${command}": the file is not executable`;
  return `cannot start "${command}"`;
}

/** As LiteFS logs it, because people grep for it. */
function describe(argv: readonly string[]): string {
  return `${argv[0]} [${argv.slice(1).join(" ")}]`;
}
