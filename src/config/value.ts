import { isMap, isScalar, isSeq, type Node } from "yaml";
import type { SyncRule } from "../cluster/sync/quorum.ts";
import { assertNever } from "../lib/assert.ts";
import type { ExecEntry } from "./config.ts";
import { parseDuration } from "./duration.ts";
import type { Option } from "./schema.ts";
import { splitShellWords } from "./shell-words.ts";

export type OptionValue =
  | string
  | number
  | boolean
  | readonly string[]
  | readonly ExecEntry[]
  | Readonly<Record<string, SyncRule>>;

/** A value of the file that is not of its option's kind. The node says where it stands. */
export class WrongValue extends Error {
  readonly node: Node;

  constructor(node: Node, problem: string) {
    super(problem);
    this.node = node;
  }
}

/** Reads the value of one option. `null` never gets here: it means that the default holds. */
export function readValue(option: Option, node: Node): OptionValue {
  switch (option.kind) {
    case "bool":
      return readBool(option.key, node);
    case "string":
      return readString(option.key, node);
    case "choice":
      return readChoice(option, node);
    case "integer":
      return readInteger(option.key, node);
    case "duration":
      return readDuration(option.key, node);
    case "strings":
      return readStrings(option.key, node);
    case "exec":
      return readExec(option.key, node);
    case "sync-rule":
      return readSyncRule(option.key, node);
    case "sync-rules":
      return readSyncRules(option.key, node);
    default:
      return assertNever(option.kind);
  }
}

/** YAML 1.1 spellings included, because LiteFS takes them. */
function readBool(key: string, node: Node): boolean {
  if (isScalar(node)) {
    if (typeof node.value === "boolean") return node.value;
    const text = String(node.value);
    if (/^(?:y|Y|yes|Yes|YES|on|On|ON)$/.test(text)) return true;
    if (/^(?:n|N|no|No|NO|off|Off|OFF)$/.test(text)) return false;
  }
  throw new WrongValue(node, `${key} must be true or false, not ${describe(node)}`);
}

/** Numbers and the like are taken as they are written: a host may be called 42. */
function readString(key: string, node: Node): string {
  if (!isScalar(node)) throw new WrongValue(node, `${key} must be a text, not ${describe(node)}`);
  return typeof node.value === "string" ? node.value : (node.source ?? String(node.value));
}

/** The empty string, which an unset variable leaves, is the same as no value. */
function readChoice(option: Option, node: Node): string {
  const choices = option.choices ?? [];
  const text = isScalar(node) ? String(node.value) : undefined;
  if (text !== undefined && choices.includes(text)) return text;
  if (text === "") return String(option.default ?? "");
  throw new WrongValue(
    node,
    `${option.key} must be ${choices.join(" or ")}, not ${describe(node)}`,
  );
}

function readInteger(key: string, node: Node): number {
  const value: unknown = isScalar(node) ? node.value : undefined;
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new WrongValue(node, `${key} must be a whole number, not ${describe(node)}`);
}

function readDuration(key: string, node: Node): number {
  const text = isScalar(node) ? (node.source ?? String(node.value)) : "";
  const durationMs = parseDuration(text);
  if (durationMs !== undefined) return durationMs;
  const problem = `${key} must be a duration such as 10s, 1m30s or 500ms, not ${describe(node)}`;
  throw new WrongValue(node, problem);
}

function readSyncRule(key: string, node: Node): SyncRule {
  if (isScalar(node)) {
    const { value } = node;
    if (value === "majority" || value === "all") return value;
    if (typeof value === "number" && Number.isInteger(value) && value >= 0) return value;
  }
  const problem = `${key} must be a number, majority or all, not ${describe(node)}`;
  throw new WrongValue(node, problem);
}

function readSyncRules(key: string, node: Node): Readonly<Record<string, SyncRule>> {
  if (!isMap<Node, Node | null>(node)) {
    throw new WrongValue(node, `${key} must have the form {name: replicas}, not ${describe(node)}`);
  }
  const rules = new Map<string, SyncRule>();
  for (const { key: name, value } of node.items) {
    const database = readString(key, name);
    if (value === null) throw new WrongValue(name, `${key}.${database} is missing its value`);
    rules.set(database, readSyncRule(`${key}.${database}`, value));
  }
  return Object.fromEntries(rules);
}

function readStrings(key: string, node: Node): string[] {
  if (!isSeq<Node>(node)) {
    throw new WrongValue(node, `${key} must be a list, not ${describe(node)}`);
  }
  return node.items.map((item, index) => readString(`${key}[${index}]`, item));
}

function readExec(key: string, node: Node): ExecEntry[] {
  if (isSeq<Node>(node)) {
    return node.items.map((item, index) => readExecEntry(`${key}[${index}]`, item));
  }
  if (!isScalar(node)) {
    const problem = `${key} must be a command line or a list of {cmd, if-candidate}, not ${describe(node)}`;
    throw new WrongValue(node, problem);
  }
  const line = readString(key, node);
  return line.trim() === "" ? [] : [{ argv: readCommand(key, node, line), ifCandidate: false }];
}

function readExecEntry(key: string, node: Node): ExecEntry {
  if (!isMap<Node, Node | null>(node)) {
    throw new WrongValue(
      node,
      `${key} must have the form {cmd, if-candidate}, not ${describe(node)}`,
    );
  }
  let argv: string[] | undefined;
  let ifCandidate = false;
  for (const { key: name, value } of node.items) {
    const text = isScalar(name) ? String(name.value) : undefined;
    if (text === "cmd" && value !== null) {
      argv = readCommand(`${key}.cmd`, value, readString(`${key}.cmd`, value));
    } else if (text === "if-candidate" && value !== null) {
      ifCandidate = readBool(`${key}.if-candidate`, value);
    } else {
      throw new WrongValue(name, `${key} has only the keys cmd and if-candidate, not "${text}"`);
    }
  }
  if (argv === undefined) throw new WrongValue(node, `${key}.cmd is missing`);
  return { argv, ifCandidate };
}

function readCommand(key: string, node: Node, line: string): string[] {
  const argv = splitShellWords(line);
  if (argv === undefined) {
    const remedy = `close or quote it, or run a shell: sh -c '...'`;
    throw new WrongValue(node, `${key} has an open quote or a shell operator: ${remedy}`);
  }
  if (argv.length === 0) throw new WrongValue(node, `${key} is empty`);
  return argv;
}

function describe(node: Node): string {
  if (isMap(node)) return "a mapping";
  if (isSeq(node)) return "a list";
  if (!isScalar(node)) return "an alias";
  if (node.value === null) return "nothing";
  if (node.type === "QUOTE_DOUBLE" || node.type === "QUOTE_SINGLE") {
    return `the text ${JSON.stringify(node.value)}`;
  }
  return JSON.stringify(node.source ?? "");
}
