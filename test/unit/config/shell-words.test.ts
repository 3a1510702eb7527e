import { expect, test } from "vitest";
import * as fc from "fast-check";
import { splitShellWords } from "../../../src/config/shell-words.ts";

test.each([
  ["node server.js", ["node", "server.js"]],
  ["  a \t b\n", ["a", "b"]],
  ["", []],
  [`sqlite3 $DB "PRAGMA journal_mode = WAL;"`, ["sqlite3", "$DB", "PRAGMA journal_mode = WAL;"]],
  [`sh -c 'a && b | c > d'`, ["sh", "-c", "a && b | c > d"]],
  [`a "" ''`, ["a", "", ""]],
  [`a"b"'c'd`, ["abcd"]],
  [`a\\ b "\\"q\\""`, ["a b", `"q"`]],
  [`'a\\b'`, ["a\\b"]],
  [`"\\t" \\n`, ["\t", "\n"]],
  [`*.js ~ #x`, ["*.js", "~", "#x"]],
])("%j", (line, words) => {
  expect(splitShellWords(line)).toEqual(words);
});

test.each(["a 'b", `a "b`, "a \\", "a && b", "a; b", "a | b", "a > b", "a < b", "(a)", "a `b`"])(
  "%j cannot be split without a shell",
  (line) => {
    expect(splitShellWords(line)).toBeUndefined();
  },
);

test("single quotes keep any word", () => {
  const words = fc.array(fc.string().map((word) => word.replaceAll("'", "")));
  fc.assert(
    fc.property(words, (expected) => {
      const line = expected.map((word) => `'${word}'`).join(" ");
      expect(splitShellWords(line)).toEqual(expected);
    }),
  );
});
