import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { beforeEach, expect, it, onTestFinished } from "vitest";
import { leaveCleanMark, restoreCleanMark, takeCleanMark } from "../../../src/cli/clean-mark.ts";
import { nodeFiles } from "../../../src/database/files.ts";
import type { Files } from "../../../src/database/files.ts";
import { readShelf, shelfPath, writeShelf } from "../../../src/database/shelf-file.ts";

let directory: string;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-clean-"));
  onTestFinished(() => fs.rmSync(directory, { recursive: true }));
});

const line = '["a.db",1]';

it("an orderly stop is known once", () => {
  expect(takeCleanMark(directory)).toBe(false);
  leaveCleanMark(directory, undefined);
  expect(takeCleanMark(directory)).toBe(true);
  expect(takeCleanMark(directory)).toBe(false);
});

it("the shelf of the last run is left for the next", () => {
  leaveCleanMark(directory, writeShelf(nodeFiles, directory, [line]));
  expect(takeCleanMark(directory)).toBe(true);
  expect([...(readShelf(nodeFiles, directory)?.lines ?? [])]).toEqual([["a.db", line]]);
  expect(fs.readdirSync(directory)).toEqual(["shelf"]);
});

it("a shelf without an orderly stop behind it is of use until the machine starts anew", () => {
  writeShelf(nodeFiles, directory, [line]);
  expect(takeCleanMark(directory)).toBe(false);
  expect(readShelf(nodeFiles, directory)?.isOfThisBoot).toBe(true);
  const rebooted: Files = { ...nodeFiles, bootId: () => "another boot" };
  writeShelf(rebooted, directory, [line]);
  expect(takeCleanMark(directory)).toBe(false);
  expect(fs.existsSync(shelfPath(directory))).toBe(false);
});

it("nor is one that another version of litefs has not known of", () => {
  leaveCleanMark(directory, writeShelf(nodeFiles, directory, [line]));
  // That version takes the mark away, writes databases, and leaves its own, which is empty.
  fs.writeFileSync(path.join(directory, "clean"), "");
  expect(takeCleanMark(directory)).toBe(true);
  expect(fs.existsSync(shelfPath(directory))).toBe(false);
});

it("nor one that is damaged", () => {
  leaveCleanMark(directory, writeShelf(nodeFiles, directory, [line]));
  fs.appendFileSync(shelfPath(directory), '["b.db",1]\n');
  expect(takeCleanMark(directory)).toBe(true);
  expect(readShelf(nodeFiles, directory)).toBeUndefined();
  for (const damage of ["", "x", "[]\n", "\n", `["boot"]\n${line}\n`, "{}\n[\n"]) {
    fs.writeFileSync(shelfPath(directory), damage);
    expect(readShelf(nodeFiles, directory)).toBeUndefined();
    expect(takeCleanMark(directory)).toBe(false);
    expect(fs.existsSync(shelfPath(directory))).toBe(false);
  }
});

it("a start that never serves leaves what it has found", () => {
  leaveCleanMark(directory, writeShelf(nodeFiles, directory, [line]));
  expect(takeCleanMark(directory)).toBe(true);
  restoreCleanMark(directory);
  expect(takeCleanMark(directory)).toBe(true);
  expect(readShelf(nodeFiles, directory)?.lines.size).toBe(1);
});

it("nor one of an earlier time, when the stop could not leave one", () => {
  writeShelf(nodeFiles, directory, [line]);
  leaveCleanMark(directory, undefined);
  expect(takeCleanMark(directory)).toBe(true);
  expect(fs.existsSync(shelfPath(directory))).toBe(false);
});
