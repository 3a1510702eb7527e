import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { nodeFiles } from "../../../src/database/files.ts";
import { encodeShelved } from "../../../src/database/shelf-file.ts";
import { shelve } from "../../../src/database/shelved-database.ts";
import { DatabaseDirectory } from "../../../src/filesystem/database-directory.ts";
import type { Namespace } from "../../../src/filesystem/namespace.ts";
import { NodeTable } from "../../../src/filesystem/node-table.ts";
import { attributesOf, entryOf } from "../../../src/filesystem/nodes.ts";
import { PlainFiles } from "../../../src/filesystem/plain-files.ts";
import { Random } from "../database/support/fake-disk.ts";
import { MiniPager } from "../database/support/mini-pager.ts";
import { fileSystemHost, newNamespace } from "./fake-file-system-host.ts";

let dataDirectory: string;
let directory: DatabaseDirectory;
let nodes: NodeTable;
let names: Namespace;
/** Databases that were taken from the shelf. */
let taken: string[];

beforeEach(() => {
  dataDirectory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-sleeping-"));
  taken = [];
  const host = fileSystemHost({
    createDatabase: (name) => directory.create(name),
    takeFromShelf: (name, line) => {
      taken.push(name);
      return directory.takeFromShelf(name, line);
    },
    lookAtShelved: (name, line) => directory.lookAtShelved(name, line),
  });
  directory = new DatabaseDirectory(host, nodeFiles, dataDirectory);
  nodes = new NodeTable();
  const plain = new PlainFiles(path.join(dataDirectory, "files"), nodes);
  names = newNamespace(host, nodes, plain);
  const db = directory.create("a.db");
  const pager = new MiniPager(db, new Random(1), { pageSize: 512 });
  pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  db.close();
  // Recovered after that, its file is known to have everything.
  const reopened = directory.open("a.db");
  reopened.close();
  const shelved = shelve(reopened);
  if (shelved === undefined) throw new Error("the database is not at rest");
  names.entries.shelve("a.db", encodeShelved(shelved));
});

afterEach(() => {
  for (const { db } of names.entries.awake()) db.close();
  fs.rmSync(dataDirectory, { recursive: true, force: true });
});

it("whoever asks what a database at rest looks like leaves it there", () => {
  const node = names.findSleeping("a.db");
  if (node === undefined) throw new Error("it is not found");
  const { nodeId, attr } = entryOf(node);
  expect(attr).toMatchObject({ ino: nodeId, size: 3 * 512, nlink: 1 });
  expect(names.findSleeping("a.db")).toBe(node);
  expect(taken).toEqual([]);
});

it("awake it is the same file for the kernel, by its number and its references", () => {
  const sleeping = names.findSleeping("a.db");
  if (sleeping === undefined) throw new Error("it is not found");
  const asleep = entryOf(sleeping).attr;
  entryOf(sleeping);
  const node = nodes.get(sleeping.id);
  if (node?.type !== "file") throw new Error("it is no file of a database");
  expect(taken).toEqual(["a.db"]);
  expect(attributesOf(node)).toEqual(asleep);
  expect(node).toBe(names.find("a.db"));
  expect(node.lookups).toBe(2);
  nodes.forget(node.id, 2);
  expect(nodes.get(sleeping.id)).toBeUndefined();
});

it("woken by its name, it is known by the number that the kernel has", () => {
  const id = names.findSleeping("a.db")?.id;
  // As a transaction for it that arrives from the primary.
  const entry = names.entries.get("a.db");
  expect(entry?.nodes.get("database")?.id).toBe(id);
  expect(names.findSleeping("a.db")).toBeUndefined();
});

it("forgotten by the kernel, it sleeps on", () => {
  const node = names.findSleeping("a.db");
  if (node === undefined) throw new Error("it is not found");
  entryOf(node);
  nodes.forget(node.id, 1);
  expect(nodes.get(node.id)).toBeUndefined();
  expect(names.findSleeping("a.db")?.id).not.toBe(node.id);
  expect(taken).toEqual([]);
});

it("one whose file is not as it was has to be opened", () => {
  fs.appendFileSync(path.join(dataDirectory, "dbs/a.db/database"), "x");
  expect(names.findSleeping("a.db")).toBeUndefined();
});
