import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";
import { ClusterIdStore } from "../../../src/cluster/cluster-id.ts";
import { temporaryDirectory } from "./stand-ins.ts";

const ID = "LFSC00000000000000AB";
const random = (): Uint8Array => Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0xab);

test("a primary generates one, once, and keeps it over restarts", () => {
  const directory = temporaryDirectory();
  const store = ClusterIdStore.open(directory);
  expect(store.current).toBeUndefined();
  expect(store.ensure(random)).toBe(ID);
  expect(store.ensure()).toBe(ID);
  expect(fs.readFileSync(path.join(directory, "clusterid"), "utf8")).toBe(`${ID}\n`);
  expect(fs.readdirSync(directory)).toEqual(["clusterid"]);
  expect(ClusterIdStore.open(directory).current).toBe(ID);
});

test("without a fixed source, ids have the right form and differ", () => {
  const ids = [1, 2].map(() => ClusterIdStore.open(temporaryDirectory()).ensure());
  for (const id of ids) expect(id).toMatch(/^LFSC[0-9A-F]{16}$/);
  expect(ids[0]).not.toBe(ids[1]);
});

test("a replica adopts, and never changes its mind", () => {
  const directory = temporaryDirectory();
  const store = ClusterIdStore.open(directory);
  store.adopt(ID);
  store.adopt(ID);
  expect(ClusterIdStore.open(directory).current).toBe(ID);
  expect(() => store.adopt("LFSCFFFFFFFFFFFFFFFF")).toThrow(
    /belongs to cluster LFSCFFFF.*this node/,
  );
  expect(ClusterIdStore.open(directory).current).toBe(ID);
});

test("an id that is none is not stored", () => {
  const directory = temporaryDirectory();
  const store = ClusterIdStore.open(directory);
  for (const id of ["", "LFSC", "LFSCffffffffffffffff", `${ID}\n../..`]) {
    expect(() => store.adopt(id)).toThrow(/invalid cluster id/);
  }
  expect(fs.readdirSync(directory)).toEqual([]);
});

test.each(["", "LFSC", "LFSC123\n", "\0".repeat(21)])(
  "a damaged file (%j) stops the node and stays as it is",
  (content) => {
    const directory = temporaryDirectory();
    const file = path.join(directory, "clusterid");
    fs.writeFileSync(file, content);
    expect(() => ClusterIdStore.open(directory)).toThrow(/restore it from another node/);
    expect(fs.readFileSync(file, "utf8")).toBe(content);
  },
);

test("a directory that cannot be written is named", () => {
  const store = ClusterIdStore.open(path.join(temporaryDirectory(), "missing"));
  expect(() => store.ensure()).toThrow(/cannot write .*missing\/clusterid/);
  expect(store.current).toBeUndefined();
});
