import * as fs from "node:fs";
import { parseArguments, refusePositionals } from "./arguments.ts";
import type { Command } from "./context.ts";
import { EXIT_OK } from "./exit-codes.ts";
import { COMMAND_USAGE, printUsage } from "./help.ts";

/** In the form that scripts for LiteFS expect. */
export const versionCommand: Command = async (args, context) => {
  const { positionals, help } = parseArguments(args, {});
  if (help) return printUsage(context, COMMAND_USAGE["version"] ?? "");
  refusePositionals(positionals);
  context.print(`LiteFS v${packageVersion()}, node ${process.version}\n`);
  return EXIT_OK;
};

/** Both src/cli and dist/cli are two levels below the package. */
export function packageVersion(): string {
  const file = new URL("../../package.json", import.meta.url);
  const content: unknown = JSON.parse(fs.readFileSync(file, "utf8"));
  const version: unknown = Object.getOwnPropertyDescriptor(content, "version")?.value;
  return typeof version === "string" ? version : "unknown";
}
