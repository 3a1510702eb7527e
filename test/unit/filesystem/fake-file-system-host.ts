import type { DatabaseEntry } from "../../../src/filesystem/entry.ts";
import type { FileSystemHost } from "../../../src/filesystem/file-system-host.ts";
import { Namespace } from "../../../src/filesystem/namespace.ts";
import type { NodeTable } from "../../../src/filesystem/node-table.ts";
import type { PlainFiles } from "../../../src/filesystem/plain-files.ts";
import { FakeHost } from "../database/support/harness.ts";

type Databases = Pick<FileSystemHost, "createDatabase" | "takeFromShelf" | "lookAtShelved">;

/** A primary alone, of which only the databases matter. */
export function fileSystemHost(databases: Databases): FakeHost & FileSystemHost {
  return Object.assign(new FakeHost(), {
    ...databases,
    phase: () => "primary" as const,
    primaryHostname: () => undefined,
    lagMs: () => 0,
    statistics: () => {
      throw new Error("nobody asks");
    },
    wake: () => undefined,
    closed: () => undefined,
    storeNow: () => undefined,
    tell: () => undefined,
    afterReply: () => undefined,
  });
}

export function newNamespace(host: FileSystemHost, nodes: NodeTable, plain: PlainFiles): Namespace {
  const add: ConstructorParameters<typeof Namespace>[3] = (db): DatabaseEntry => names.add(db);
  const names: Namespace = new Namespace(host, nodes, plain, add, {
    isHeldBack: () => false,
    isPrimary: () => true,
    answer: () => undefined,
    unlocked: () => undefined,
    tell: () => undefined,
  });
  return names;
}
