import * as fs from "node:fs";
import * as path from "node:path";
import { errorCode, LitefsError } from "../lib/errors.ts";
import type { Config } from "./config.ts";
import { expandEnv, type Environment } from "./expand-env.ts";
import { parseConfig } from "./parse.ts";
import { validateConfig, type Machine } from "./validate.ts";

export interface LoadOptions {
  /** The file named by -config; otherwise the usual places are searched. */
  readonly path: string | undefined;
  readonly expandEnv: boolean;
  readonly env: Environment;
  readonly homeDirectory: string;
  readonly machine: Machine;
}

export interface LoadedConfig {
  readonly path: string;
  readonly config: Config;
}

/** Finds, reads, expands, parses and checks the configuration. Throws LitefsError, one line each. */
export function loadConfig(options: LoadOptions): LoadedConfig {
  const { path: file, text } = readConfigFile(options);
  const env = { ...options.env, HOSTNAME: options.env["HOSTNAME"] || options.machine.hostname };
  const expanded = options.expandEnv ? expandEnv(text, env) : text;
  return { path: file, config: validateConfig(parseConfig(expanded, file), options.machine, env) };
}

export function configSearchPath(
  options: Pick<LoadOptions, "homeDirectory" | "machine">,
): string[] {
  return [
    path.join(options.machine.currentDirectory, "litefs.yml"),
    path.join(options.homeDirectory, "litefs.yml"),
    "/etc/litefs.yml",
  ];
}

/** A file that exists but cannot be read ends the search: the next one might be a stranger's. */
function readConfigFile(options: LoadOptions): { path: string; text: string } {
  const candidates = options.path === undefined ? configSearchPath(options) : [options.path];
  for (const file of candidates) {
    try {
      return { path: file, text: fs.readFileSync(file, "utf8") };
    } catch (error) {
      if (errorCode(error) === "ENOENT") continue;
      throw new LitefsError("config", `cannot read the configuration ${file}`, { cause: error });
    }
  }
  const searched = candidates.join(", ");
  const remedy = "write one, or name it with -config PATH";
  throw new LitefsError("config", `config file not found: ${searched}; ${remedy}`);
}
