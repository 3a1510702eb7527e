import type { FileKind } from "../database/database-files.ts";
import { isDatabaseName as isPeerDatabaseName } from "../wire/database-name.ts";

/**
 * What a name in the root of the mount stands for if a database is behind it. Everything else, and
 * all that is in directories, is ordinary files.
 */
export type Name =
  | { readonly kind: "file"; readonly database: string; readonly file: FileKind }
  | { readonly kind: "position"; readonly database: string }
  | { readonly kind: "lock"; readonly database: string }
  | { readonly kind: "primary" }
  | { readonly kind: "lag" }
  | { readonly kind: "role" }
  | { readonly kind: "invalid" };

const SUFFIXES: ReadonlyMap<string, FileKind> = new Map([
  ["-journal", "journal"],
  ["-wal", "wal"],
  ["-shm", "shm"],
]);
/** Leaves room for the longest suffix within the 255 bytes of a file name. */
const DATABASE_NAME_MAX_BYTES = 247;

export const PRIMARY_NAME = ".primary";
export const LAG_NAME = ".lag";
export const ROLE_NAME = ".role";
/** Leads this process, and nobody else, to files that it opens itself. */
export const OWN_DIRECTORY_NAME = ".litefs-own-files";

export function parseName(name: string): Name {
  if (name === PRIMARY_NAME) return { kind: "primary" };
  if (name === LAG_NAME) return { kind: "lag" };
  if (name === ROLE_NAME) return { kind: "role" };
  for (const [suffix, file] of SUFFIXES) {
    if (name.endsWith(suffix)) return checked(name.slice(0, -suffix.length), file);
  }
  if (name.endsWith("-pos")) return { kind: "position", database: name.slice(0, -4) };
  if (name.endsWith("-lock")) return { kind: "lock", database: name.slice(0, -5) };
  return checked(name, "database");
}

/** Which file of a database a name would be by its end, other than the database itself. */
export function companionSuffix(name: string): FileKind | undefined {
  for (const [suffix, file] of SUFFIXES) if (name.endsWith(suffix)) return file;
  return undefined;
}

function checked(database: string, file: FileKind): Name {
  return isDatabaseName(database) ? { kind: "file", database, file } : { kind: "invalid" };
}

/** Names become directories below `dbs/`, so they are checked before anything touches a path. */
export function isDatabaseName(name: string): boolean {
  return isPeerDatabaseName(name) && Buffer.byteLength(name) <= DATABASE_NAME_MAX_BYTES;
}

/** The name in the mount of one of a database's files. */
export function nameOf(database: string, kind: FileKind): string {
  return kind === "database" ? database : `${database}-${kind}`;
}
