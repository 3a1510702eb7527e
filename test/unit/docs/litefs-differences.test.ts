import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";

const DOCS = path.join(import.meta.dirname, "../../../docs");
const ROW = /^\| (\d+) \| (.+) \| (.+) \|$/gm;
const LINK = /\[([^\]]+)\]\((\.\.\/test\/[^)]+)\)/g;

const rows = [
  ...fs.readFileSync(path.join(DOCS, "litefs-differences.md"), "utf8").matchAll(ROW),
].map(([, number, , here]) => ({ number: Number(number), here: here ?? "" }));

test("docs/litefs-differences.md has each of the 39, once and in order", () => {
  expect(rows.map(({ number }) => number)).toEqual(Array.from({ length: 39 }, (_, i) => i + 1));
});

test.each(rows)("number $number leads to tests that are there", ({ here }) => {
  for (const [, title = "", file = ""] of here.matchAll(LINK)) {
    const source = fs.readFileSync(path.join(DOCS, file), "utf8");
    expect(source.includes(title), `"${title}" in ${file}`).toBe(true);
  }
});
