import * as fs from "node:fs";
import * as path from "node:path";
import { errorCode, LitefsError } from "../lib/errors.ts";

/** As statfs(2) reports it for every FUSE mount. */
const FUSE_SUPER_MAGIC = 0x65735546;
/** A write of one byte at this place of `DB-lock` takes the halt lock for the open file. */
const HALT_BYTE = 72;

export interface HeldHaltLock {
  close(): Promise<void>;
}

/**
 * Takes the halt lock of a database in a mount of this machine. It is bound to the file that is open
 * here, so that it ends with this process however that dies, and not with one of its children.
 */
export async function takeHaltLock(database: string): Promise<HeldHaltLock> {
  requireDatabaseInMount(database);
  // Not for reading as well: that is how programs open it that lock it by fcntl(2).
  const file = await fs.promises.open(`${database}-lock`, fs.constants.O_WRONLY);
  try {
    await file.write(Uint8Array.of(1), 0, 1, HALT_BYTE);
    return file;
  } catch (error) {
    await file.close();
    if (errorCode(error) !== "EAGAIN") throw error;
    const problem = `cannot take the halt lock of ${database}: no primary lends it`;
    const remedy = "another node may have it for long, or there is no primary; try again";
    throw new LitefsError("halt-lock", `${problem}; ${remedy}`);
  }
}

/** What is written to is never a file of somebody's own. */
function requireDatabaseInMount(database: string): void {
  if (!fs.existsSync(database)) {
    throw new LitefsError("halt-lock", `database does not exist: ${database}`);
  }
  const lock = fs.statSync(`${database}-lock`, { throwIfNoEntry: false });
  const isVirtual = lock?.size === 0 && (lock.mode & 0o777) === 0o444;
  const directory = path.dirname(database);
  const isMount =
    fs.statfsSync(directory).type === FUSE_SUPER_MAGIC &&
    fs.existsSync(path.join(directory, ".role"));
  if (isVirtual && isMount) return;
  const remedy = "give the path of a database in a litefs mount";
  throw new LitefsError("halt-lock", `${database} has no lock file; ${remedy}`);
}
