import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { loadConfig, type LoadedConfig, type LoadOptions } from "../../../src/config/load.ts";

let directory: string;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-config-"));
  for (const name of ["work", "home"]) fs.mkdirSync(path.join(directory, name));
});
afterEach(() => fs.rmSync(directory, { recursive: true }));

function write(name: string, text: string): string {
  const file = path.join(directory, name);
  fs.writeFileSync(file, text);
  return file;
}

function load(options: Partial<LoadOptions> = {}): LoadedConfig {
  return loadConfig({
    path: undefined,
    expandEnv: true,
    env: {},
    homeDirectory: path.join(directory, "home"),
    machine: { hostname: "box", currentDirectory: path.join(directory, "work") },
    ...options,
  });
}

test("the current directory comes before the home directory", () => {
  const atHome = write("home/litefs.yml", "lease: {type: static}");
  expect(load().path).toBe(atHome);
  const here = write("work/litefs.yml", "lease: {type: static}");
  expect(load().path).toBe(here);
});

test("a file that was named is the only one looked at", () => {
  write("work/litefs.yml", "lease: {type: static}");
  const missing = path.join(directory, "other.yml");
  expect(() => load({ path: missing })).toThrow(`config file not found: ${missing}`);
});

test("a file that cannot be read does not lead to the next one", () => {
  fs.mkdirSync(path.join(directory, "work/litefs.yml"));
  write("home/litefs.yml", "lease: {type: static}");
  expect(() => load()).toThrow(
    `cannot read the configuration ${path.join(directory, "work/litefs.yml")}`,
  );
});

test("variables are expanded before YAML is read", () => {
  const text = "lease: {type: static, candidate: ${REGION == 'ams'}, hostname: $HOSTNAME}\n";
  const file = write("work/litefs.yml", text);
  expect(load({ env: { REGION: "ams" } }).config.lease).toMatchObject({
    candidate: true,
    hostname: "box",
  });
  expect(load({ env: { REGION: "ams", HOSTNAME: "set" } }).config.lease.hostname).toBe("set");
  expect(() => load({ expandEnv: false })).toThrow(`${file}:1: `);
});

test("errors carry the whole path and the line", () => {
  const file = write("work/litefs.yml", "lease:\n  type: static\n  canditate: true\n");
  expect(() => load()).toThrow(
    `${file}:3: unknown key "lease.canditate" (did you mean "lease.candidate"?)`,
  );
});
