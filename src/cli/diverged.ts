import * as path from "node:path";
import { LitefsError } from "../lib/errors.ts";
import { formatPosition, formatTxid } from "../lib/position.ts";
import { parseArguments, UsageError } from "./arguments.ts";
import { loadConfig } from "../config/load.ts";
import type { Command, CommandContext } from "./context.ts";
import { EXIT_OK } from "./exit-codes.ts";
import { COMMAND_USAGE, printUsage } from "./help.ts";
import { exportHistory, listHistories } from "./histories.ts";
import type { History } from "./histories.ts";

/**
 * Shows what only this node had when a snapshot of the primary replaced it, and gives it out as LTX
 * files. Reads the data directory, whether a node runs on it or not.
 */
export const divergedCommand: Command = async ([action, ...args], context) => {
  const { flags, positionals, help } = parseArguments(args, {
    config: "",
    "data-dir": "",
    name: "",
    history: "",
    json: false,
  });
  if (help || action === "-h" || action === "-help" || action === "--help") {
    return printUsage(context, COMMAND_USAGE["diverged"] ?? "");
  }
  if (action !== "list" && action !== "export") throw new UsageError("say list or export");
  const dataDirectory = dataDirectoryOf(flags["data-dir"], flags.config, context);
  const histories = listHistories(dataDirectory, flags.name === "" ? undefined : flags.name);
  if (action === "list") {
    if (positionals.length > 0) throw new UsageError(`unexpected argument "${positionals[0]}"`);
    context.print(flags.json ? toJson(histories) : histories.map(describe).join(""));
    return EXIT_OK;
  }
  const [target] = positionals;
  if (target === undefined || positionals.length > 1) throw new UsageError("one PATH is required");
  if (flags.name === "" || flags.history === "") {
    throw new UsageError("flags -name and -history are required; litefs diverged list shows both");
  }
  const history = histories.find(({ name }) => name === flags.history);
  if (history === undefined) {
    throw new LitefsError("diverged", `${flags.name} has no history "${flags.history}"`);
  }
  const directory = path.resolve(context.currentDirectory, target);
  try {
    exportHistory(history, directory);
  } catch (cause) {
    throw new LitefsError("diverged", `cannot export to ${directory}`, { cause });
  }
  context.printError(`${history.transactions.length} transactions written to ${directory}\n`);
  return EXIT_OK;
};

function dataDirectoryOf(directory: string, config: string, context: CommandContext): string {
  const { env, homeDirectory, hostname, currentDirectory } = context;
  if (directory !== "") return path.resolve(currentDirectory, directory);
  return loadConfig({
    path: config === "" ? undefined : config,
    expandEnv: true,
    env,
    homeDirectory,
    machine: { hostname, currentDirectory },
  }).config.data.dir;
}

function describe({ database, name, replacedAtMs, end, transactions }: History): string {
  const first = transactions[0]?.header.minTxid;
  const words = [
    database,
    name,
    new Date(replacedAtMs).toISOString(),
    end === undefined ? "empty" : formatPosition(end),
    `${transactions.length} transactions${first === undefined ? "" : ` from ${formatTxid(first)}`}`,
  ];
  return `${words.join("  ")}\n`;
}

function toJson(histories: readonly History[]): string {
  const plain = histories.map(({ database, name, replacedAtMs, end, transactions }) => ({
    database,
    history: name,
    replacedAt: new Date(replacedAtMs).toISOString(),
    position: end === undefined ? null : formatPosition(end),
    transactions: transactions.map(({ header, lengthBytes }) => ({
      txid: formatTxid(header.maxTxid),
      nodeID: header.nodeId.toString(16).toUpperCase().padStart(16, "0"),
      timestamp: new Date(header.timestampMs).toISOString(),
      bytes: lengthBytes,
    })),
  }));
  return `${JSON.stringify(plain, undefined, 2)}\n`;
}
