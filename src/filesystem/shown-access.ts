import * as fs from "node:fs";
import { FATTR_GID, FATTR_MODE, FATTR_UID } from "../fuse/constants.ts";
import type { SetattrFields } from "../fuse/handler.ts";

/** Permissions and owner of a database, as stat(2) shows them for all of its files. */
export interface ShownAccess {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** On the file in the data directory: its mode and owner were set by an application. */
const IS_SET = 0o1000;
const PERMISSIONS = 0o777;
/** Nothing else would do for nodes that only received the database. */
const DEFAULT_ACCESS: ShownAccess = {
  mode: 0o666,
  uid: process.getuid?.() ?? 0,
  gid: process.getgid?.() ?? 0,
};

export function readAccess(databaseFile: string): ShownAccess {
  const stat = fs.statSync(databaseFile, { throwIfNoEntry: false });
  if (stat === undefined || (stat.mode & IS_SET) === 0) return DEFAULT_ACCESS;
  return { mode: stat.mode & PERMISSIONS, uid: stat.uid, gid: stat.gid };
}

/** What a chmod or chown asks for is kept with the database's file, and not replicated. */
export function changeAccess(databaseFile: string, valid: number, fields: SetattrFields): void {
  const { mode, uid, gid } = readAccess(databaseFile);
  fs.chownSync(
    databaseFile,
    (valid & FATTR_UID) === 0 ? uid : fields.uid,
    (valid & FATTR_GID) === 0 ? gid : fields.gid,
  );
  const next = (valid & FATTR_MODE) === 0 ? mode : fields.mode & PERMISSIONS;
  fs.chmodSync(databaseFile, next | IS_SET);
}
