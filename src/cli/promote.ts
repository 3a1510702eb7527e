import { parseArguments, refusePositionals } from "./arguments.ts";
import type { Command } from "./context.ts";
import { EXIT_OK } from "./exit-codes.ts";
import { COMMAND_USAGE, printUsage } from "./help.ts";
import { DEFAULT_URL, NodeClient } from "./node-client.ts";

/** Makes a node the primary, and returns when it is. */
export const promoteCommand: Command = async (args, context) => {
  const { flags, positionals, help } = parseArguments(args, { url: DEFAULT_URL, force: false });
  if (help) return printUsage(context, COMMAND_USAGE["promote"] ?? "");
  refusePositionals(positionals);
  const client = new NodeClient(flags.url);
  if ((await client.info()).isPrimary) {
    context.printError("node is already primary\n");
    return EXIT_OK;
  }
  if (flags.force) {
    context.printError(
      "-force: if there is no primary, transactions that another candidate has and this node " +
        "lacks are lost to the cluster; they are kept aside there (litefs diverged list)\n",
    );
  }
  await client.promote(flags.force);
  context.printError("node is primary\n");
  return EXIT_OK;
};

/** Gives the lease of a primary to another candidate, or up. */
export const demoteCommand: Command = async (args, context) => {
  const { flags, positionals, help } = parseArguments(args, { url: DEFAULT_URL });
  if (help) return printUsage(context, COMMAND_USAGE["demote"] ?? "");
  refusePositionals(positionals);
  await new NodeClient(flags.url).demote();
  context.printError("node is no longer primary\n");
  return EXIT_OK;
};
