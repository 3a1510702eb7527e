import { expect, test } from "vitest";
import * as fc from "fast-check";
import type { Config } from "../../../src/config/config.ts";
import { ConfigError } from "../../../src/config/config-error.ts";
import { parseConfig } from "../../../src/config/parse.ts";
import { OPTIONS, propertyPath, type Option } from "../../../src/config/schema.ts";

function parse(text: string): Config {
  return parseConfig(text, "litefs.yml").config;
}

function problem(text: string): string {
  try {
    parse(text);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  return "no error";
}

/** A value other than the default, as it is written and as it must come out. */
function sample(option: Option): { yaml: string; value: unknown } {
  switch (option.kind) {
    case "bool":
      return { yaml: String(!option.default), value: !option.default };
    case "choice": {
      const value = option.choices?.at(-1);
      return { yaml: `"${value}"`, value };
    }
    case "integer":
      return { yaml: "77", value: 77 };
    case "duration":
      return { yaml: '"1m17s"', value: 77_000 };
    case "strings":
      return { yaml: '["a", "*.png"]', value: ["a", "*.png"] };
    case "exec":
      return { yaml: "run it", value: [{ argv: ["run", "it"], ifCandidate: false }] };
    case "sync-rule":
      return { yaml: "majority", value: "majority" };
    case "sync-rules":
      return { yaml: "{app.db: 2, b: all}", value: { "app.db": 2, b: "all" } };
    default:
      return { yaml: "some text", value: "some text" };
  }
}

function lookUp(config: Config, path: readonly string[]): unknown {
  let value: unknown = config;
  for (const name of path) value = Object.getOwnPropertyDescriptor(value, name)?.value;
  return value;
}

test.each(OPTIONS.map((option) => [option.key, option] as const))("%s is read", (key, option) => {
  const { yaml, value } = sample(option);
  const lines = key.split(".").map((name, depth) => `${"  ".repeat(depth)}${name}:`);
  expect(lookUp(parse(`${lines.join("\n")} ${yaml}`), propertyPath(option))).toEqual(value);
});

const PLAIN = OPTIONS.filter((option) => option.kind !== "sync-rules");

test.each(PLAIN.map((option) => [option.key, option] as const))(
  "%s refuses a mapping, with its line",
  (key) => {
    const lines = key.split(".").map((name, depth) => `${"  ".repeat(depth)}${name}:`);
    const expected = `litefs.yml:${lines.length + 1}: ${key} must be `;
    expect(problem(`# first line\n${lines.join("\n")} {a: 1}`)).toContain(expected);
  },
);

test("nothing as a value means the default, as after expanding an unset variable", () => {
  const config = parse("data:\n  retention:\nproxy:\nlease: {candidate: , hostname: ~}\nlog: null");
  expect(config).toStrictEqual(parse(""));
});

test("replicas are a number or a part of the cluster", () => {
  expect(parse("sync: {replicas: 2}").sync.replicas).toBe(2);
  for (const wrong of ["most", "-1", "1.5", "true", "[1]"]) {
    expect(problem(`sync:\n  replicas: ${wrong}`)).toContain(
      "litefs.yml:2: sync.replicas must be a number, majority or all, not",
    );
  }
  expect(problem("sync:\n  databases: [a]")).toContain("must have the form {name: replicas}");
  expect(problem("sync:\n  databases:\n    a.db: most")).toContain(
    "litefs.yml:3: sync.databases.a.db must be a number, majority or all",
  );
  expect(problem("sync:\n  databases:\n    a.db:")).toContain("majority or all, not nothing");
  expect(parse("sync: {databases: {__proto__: 1}}").sync.databases).toEqual(
    Object.fromEntries([["__proto__", 1]]),
  );
});

test("exec takes a list of commands", () => {
  const text = `exec:
  - cmd: "sqlite3 /litefs/db 'PRAGMA journal_mode = WAL;'"
    if-candidate: true
  - cmd: npm start
`;
  expect(parse(text).exec).toEqual([
    { argv: ["sqlite3", "/litefs/db", "PRAGMA journal_mode = WAL;"], ifCandidate: true },
    { argv: ["npm", "start"], ifCandidate: false },
  ]);
});

test("spellings that LiteFS takes", () => {
  const text = `
data: &d
  compress: no
fuse: {allow-other: yes, dir: 42}
lease: {type: "", candidate: off, databases: [1, two]}
http: {addr: &a ":1"}
proxy: {addr: *a}
`;
  expect(parse(text)).toMatchObject({
    data: { compress: false },
    fuse: { allowOther: true, dir: "42" },
    lease: { type: "", candidate: false, databases: ["1", "two"] },
    proxy: { addr: ":1" },
  });
});

test("each problem has its line and says what to do", () => {
  const texts = [
    "lease:\n  typo: x",
    "\ncandidate: true",
    "htpp:\n  addr: :1",
    "lease:\n  qqqqqqqqq: x",
    "data: 5",
    "- a",
    "data:\n\n  retention: 10",
    "data: {retention: -1s}",
    "lease: {candidate: maybe}",
    'lease: {candidate: "true"}',
    "fuse: {locks: nobody}",
    "lease: {type: raft}",
    "tracing:\n  max-size: 1.5",
    "lease: {databases: db}",
    "exec:\n  - cmd: a\n  - cmd: b && c",
    "exec:\n  - npm start",
    "exec: [{cmd: a, iff-candidate: true}]",
    "exec: [{if-candidate: true}]",
    "exec: [{cmd: ' '}]",
    "exec: 'open",
    "fuse:\n  dir: /a\n  dir: /b",
    "data:\n\tdir: x",
    "data: *d",
    "data:\n---\ndata:",
    "data: {<<: {dir: x}}",
    "? [a]\n: b",
  ];
  expect(texts.map((text) => problem(text)).join("\n")).toMatchInlineSnapshot(`
    "litefs.yml:2: unknown key "lease.typo" (did you mean "lease.type"?)
    litefs.yml:2: unknown key "candidate" (did you mean "lease.candidate"?)
    litefs.yml:1: unknown key "htpp" (did you mean "http"?)
    litefs.yml:2: unknown key "lease.qqqqqqqqq"
    litefs.yml:1: data must be a mapping of keys to values
    litefs.yml:1: the file must be a mapping of keys to values
    litefs.yml:3: data.retention must be a duration such as 10s, 1m30s or 500ms, not "10"
    litefs.yml:1: data.retention must be a duration such as 10s, 1m30s or 500ms, not "-1s"
    litefs.yml:1: lease.candidate must be true or false, not "maybe"
    litefs.yml:1: lease.candidate must be true or false, not the text "true"
    litefs.yml:1: fuse.locks must be auto or kernel or daemon, not "nobody"
    litefs.yml:1: lease.type must be static or consul or etcd, not "raft"
    litefs.yml:2: tracing.max-size must be a whole number, not "1.5"
    litefs.yml:1: lease.databases must be a list, not "db"
    litefs.yml:3: exec[1].cmd has an open quote or a shell operator: close or quote it, or run a shell: sh -c '...'
    litefs.yml:2: exec[0] must have the form {cmd, if-candidate}, not "npm start"
    litefs.yml:1: exec[0] has only the keys cmd and if-candidate, not "iff-candidate"
    litefs.yml:1: exec[0].cmd is missing
    litefs.yml:1: exec[0].cmd is empty
    litefs.yml:1: not valid YAML: Missing closing 'quote
    litefs.yml:3: duplicate key "dir"
    litefs.yml:2: not valid YAML: Tabs are not allowed as indentation
    litefs.yml:1: no anchor is called "d"
    litefs.yml:2: a second YAML document; there may be only one
    litefs.yml:1: unknown key "data.<<"
    litefs.yml:1: unknown key "?""
  `);
});

test("any text is a configuration or a ConfigError of one line", () => {
  const token = fc.constantFrom(
    "lease",
    "data",
    ":",
    " ",
    "\n",
    "  ",
    "-",
    "{",
    "}",
    "[",
    '"',
    "'",
    "&a",
    "*a",
    "#",
    "|",
    "exec",
    "cmd",
    "10s",
    "\t",
    "?",
    "!",
    "%",
    ",",
    "]",
    "\u0000",
  );
  fc.assert(
    fc.property(fc.array(token, { maxLength: 20 }), (tokens) => {
      const text = problem(tokens.join(""));
      expect(text === "no error" || /^litefs\.yml:\d+: .+$/.test(text), text).toBe(true);
    }),
    { numRuns: 500 },
  );
});
