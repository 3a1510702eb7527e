import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";

const ROOT = path.join(import.meta.dirname, "../../..");

/** Lower layers come first. Folders of one layer do not import each other. */
const LAYERS: readonly (readonly string[])[] = [
  ["lib"],
  ["ltx", "sqlite", "fuse", "wire"],
  ["database"],
  ["filesystem"],
  ["cluster"],
  ["http", "lease", "metrics"],
  ["config"],
  ["cli"],
];

const MAX_LINES = 600;
/** One class that answers every kernel request; it may shrink, not grow. */
const LARGER: ReadonlyMap<string, number> = new Map([]);

interface SourceFile {
  readonly name: string;
  readonly text: string;
}

const sources = ["src", "test", "demo", "bench"].flatMap((folder) => sourceFiles(folder));
const documents = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
  .concat(fs.globSync("docs/**/*.md", { cwd: ROOT }))
  .map((name) => load(name));

function sourceFiles(folder: string): SourceFile[] {
  return fs
    .globSync(`${folder}/**/*.ts`, { cwd: ROOT })
    .sort()
    .map((name) => load(name));
}

function load(name: string): SourceFile {
  return { name, text: fs.readFileSync(path.join(ROOT, name), "utf8") };
}

/** The folder of `src/<folder>/…`. */
function folderOf(name: string): string {
  return name.split("/")[1] ?? "";
}

function importsOf(file: SourceFile): string[] {
  const matches = file.text.matchAll(/(?:from|import\(|import|URL\()\s*"(\.{1,2}\/[^"]+)"/g);
  return [...matches].map((match) => path.join(path.dirname(file.name), match[1] ?? ""));
}

/** What each file matches, for a message that names the place. */
function places(files: readonly SourceFile[], pattern: RegExp): string[] {
  return files.flatMap(({ name, text }) =>
    text.split("\n").flatMap((line, i) => (pattern.test(line) ? [`${name}:${i + 1}`] : [])),
  );
}

test("every folder of src has a layer", () => {
  const folders = new Set(sourceFiles("src").map(({ name }) => folderOf(name)));
  expect([...folders].filter((folder) => !LAYERS.flat().includes(folder))).toEqual([]);
});

test("imports point down", () => {
  expect(wrongImports(sourceFiles("src"))).toEqual([]);
});

test("imports that point up, sideways or out would be found", () => {
  const file = (name: string, target: string): SourceFile => {
    return { name, text: `import { x } from "${target}";` };
  };
  const wrong = [
    file("src/lib/a.ts", "../cli/b.ts"),
    file("src/ltx/a.ts", "../sqlite/b.ts"),
    file("src/cli/a.ts", "../../test/b.ts"),
  ];
  const right = [file("src/cli/a.ts", "../lib/b.ts"), file("src/ltx/a.ts", "./b.ts")];
  expect(wrongImports([...wrong, ...right])).toHaveLength(wrong.length);
});

function wrongImports(files: readonly SourceFile[]): string[] {
  const layerOf = (folder: string): number => LAYERS.findIndex((layer) => layer.includes(folder));
  const wrong: string[] = [];
  for (const file of files) {
    const from = folderOf(file.name);
    for (const target of importsOf(file)) {
      const to = folderOf(target);
      const isInside = target.startsWith("src/") || target === "package.json";
      const pointsDown = from === to || layerOf(to) < layerOf(from);
      if (!isInside || !pointsDown) wrong.push(`${file.name} imports ${target}`);
    }
  }
  return wrong;
}

test("imports name files that exist", () => {
  const wrong = sources.flatMap((file) =>
    importsOf(file)
      .filter((target) => !fs.existsSync(path.join(ROOT, target)))
      .map((target) => `${file.name}: ${target}`),
  );
  expect(wrong).toEqual([]);
});

test("no default exports", () => {
  expect(places(sources, /^export default\b/)).toEqual([]);
});

test("no file is too long", () => {
  const long = sources
    .map(({ name, text }) => ({ name, lines: text.split("\n").length - 1 }))
    .filter(({ name, lines }) => lines > (LARGER.get(name) ?? MAX_LINES))
    .map(({ name, lines }) => `${name} has ${lines} lines`);
  expect(long).toEqual([]);
});

test("nothing is left to do", () => {
  const others = sources.filter(({ name }) => !name.endsWith("tidy.test.ts"));
  expect(places([...others, ...documents], /\b(?:TODO|FIXME|XXX)\b/)).toEqual([]);
});

test("programs print through their own outputs", () => {
  const programs = sources.filter(({ name }) => /^(?:src|demo)\//.test(name));
  expect(places(programs, /\bconsole\.(?:log|error|warn|info|debug)\(/)).toEqual([]);
});

test("links in the documentation lead somewhere", () => {
  const anchors = new Map(documents.map(({ name, text }) => [name, headingAnchors(text)]));
  const dead: string[] = [];
  for (const { name, text } of documents) {
    for (const match of withoutCode(text).matchAll(/\]\(([^)\s]+)\)/g)) {
      const [file = "", anchor] = (match[1] ?? "").split("#");
      if (/^[a-z]+:/.test(file)) continue;
      const target = file === "" ? name : path.join(path.dirname(name), file);
      const isThere = fs.existsSync(path.join(ROOT, target));
      const hasAnchor = anchor === undefined || anchors.get(target)?.has(anchor) === true;
      if (!isThere || !hasAnchor) dead.push(`${name}: ${match[1]}`);
    }
  }
  expect(dead).toEqual([]);
});

function withoutCode(text: string): string {
  return text.replaceAll(/```[\s\S]*?```/g, "").replaceAll(/`[^`\n]*`/g, "");
}

/** As GitHub derives them. */
function headingAnchors(text: string): Set<string> {
  const headings = text.replaceAll(/```[\s\S]*?```/g, "").matchAll(/^#+ (.+)$/gm);
  return new Set(
    [...headings].map((match) =>
      (match[1] ?? "")
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
        .replaceAll(" ", "-"),
    ),
  );
}

test("the top level holds what a user looks for", () => {
  const names =
    "package.json tsconfig.json src test litefs.yml.example Dockerfile docs README.md LICENSE " +
    "CHANGELOG.md CONTRIBUTING.md demo bin .ci/run";
  const expected = names.split(" ");
  expect(expected.filter((name) => !fs.existsSync(path.join(ROOT, name)))).toEqual([]);
  expect(() => fs.accessSync(path.join(ROOT, ".ci/run"), fs.constants.X_OK)).not.toThrow();
});

test("the README has two set-up commands, each in a line of its own", () => {
  const lines = load("README.md").text.split("\n");
  expect(lines.filter((line) => line.startsWith("npm ci"))).toEqual([
    "npm ci && npm run demo",
    "npm ci && npm test",
  ]);
});
