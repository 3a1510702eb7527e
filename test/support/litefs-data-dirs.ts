import * as fs from "node:fs";
import * as path from "node:path";
import { shell } from "./shell.ts";

const FIXTURES = path.resolve(import.meta.dirname, "../fixtures/litefs-0.5.14/data-dir");

/** What LiteFS itself reported when it started on a data directory. */
export interface Recovery {
  readonly result: string;
  readonly databases?: Readonly<Record<string, RecoveredDatabase>>;
  /** Databases with the same result as in the tar that a mutation started from. */
  readonly unchangedFromBase?: readonly string[];
}

export interface RecoveredDatabase {
  readonly pos: string;
  readonly export?: { readonly status: number; readonly sha256?: string };
}

type Operation =
  | { readonly op: "delete" | "mkdir"; readonly path: string }
  | { readonly op: "rename" | "copy"; readonly from: string; readonly path: string }
  | { readonly op: "truncate"; readonly path: string; readonly size: number }
  | {
      readonly op: "write";
      readonly path: string;
      readonly offset?: number;
      readonly hex: string;
    };

interface Mutation {
  readonly name: string;
  readonly base: string;
  readonly what: string;
  readonly ops: readonly Operation[];
  readonly recovery: Recovery;
}

interface Expected {
  readonly tars: Readonly<Record<string, { readonly how: string; readonly recovery: Recovery }>>;
  readonly mutations: readonly Mutation[];
}

/** A data directory that LiteFS left, and where it must open. */
export interface DataDirectoryCase {
  readonly name: string;
  readonly starts: boolean;
  /** Every database and its position; a mutation's include those of its base. */
  readonly databases: Readonly<Record<string, RecoveredDatabase>>;
  /** Puts it at a path that does not exist yet. */
  readonly unpack: (directory: string) => void;
}

export function dataDirectoryCases(): DataDirectoryCase[] {
  const expected: Expected = JSON.parse(
    fs.readFileSync(path.join(FIXTURES, "expected.json"), "utf8"),
  );
  const tars = Object.entries(expected.tars).map(([tar, { recovery }]) => ({
    name: tar,
    starts: recovery.result === "starts",
    databases: recovery.databases ?? {},
    unpack: (directory: string) => unpackTar(tar, directory),
  }));
  const mutations = expected.mutations.map(({ name, base, ops, recovery }) => ({
    name,
    starts: recovery.result === "starts",
    databases: { ...unchanged(expected, base, recovery), ...recovery.databases },
    unpack: (directory: string) => {
      unpackTar(base, directory);
      for (const operation of ops) run(operation, directory);
    },
  }));
  return [...tars, ...mutations];
}

function unchanged(
  expected: Expected,
  base: string,
  recovery: Recovery,
): Record<string, RecoveredDatabase> {
  const databases = expected.tars[base]?.recovery.databases ?? {};
  return Object.fromEntries(
    Object.entries(databases).filter(([name]) => recovery.unchangedFromBase?.includes(name)),
  );
}

function unpackTar(tar: string, directory: string): void {
  fs.mkdirSync(directory, { recursive: true });
  shell("tar", ["-xf", path.join(FIXTURES, tar), "-C", directory, "--strip-components=1"]);
}

function run(operation: Operation, directory: string): void {
  const target = path.join(directory, operation.path);
  switch (operation.op) {
    case "delete":
      return fs.rmSync(target);
    case "mkdir":
      return void fs.mkdirSync(target, { recursive: true });
    case "rename":
      return fs.renameSync(path.join(directory, operation.from), target);
    case "copy":
      return fs.copyFileSync(path.join(directory, operation.from), target);
    case "truncate":
      return fs.truncateSync(target, operation.size);
    case "write": {
      const file = fs.openSync(target, fs.constants.O_RDWR | fs.constants.O_CREAT);
      fs.writeSync(file, Buffer.from(operation.hex, "hex"), 0, undefined, operation.offset ?? 0);
      fs.closeSync(file);
    }
  }
}
