import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { Database } from "../../../src/database/database.ts";
import { nodeFiles } from "../../../src/database/files.ts";
import { openDatabase } from "../../../src/database/recover.ts";
import { Conversion } from "../../../src/filesystem/conversion.ts";
import type { DatabaseEntry } from "../../../src/filesystem/entry.ts";
import type { FileSystemHost } from "../../../src/filesystem/file-system-host.ts";
import { HandleTable } from "../../../src/filesystem/handle-table.ts";
import type { Namespace } from "../../../src/filesystem/namespace.ts";
import { NodeTable } from "../../../src/filesystem/node-table.ts";
import { PlainFiles } from "../../../src/filesystem/plain-files.ts";
import { Renames } from "../../../src/filesystem/renames.ts";
import * as errno from "../../../src/fuse/errno.ts";
import type { FakeHost } from "../database/support/harness.ts";
import { MiniPager } from "../database/support/mini-pager.ts";
import { Random } from "../database/support/fake-disk.ts";
import { fileSystemHost, newNamespace } from "./fake-file-system-host.ts";

let directory: string;
let host: FakeHost & FileSystemHost;
let mayCommit: boolean;
let names: Namespace;
let plain: PlainFiles;
let renames: Renames;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-renames-"));
  mayCommit = true;
  const createDatabase = (name: string): Database => {
    const home = path.join(directory, "dbs", name);
    fs.mkdirSync(home, { recursive: true });
    return openDatabase(name, host, nodeFiles, home);
  };
  host = Object.assign(
    fileSystemHost({
      createDatabase,
      takeFromShelf: createDatabase,
      lookAtShelved: () => undefined,
    }),
    { mayCommit: () => mayCommit },
  );
  const nodes = new NodeTable();
  const handles = new HandleTable();
  plain = new PlainFiles(path.join(directory, "files"), nodes);
  names = newNamespace(host, nodes, plain);
  const entryFor = (name: string): DatabaseEntry => names.entryFor(name);
  const closeIfUnused = (): void => undefined;
  const conversion = new Conversion({ host, nodes, handles, plain, entryFor, closeIfUnused });
  names.conversion = conversion;
  renames = new Renames(host, names, plain, conversion);
});

afterEach(() => {
  for (const { db } of names.entries.awake()) db.close();
  fs.rmSync(directory, { recursive: true, force: true });
});

function newDatabase(name: string): Database {
  const { db } = names.entryFor(name);
  const pager = new MiniPager(db, new Random(1), { pageSize: 512 });
  pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
  return db;
}

const rename = (from: string, to: string): unknown =>
  renames.rename(plain.root, from, plain.root, to, 0);

it("a rename of a database is a commit under both names", () => {
  const a = newDatabase("a.db");
  expect(rename("a.db", "b.db")).toBe("ok");
  const b = names.entries.get("b.db")?.db;
  expect([a.status, a.position.txid]).toEqual(["deleted", 2]);
  expect([b?.store.pageCount, b?.position.txid]).toEqual([3, 1]);
  const listed = names.list().map(({ name }) => name);
  expect(listed.filter((name) => !name.startsWith("."))).toEqual(["b.db"]);
});

it("names of what goes with a database are known, also when it is gone", () => {
  newDatabase("a.db").drop();
  expect(names.find("a.db-wal")).toBeUndefined();
  for (const name of ["a.db-wal", "a.db-shm", "a.db-journal"]) {
    expect(names.isOfDatabase(name), name).toBe(true);
  }
  for (const name of ["a.db", "b.db-wal", "text"])
    expect(names.isOfDatabase(name), name).toBe(false);
});

it("without a lease that covers it nothing is renamed, and nothing dropped", () => {
  const a = newDatabase("a.db");
  const b = newDatabase("b.db");
  fs.writeFileSync(path.join(directory, "files/text"), "an ordinary file");
  mayCommit = false;
  for (const to of ["b.db", "c.db", "text"]) expect(rename("a.db", to), to).toBe(errno.EROFS);
  expect(rename("text", "a.db")).toBe(errno.EROFS);
  for (const db of [a, b]) expect([db.status, db.position.txid]).toEqual(["ok", 1]);
  // Of no concern to other nodes.
  expect(rename("text", "other")).toBe("ok");
});

it("while another node has the right to write, the database keeps its name", () => {
  const a = newDatabase("a.db");
  newDatabase("b.db");
  a.isLent = true;
  for (const [from, to] of [["a.db", "c.db"] as const, ["b.db", "a.db"] as const]) {
    expect(rename(from, to), `${from} ${to}`).toBe(errno.EBUSY);
  }
  expect(a.position.txid).toBe(1);
});
