import { loadConfig } from "../config/load.ts";
import type { KeepAsideLimits } from "../database/keep-aside.ts";
import { parseArguments, refusePositionals, UsageError } from "./arguments.ts";
import type { Command, CommandContext } from "./context.ts";
import { discardShelf } from "./clean-mark.ts";
import { claimDataDirectory, databasesIn } from "./data-directory.ts";
import { EXIT_FAILURE, EXIT_OK } from "./exit-codes.ts";
import { COMMAND_USAGE, printUsage } from "./help.ts";
import { repairDatabase } from "./repair-database.ts";
import type { RepairMethod } from "./repair-database.ts";

const DEFAULT_LIMITS: KeepAsideLimits = { maxCount: 4, maxBytes: 10 * 1024 ** 3 };

interface Target {
  readonly dataDirectory: string;
  readonly limits: KeepAsideLimits;
}

/** Mends one damaged database of a stopped node. Never deletes anything but its own working copy. */
export const repairCommand: Command = async (args, context) => {
  const { flags, positionals, help } = parseArguments(args, {
    name: "",
    config: "",
    "data-dir": "",
    from: "",
    accept: false,
    force: false,
    "dry-run": false,
  });
  if (help) return printUsage(context, COMMAND_USAGE["repair"] ?? "");
  refusePositionals(positionals);
  if (flags.name === "") throw new UsageError("flag -name is required");
  if (flags.from !== "" && flags.accept)
    throw new UsageError("-from and -accept exclude each other");
  if (flags.force && !flags.accept) throw new UsageError("-force belongs to -accept");
  const { dataDirectory, limits } = chooseTarget(flags.config, flags["data-dir"], context);
  databasesIn(dataDirectory, "repair");
  const claim = await claimDataDirectory(dataDirectory);
  try {
    // The next start must look at what is there, not believe what the last stop has left.
    if (!flags["dry-run"]) discardShelf(dataDirectory);
    const isMended = await repairDatabase({
      dataDirectory,
      limits,
      name: flags.name,
      method: methodOf(flags.from, flags.accept, flags.force),
      isDryRun: flags["dry-run"],
      say: (line) => context.print(`${flags.name}: ${line}\n`),
    });
    return isMended ? EXIT_OK : EXIT_FAILURE;
  } finally {
    await claim.release();
  }
};

function methodOf(from: string, accept: boolean, force: boolean): RepairMethod {
  if (from !== "") return { kind: "from", url: from };
  return accept ? { kind: "accept", isForced: force } : { kind: "rebuild" };
}

function chooseTarget(config: string, dataDirectory: string, context: CommandContext): Target {
  if (config === "" && dataDirectory !== "") return { dataDirectory, limits: DEFAULT_LIMITS };
  const { env, homeDirectory, hostname, currentDirectory } = context;
  const { data } = loadConfig({
    path: config === "" ? undefined : config,
    expandEnv: true,
    env,
    homeDirectory,
    machine: { hostname, currentDirectory },
  }).config;
  return {
    dataDirectory: dataDirectory === "" ? data.dir : dataDirectory,
    limits: {
      maxCount: data.keptCopies,
      maxBytes: data.keptCopiesMaxSizeMegabytes * 1024 * 1024,
    },
  };
}
