import * as fs from "node:fs";
import * as path from "node:path";
import { LitefsError } from "../lib/errors.ts";
import { silentLogger } from "../lib/log.ts";
import { parseArguments, refusePositionals, UsageError } from "./arguments.ts";
import type { Command, CommandContext } from "./context.ts";
import { EXIT_OK } from "./exit-codes.ts";
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
  if (haltPath !== "") {
    await requireHaltLock(client, path.resolve(context.currentDirectory, haltPath));
    say("node is primary, the halt lock is not needed");
  }
  say(`running ${command.join(" ")}`);
  return await runForwardingSignals(command, context);
};

async function promote(client: NodeClient, say: (text: string) => void): Promise<void> {
  if ((await client.info()).isPrimary) return say("node is already primary, skipping promotion");
  say("promoting node to primary");
  await client.promote();
  say("promotion successful");
}

/** On the primary the halt lock is free of charge: writes are local already. */
async function requireHaltLock(client: NodeClient, database: string): Promise<void> {
  if (!fs.existsSync(database)) {
    throw new LitefsError("halt-lock", `database does not exist: ${database}`);
  }
  if (!fs.existsSync(`${database}-lock`)) {
    const remedy = `give the path of a database in a litefs mount`;
    throw new LitefsError("halt-lock", `${database} has no lock file; ${remedy}`);
  }
  if ((await client.info()).isPrimary) return;
  const remedy = "run the command on the primary";
  const problem = `the halt lock on a replica is not supported by this version yet; ${remedy}`;
  throw new LitefsError("halt-lock", problem);
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
