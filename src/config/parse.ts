import {
  isAlias,
  isMap,
  isScalar,
  LineCounter,
  parseDocument,
  type Document,
  type Node,
  type YAMLParseError,
} from "yaml";
import { assert } from "../lib/assert.ts";
import type { Config } from "./config.ts";
import { ConfigError } from "./config-error.ts";
import { parseDuration } from "./duration.ts";
import { OPTIONS, propertyPath, type Option } from "./schema.ts";
import { suggestKey } from "./suggest.ts";
import { readValue, WrongValue, type OptionValue } from "./value.ts";

/** What a file says, with the defaults filled in, but not checked as a whole yet. */
export interface ParsedConfig {
  readonly file: string;
  readonly config: Config;
  /** The line on which a key stands, for the messages of later checks. */
  readonly lines: ReadonlyMap<string, number>;
}

const OPTION_BY_KEY: ReadonlyMap<string, Option> = new Map(OPTIONS.map((o) => [o.key, o]));
const SECTIONS: ReadonlySet<string> = new Set(OPTIONS.flatMap((o) => parentKeys(o.key)));

/** Strict: what is not in the schema is an error. `file` is the name used in messages. */
export function parseConfig(text: string, file: string): ParsedConfig {
  const lineCounter = new LineCounter();
  const document = parseDocument(text, { lineCounter, prettyErrors: false });
  const [syntaxError] = document.errors;
  if (syntaxError !== undefined) {
    const { line } = lineCounter.linePos(syntaxError.pos[0]);
    const problem = yamlProblem(syntaxError, text.slice(syntaxError.pos[0]));
    throw new ConfigError(file, line, problem);
  }
  const reader = new Reader(file, document, lineCounter);
  reader.readSection(document.contents, "");
  return { file, config: build(reader.values), lines: reader.lines };
}

/** Walks the syntax tree, so that every problem has its line. */
class Reader {
  readonly values: Map<string, OptionValue> = new Map();
  readonly lines: Map<string, number> = new Map();
  readonly #file: string;
  readonly #document: Document.Parsed;
  readonly #lineCounter: LineCounter;

  constructor(file: string, document: Document.Parsed, lineCounter: LineCounter) {
    this.#file = file;
    this.#document = document;
    this.#lineCounter = lineCounter;
  }

  readSection(node: Node | null, prefix: string): void {
    const section = this.#resolve(node);
    if (section === undefined) return;
    if (!isMap<Node, Node | null>(section)) {
      const where = prefix === "" ? "the file" : prefix.slice(0, -1);
      throw this.#error(section, `${where} must be a mapping of keys to values`);
    }
    for (const pair of section.items) {
      const name = isScalar(pair.key) ? String(pair.key.value) : "?";
      this.#readKey(prefix + name, pair.key, pair.value);
    }
  }

  #readKey(key: string, keyNode: Node, value: Node | null): void {
    this.lines.set(key, this.#line(keyNode));
    if (SECTIONS.has(key)) return this.readSection(value, `${key}.`);
    const option = OPTION_BY_KEY.get(key);
    if (option === undefined) throw this.#error(keyNode, unknownKey(key));
    const node = this.#resolve(value);
    if (node === undefined) return;
    try {
      this.values.set(key, readValue(option, node));
    } catch (error) {
      if (error instanceof WrongValue) throw this.#error(error.node, error.message);
      throw error;
    }
  }

  /** Follows an alias; undefined for null, which is the same as a key that is not there. */
  #resolve(node: Node | null): Node | undefined {
    const target = isAlias(node) ? node.resolve(this.#document) : node;
    if (isAlias(node) && target === undefined) {
      throw this.#error(node, `no anchor is called "${node.source}"`);
    }
    if (target === null || target === undefined) return undefined;
    return isScalar(target) && target.value === null ? undefined : target;
  }

  #line(node: Node): number {
    return this.#lineCounter.linePos(node.range?.[0] ?? 0).line;
  }

  #error(node: Node, problem: string): ConfigError {
    return new ConfigError(this.#file, this.#line(node), problem);
  }
}

function unknownKey(key: string): string {
  const suggestion = suggestKey(key, [...OPTION_BY_KEY.keys(), ...SECTIONS]);
  const hint = suggestion === undefined ? "" : ` (did you mean "${suggestion}"?)`;
  return `unknown key "${key}"${hint}`;
}

function yamlProblem(error: YAMLParseError, textFromThere: string): string {
  if (error.code === "DUPLICATE_KEY") {
    return `duplicate key "${/^[^\s:,}]*/.exec(textFromThere)?.[0]}"`;
  }
  if (error.code === "MULTIPLE_DOCS") return "a second YAML document; there may be only one";
  return `not valid YAML: ${error.message.replaceAll(/\s+/g, " ")}`;
}

type Section = { [name: string]: OptionValue | Section };

function build(values: ReadonlyMap<string, OptionValue>): Config {
  const root: Section = {};
  for (const option of OPTIONS) {
    const path = propertyPath(option);
    const last = path.pop() ?? "";
    let section = root;
    for (const name of path) section = subsection(section, name);
    section[last] = values.get(option.key) ?? defaultValue(option);
  }
  assert(isConfig(root), "the table of options does not fill in a whole configuration");
  return root;
}

function subsection(section: Section, name: string): Section {
  const existing = section[name];
  if (typeof existing === "object" && !isList(existing)) return existing;
  const created: Section = {};
  section[name] = created;
  return created;
}

function isList(value: Section | readonly unknown[]): value is readonly unknown[] {
  return Array.isArray(value);
}

/** A test compares names and types with Config; here it is enough that each option has a value. */
function isConfig(root: unknown): root is Config {
  return OPTIONS.every((option) => {
    let value: unknown = root;
    for (const name of propertyPath(option)) {
      if (typeof value !== "object" || value === null) return false;
      value = Object.getOwnPropertyDescriptor(value, name)?.value;
    }
    return value !== undefined && !Number.isNaN(value);
  });
}

function defaultValue(option: Option): OptionValue {
  if (option.kind === "strings" || option.kind === "exec") return [];
  if (option.kind === "sync-rules") return {};
  if (option.kind === "duration") return parseDuration(String(option.default)) ?? NaN;
  return option.default ?? "";
}

function parentKeys(key: string): string[] {
  const names = key.split(".").slice(0, -1);
  return names.map((_, index) => names.slice(0, index + 1).join("."));
}
