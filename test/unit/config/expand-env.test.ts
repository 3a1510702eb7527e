import { expect, test } from "vitest";
import * as fc from "fast-check";
import { expandEnv } from "../../../src/config/expand-env.ts";

const env = { NAME: "db1", REGION: "ams", PRIMARY: "ams", OTHER: "lhr", EMPTY: "" };

test.each([
  ["$NAME", "db1"],
  ["${NAME}", "db1"],
  ["${ NAME }", "db1"],
  ["a${NAME}b$NAME-c", "adb1bdb1-c"],
  ["http://${NAME}:20202", "http://db1:20202"],
  ["$UNSET|${UNSET}|${EMPTY}", "||"],
  ["${REGION == 'ams'}", "true"],
  ["${REGION == 'lhr'}", "false"],
  ['${REGION != "lhr"}', "true"],
  ["${REGION=='ams'}", "true"],
  ["${ REGION == PRIMARY }", "true"],
  ["${REGION == OTHER}", "false"],
  ["${REGION != OTHER}", "true"],
  ["${UNSET == ''}", "true"],
  ["${UNSET == EMPTY}", "true"],
  ["${REGION == 'it''s'}", "false"],
])("%s becomes %s", (text, expected) => {
  expect(expandEnv(text, env)).toBe(expected);
});

test.each([
  ["$$", ""],
  ["a$$b", "ab"],
  ["$1x", "x"],
  ["$12", "2"],
  ["$?", ""],
  ["${}", ""],
  ["${", ""],
  ["a${b", "ab"],
  ["${1}", ""],
  ["cost: 5$", "cost: 5$"],
  ["$ $.$)", "$ $.$)"],
  ["$NAMEX", ""],
  ["${NAME x}", ""],
])("as in Go's os.Expand, %j becomes %j", (text, expected) => {
  expect(expandEnv(text, env)).toBe(expected);
});

test("a value is not expanded again", () => {
  expect(expandEnv("$A", { A: "$B ${C}", B: "no" })).toBe("$B ${C}");
});

test("a text without a dollar sign stays as it is", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const plain = text.replaceAll("$", "");
      expect(expandEnv(plain, env)).toBe(plain);
    }),
  );
});
