import { describe, expect, test } from "vitest";
import { parseArguments, refusePositionals } from "../../../src/cli/arguments.ts";

const defaults = { config: "", debug: false, "fuse.debug": false };

function parse(...args: string[]): unknown {
  return parseArguments(args, defaults);
}

test("nothing", () => {
  expect(parse()).toEqual({ flags: defaults, positionals: [], command: undefined, help: false });
});

test.each([
  [["-config", "a"]],
  [["-config=a"]],
  [["--config", "a"]],
  [["--config=a"]],
  [["-config", "b", "-config", "a"]],
])("%j sets a value", (args) => {
  expect(parse(...args)).toMatchObject({ flags: { config: "a" }, positionals: [] });
});

test.each([
  ["-debug", true],
  ["--debug", true],
  ["-debug=true", true],
  ["-debug=1", true],
  ["-debug=false", false],
  ["-debug=F", false],
])("%s is %s", (flag, value) => {
  expect(parse(flag)).toMatchObject({ flags: { debug: value } });
});

test("a value may be empty, look like a flag or hold an equals sign", () => {
  expect(parse("-config=", "-fuse.debug")).toMatchObject({ flags: { "fuse.debug": true } });
  expect(parse("-config", "-debug")).toMatchObject({ flags: { config: "-debug", debug: false } });
  expect(parse("-config=a=b")).toMatchObject({ flags: { config: "a=b" } });
});

test("the first positional ends the flags", () => {
  expect(parse("-debug", "a", "-config", "b")).toMatchObject({
    flags: { debug: true, config: "" },
    positionals: ["a", "-config", "b"],
  });
  expect(parse("-")).toMatchObject({ positionals: ["-"] });
});

test("what follows -- is left alone", () => {
  const command = ["sh", "-c", "a  b", "--", "-debug", ""];
  expect(parse("-debug", "--", ...command)).toMatchObject({ flags: { debug: true }, command });
  expect(parse("--")).toMatchObject({ command: [] });
});

test.each(["-h", "-help", "--help"])("%s asks for help", (flag) => {
  expect(parse("-debug", flag, "-unknown")).toMatchObject({ help: true });
});

describe("wrong flags", () => {
  test.each([
    [["-nope"], "unknown flag -nope"],
    [["--nope=1"], "unknown flag -nope"],
    [["-toString"], "unknown flag -toString"],
    [["-config"], "flag -config needs a value"],
    [["-config", "--", "a"], "flag -config needs a value"],
    [["-debug=maybe"], 'flag -debug must be true or false, not "maybe"'],
  ])("%j", (args, message) => {
    expect(() => parse(...args)).toThrow(message);
  });
});

test("positionals can be refused", () => {
  refusePositionals([]);
  expect(() => refusePositionals(["node"])).toThrow(
    'unexpected argument "node"; a command to run goes after --',
  );
});
