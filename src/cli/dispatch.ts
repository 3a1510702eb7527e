import { errorText, LitefsError } from "../lib/errors.ts";
import { UsageError } from "./arguments.ts";
import type { Command, CommandContext } from "./context.ts";
import { EXIT_FAILURE, EXIT_USAGE } from "./exit-codes.ts";
import { COMMAND_USAGE, USAGE } from "./help.ts";

/** Loaded when asked for, so that `litefs version` does not wait for a database engine. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  mount: async () => (await import("./mount.ts")).mountCommand,
  run: async () => (await import("./run.ts")).runCommand,
  export: async () => (await import("./export.ts")).exportCommand,
  import: async () => (await import("./import.ts")).importCommand,
  repair: async () => (await import("./repair.ts")).repairCommand,
  check: async () => (await import("./check.ts")).checkCommand,
  status: async () => (await import("./status.ts")).statusCommand,
  promote: async () => (await import("./promote.ts")).promoteCommand,
  demote: async () => (await import("./promote.ts")).demoteCommand,
  diverged: async () => (await import("./diverged.ts")).divergedCommand,
  version: async () => (await import("./version.ts")).versionCommand,
  help: async () => (await import("./help.ts")).helpCommand,
};

/** Runs the command that the first argument names and turns every failure into an exit code. */
export async function dispatch(args: readonly string[], context: CommandContext): Promise<number> {
  const name = commandName(args[0]);
  const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (load === undefined) {
    context.printError(`ERROR: unknown command "${name}"; "litefs help" lists them\n`);
    return EXIT_USAGE;
  }
  try {
    const command = await load();
    return await command(args.slice(1), context);
  } catch (error) {
    if (error instanceof UsageError) context.printError(`${COMMAND_USAGE[name] ?? USAGE}\n`);
    context.printError(`ERROR: ${errorText(error)}\n`);
    return exitCodeOf(error);
  }
}

/** No command, and flags instead of one, ask for help. */
function commandName(first: string | undefined): string {
  if (first === undefined) return "help";
  if (/^(?:-v|--?version)$/.test(first)) return "version";
  return first.startsWith("-") ? "help" : first;
}

function exitCodeOf(error: unknown): number {
  const isUsers = error instanceof LitefsError && ["usage", "config"].includes(error.code);
  return isUsers ? EXIT_USAGE : EXIT_FAILURE;
}
