import { loadConfig } from "../config/load.ts";
import { LitefsError } from "../lib/errors.ts";
import { formatPosition } from "../lib/position.ts";
import { parseArguments, refusePositionals, UsageError } from "./arguments.ts";
import { checkDirectory } from "./check-directory.ts";
import { checkNode } from "./check-node.ts";
import type { DatabaseCheck } from "./check-result.ts";
import type { Command, CommandContext } from "./context.ts";
import { EXIT_FAILURE, EXIT_OK } from "./exit-codes.ts";
import { COMMAND_USAGE, printUsage } from "./help.ts";
import { parseListenAddress } from "./listen-address.ts";
import { DEFAULT_URL } from "./node-client.ts";

/** Where to look: a running node, the directory of a stopped one, or the one that is there. */
interface Target {
  readonly url: string | undefined;
  readonly dataDirectory: string | undefined;
}

/**
 * Proves that databases are what their logs say: checksums of all pages, the chain of
 * transactions, and SQLite's own integrity check. Changes nothing.
 */
export const checkCommand: Command = async (args, context) => {
  const { flags, positionals, help } = parseArguments(args, {
    config: "",
    url: "",
    name: "",
    "data-dir": "",
    json: false,
  });
  if (help) return printUsage(context, COMMAND_USAGE["check"] ?? "");
  refusePositionals(positionals);
  const target = chooseTarget(flags.config, flags.url, flags["data-dir"], context);
  const name = flags.name === "" ? undefined : flags.name;
  const results = await check(target, name);
  context.print(flags.json ? toJson(results) : results.map((result) => describe(result)).join(""));
  return results.some((result) => result.problems.length > 0) ? EXIT_FAILURE : EXIT_OK;
};

function chooseTarget(
  config: string,
  url: string,
  dataDirectory: string,
  context: CommandContext,
): Target {
  if (config === "") {
    // A directory alone means a node that does not run.
    if (dataDirectory !== "") return { url: url === "" ? undefined : url, dataDirectory };
    return { url: url === "" ? DEFAULT_URL : url, dataDirectory: undefined };
  }
  const { env, homeDirectory, hostname, currentDirectory } = context;
  const loaded = loadConfig({
    path: config,
    expandEnv: true,
    env,
    homeDirectory,
    machine: { hostname, currentDirectory },
  }).config;
  const { host, port } = parseListenAddress(loaded.http.addr);
  return {
    url: url === "" ? `http://${reachableHost(host)}:${port}` : url,
    dataDirectory: dataDirectory === "" ? loaded.data.dir : dataDirectory,
  };
}

/** Where a node that listens on a host can be reached from the same machine. */
function reachableHost(host: string | undefined): string {
  if (host === undefined || host === "0.0.0.0" || host === "::") return "localhost";
  return host.includes(":") ? `[${host}]` : host;
}

async function check(target: Target, name: string | undefined): Promise<DatabaseCheck[]> {
  const { url, dataDirectory } = target;
  if (url !== undefined) {
    try {
      return await checkNode({ url, name, dataDirectory });
    } catch (error) {
      const isDown = error instanceof LitefsError && error.code === "node-unreachable";
      if (!isDown || dataDirectory === undefined) throw error;
    }
  }
  if (dataDirectory === undefined) throw new UsageError("-url or -data-dir is required");
  return await checkDirectory({ dataDirectory, name });
}

/** One line for the database, one for each problem. */
function describe(result: DatabaseCheck): string {
  const { name, position, pageCount, transactionCount, problems, notes } = result;
  const state = problems.length > 0 ? "BAD" : result.isDeleted ? "deleted" : "ok";
  const words = [name, state, formatPosition(position), `${pageCount} pages`];
  if (transactionCount !== undefined) words.push(`${transactionCount} transactions`);
  const lines = [
    words.join("  "),
    ...problems.map((problem) => `${name}: ${problem}`),
    ...notes.map((note) => `${name}: note: ${note}`),
  ];
  return lines.map((line) => `${line}\n`).join("");
}

function toJson(results: readonly DatabaseCheck[]): string {
  const plain = results.map((result) => ({
    ...result,
    position: formatPosition(result.position),
    ok: result.problems.length === 0,
  }));
  return `${JSON.stringify(plain, undefined, 2)}\n`;
}
