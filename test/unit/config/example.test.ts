import * as fs from "node:fs";
import { expect, test } from "vitest";
import { expandEnv } from "../../../src/config/expand-env.ts";
import { parseConfig } from "../../../src/config/parse.ts";
import { OPTIONS } from "../../../src/config/schema.ts";
import { validateConfig } from "../../../src/config/validate.ts";

const text = fs.readFileSync(new URL("../../../litefs.yml.example", import.meta.url), "utf8");
const expanded = expandEnv(text, { HOSTNAME: "box" });

test("the example is a valid configuration", () => {
  const parsed = parseConfig(expanded, "litefs.yml.example");
  const config = validateConfig(parsed, { hostname: "box", currentDirectory: "/" });
  expect(config.exec).toEqual([{ argv: ["node", "server.js"], ifCandidate: false }]);
});

test("the example has every option", () => {
  const { lines } = parseConfig(expanded, "litefs.yml.example");
  expect(OPTIONS.map((option) => option.key).filter((key) => !lines.has(key))).toEqual([]);
});

test("the example shows the defaults", () => {
  const { config } = parseConfig(expanded, "litefs.yml.example");
  const defaults = parseConfig("", "litefs.yml").config;
  const { exec: _exec, lease, ...rest } = config;
  const { exec: _noExec, lease: defaultLease, ...defaultRest } = defaults;
  expect(rest).toStrictEqual(defaultRest);
  expect(lease).toStrictEqual({
    ...defaultLease,
    type: "static",
    hostname: "box",
    advertiseUrl: "http://box:20202",
  });
});
