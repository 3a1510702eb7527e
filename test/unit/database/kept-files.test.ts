import * as fs from "node:fs";
import * as path from "node:path";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { KeptFiles } from "../../../src/database/log/kept-files.ts";
import { removeTemporaryDirectory, temporaryDirectory } from "../../fuzz/temporary.ts";

afterAll(removeTemporaryDirectory);

function newFiles(): KeptFiles {
  const files = new KeptFiles();
  onTestFinished(() => files.close());
  return files;
}

function read(files: KeptFiles, file: string): string | undefined {
  const opened = files.open(file);
  if (opened === undefined) return undefined;
  const bytes = Buffer.alloc(opened.size());
  opened.readAt(bytes, 0, bytes.length, 0);
  opened.close();
  return bytes.toString();
}

function descriptorsOf(directory: string): number {
  const links = fs.readdirSync("/proc/self/fd").map((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      // That of the listing itself.
      return "";
    }
  });
  return links.filter((link) => link.startsWith(directory)).length;
}

test("a file that grows is read through the same descriptor", () => {
  const files = newFiles();
  const directory = temporaryDirectory();
  const file = path.join(directory, "segment");
  expect(read(files, file)).toBeUndefined();
  fs.writeFileSync(file, "one");
  expect(read(files, file)).toBe("one");
  expect(descriptorsOf(directory)).toBe(1);
  fs.appendFileSync(file, " two");
  expect(read(files, file)).toBe("one two");
  expect(descriptorsOf(directory)).toBe(1);
});

test("another file in its place is found, whether renamed, in another directory or anew", () => {
  const files = newFiles();
  const directory = path.join(temporaryDirectory(), "log");
  const file = path.join(directory, "segment");
  fs.mkdirSync(directory);
  fs.writeFileSync(file, "first");
  expect(read(files, file)).toBe("first");
  fs.writeFileSync(`${file}.tmp`, "second");
  fs.renameSync(`${file}.tmp`, file);
  expect(read(files, file)).toBe("second");
  fs.renameSync(directory, `${directory}-aside`);
  expect(read(files, file)).toBeUndefined();
  fs.mkdirSync(directory);
  fs.writeFileSync(file, "third");
  expect(read(files, file)).toBe("third");
  fs.rmSync(file);
  fs.writeFileSync(file, "fourth");
  expect(read(files, file)).toBe("fourth");
});

test("few descriptors are kept, and two readers of one file are no trouble", () => {
  const files = newFiles();
  const directory = temporaryDirectory();
  for (let i = 0; i < 30; i++) {
    const file = path.join(directory, `segment-${i}`);
    fs.writeFileSync(file, String(i));
    const other = files.open(file);
    expect(read(files, file)).toBe(String(i));
    other?.close();
  }
  expect(descriptorsOf(directory)).toBe(8);
  files.close();
  expect(descriptorsOf(directory)).toBe(0);
});
