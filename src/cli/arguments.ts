import { LitefsError } from "../lib/errors.ts";

/** Wrong arguments: the command prints its usage and exits with EXIT_USAGE. */
export class UsageError extends LitefsError {
  override readonly name = "UsageError";

  constructor(message: string) {
    super("usage", message);
  }
}

/** The flags of a command: their default tells the type. */
export type FlagDefaults = Readonly<Record<string, string | boolean>>;

export type FlagValues<T extends FlagDefaults> = {
  readonly [Name in keyof T]: T[Name] extends boolean ? boolean : string;
};

export interface ParsedArguments<T extends FlagDefaults> {
  readonly flags: FlagValues<T>;
  readonly positionals: readonly string[];
  /** What follows `--`, word for word; undefined when there is no `--`. */
  readonly command: readonly string[] | undefined;
  /** -h, -help or --help was given; the rest is not to be looked at. */
  readonly help: boolean;
}

/**
 * Flags as Go's flag package reads them: `-name value`, `-name=value`, one or two dashes, `-bool`
 * or `-bool=false`, and the first word that is no flag ends them.
 */
export function parseArguments<T extends FlagDefaults>(
  args: readonly string[],
  defaults: T,
): ParsedArguments<T> {
  const separator = args.indexOf("--");
  const own = separator === -1 ? args : args.slice(0, separator);
  const command = separator === -1 ? undefined : args.slice(separator + 1);
  const values: Record<string, string | boolean> = { ...defaults };
  let help = false;
  let next = 0;
  for (; next < own.length; next++) {
    const match = /^--?([^-=][^=]*)(?:=(.*))?$/s.exec(own[next] ?? "");
    if (match === null) break;
    const [, name = "", attached] = match;
    const initial = Object.hasOwn(defaults, name) ? defaults[name] : undefined;
    if (initial === undefined) {
      if (name !== "h" && name !== "help") throw new UsageError(`unknown flag -${name}`);
      help = true;
      break;
    }
    if (typeof initial === "boolean") {
      values[name] = attached === undefined || parseBoolean(name, attached);
    } else {
      const value = attached ?? own[++next];
      if (value === undefined) throw new UsageError(`flag -${name} needs a value`);
      values[name] = value;
    }
  }
  if (!isComplete(values, defaults)) throw new UsageError("flags are incomplete");
  return { flags: values, positionals: own.slice(next), command, help };
}

/** Refuses positionals on commands whose own arguments are all flags. */
export function refusePositionals(positionals: readonly string[]): void {
  const [first] = positionals;
  if (first === undefined) return;
  throw new UsageError(`unexpected argument "${first}"; a command to run goes after --`);
}

function parseBoolean(name: string, text: string): boolean {
  if (/^(?:1|t|T|true|TRUE|True)$/.test(text)) return true;
  if (/^(?:0|f|F|false|FALSE|False)$/.test(text)) return false;
  throw new UsageError(`flag -${name} must be true or false, not "${text}"`);
}

function isComplete<T extends FlagDefaults>(
  values: Readonly<Record<string, unknown>>,
  defaults: T,
): values is FlagValues<T> {
  return Object.entries(defaults).every(([name, value]) => typeof values[name] === typeof value);
}
