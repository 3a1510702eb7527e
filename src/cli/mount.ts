import type { Config } from "../config/config.ts";
import { loadConfig } from "../config/load.ts";
import { LitefsError } from "../lib/errors.ts";
import { parseArguments, refusePositionals, UsageError } from "./arguments.ts";
import type { Command } from "./context.ts";
import { COMMAND_USAGE, printUsage } from "./help.ts";
import type { RunNode } from "./run-node-type.ts";

/** Mounts and stays until the node ends. */
export function createMountCommand(loadRunNode: () => Promise<RunNode>): Command {
  return async (args, context) => {
    const { flags, positionals, command, help } = parseArguments(args, {
      config: "",
      "no-expand-env": false,
      "skip-unmount": false,
      "fuse.debug": false,
      debug: false,
      tracing: false,
    });
    if (help) return printUsage(context, COMMAND_USAGE["mount"] ?? "");
    refusePositionals(positionals);
    if (command?.length === 0) throw new UsageError("no command after --");

    // Children get HOSTNAME too, as the configuration does.
    const env = { ...context.env, HOSTNAME: context.env["HOSTNAME"] || context.hostname };
    const loaded = loadConfig({
      path: flags.config === "" ? undefined : flags.config,
      expandEnv: !flags["no-expand-env"],
      env,
      homeDirectory: context.homeDirectory,
      machine: { hostname: context.hostname, currentDirectory: context.currentDirectory },
    });
    context.print(`config file read from ${loaded.path}\n`);
    refuseUnsupported(loaded.config, loaded.path);

    const config = withDebugFlags(loaded.config, flags.debug, flags["fuse.debug"]);
    const runNode = await loadRunNode();
    return runNode(config, {
      command,
      skipUnmount: flags["skip-unmount"],
      tracing: flags.tracing,
      env,
    });
  };
}

export const mountCommand: Command = createMountCommand(
  async () => (await import("./node.ts")).runNode,
);

function withDebugFlags(config: Config, debug: boolean, fuseDebug: boolean): Config {
  return {
    ...config,
    log: { ...config.log, debug: config.log.debug || debug },
    fuse: { ...config.fuse, debug: config.fuse.debug || fuseDebug },
  };
}

/** Settings that promise something which a node would silently not do are refused. */
function refuseUnsupported(config: Config, file: string): void {
  const refuse = (setting: string, remedy: string): never => {
    const problem = `${setting} is not supported by this version yet; ${remedy}`;
    throw new LitefsError("config", `${file}: ${problem}`);
  };
  if (config.proxy.target !== "") refuse("proxy.target", "remove the proxy section");
  if (config.backup.type !== "") refuse(`backup.type ${config.backup.type}`, "remove it");
}
