import * as path from "node:path";
import { silentLogger } from "../lib/log.ts";
import { parseArguments, refusePositionals, UsageError } from "./arguments.ts";
import type { Command, CommandContext } from "./context.ts";
import { EXIT_OK } from "./exit-codes.ts";
import { takeHaltLock } from "./halt-lock.ts";
import { COMMAND_USAGE, printUsage } from "./help.ts";
import { DEFAULT_URL, NodeClient } from "./node-client.ts";
import { FORWARDED_SIGNALS, Supervisor } from "./supervisor.ts";

/** Runs a command under conditions that the node is asked for first. */
export const runCommand: Command = async (args, context) => {
  const { flags, positionals, command, help } = parseArguments(args, {
    url: DEFAULT_URL,
    promote: false,
    "if-candidate": false,
    "with-halt-lock-on": "",
    v: false,
  });
  if (help) return printUsage(context, COMMAND_USAGE["run"] ?? "");
  refusePositionals(positionals);
  if (command === undefined || command.length === 0) throw new UsageError("no command after --");
  const haltPath = flags["with-halt-lock-on"];
  if (flags.promote && haltPath !== "") {
    throw new UsageError("-promote and -with-halt-lock-on exclude each other");
  }
  const say = (text: string): void => {
    if (flags.v) context.printError(`${text}\n`);
  };

  const client = new NodeClient(flags.url);
  if (flags["if-candidate"] && !(await client.info()).candidate) {
    context.printError("node is not a candidate, skipping execution\n");
    return EXIT_OK;
  }
  if (flags.promote) await promote(client, say);
  const halt = haltPath === "" ? undefined : path.resolve(context.currentDirectory, haltPath);
  const lock = halt === undefined ? undefined : await takeHaltLock(halt);
  if (lock !== undefined) say("halt lock acquired");
  try {
    say(`running ${command.join(" ")}`);
    return await runForwardingSignals(command, context);
  } finally {
    await lock?.close();
  }
};

async function promote(client: NodeClient, say: (text: string) => void): Promise<void> {
  if ((await client.info()).isPrimary) return say("node is already primary, skipping promotion");
  say("promoting node to primary");
  await client.promote();
  say("promotion successful");
}

async function runForwardingSignals(
  command: readonly string[],
  context: CommandContext,
): Promise<number> {
  const supervisor = new Supervisor({ logger: silentLogger, env: context.env });
  const forward = (name: NodeJS.Signals): void => supervisor.signal(name);
  for (const name of FORWARDED_SIGNALS) process.on(name, forward);
  try {
    return await supervisor.runSync(command);
  } finally {
    for (const name of FORWARDED_SIGNALS) process.off(name, forward);
  }
}
