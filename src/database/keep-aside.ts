import { errorCode } from "../lib/errors.ts";
import type { Database } from "./database.ts";
import type { Files } from "./files.ts";
import { QUARANTINE_MARK } from "./quarantine-mark.ts";

/** `data.kept-copies` and `data.kept-copies-max-size`: of each database. */
export interface KeepAsideLimits {
  readonly maxCount: number;
  /** 0: no limit. */
  readonly maxBytes: number;
}

/** Why something was replaced, and the folder of the database's directory where it goes. */
export type KeptFolder = "diverged" | "quarantine";
const FOLDERS: readonly KeptFolder[] = ["diverged", "quarantine"];

/** Everything of which a damaged database consists. */
export const DATABASE_PARTS: readonly string[] = [
  "log",
  "database",
  "journal",
  "wal",
  "ltx",
  QUARANTINE_MARK,
];

/**
 * Moves parts of a database's directory to `<folder>/<time>-<TXID>/`, so that something else can
 * take their place, and nothing is ever destroyed by that. Returns the directory.
 */
export function keepAside(db: Database, folder: KeptFolder, parts: readonly string[]): string {
  const { files } = db.files;
  db.files.closeAll();
  const parent = db.files.pathOf(folder);
  const time = String(timeOfNext(db)).padStart(15, "0");
  const target = `${parent}/${time}-${db.log.txid.toString(16)}`;
  files.mkdir(target);
  for (const part of parts) {
    const source = db.files.pathOf(part);
    if (files.size(source) !== undefined) files.rename(source, `${target}/${part}`);
  }
  db.files.forgetNames();
  files.syncDirectory(target);
  files.syncDirectory(parent);
  return target;
}

/** The oldest go first, so a clock that was set back must not make the newest look old. */
function timeOfNext(db: Database): number {
  const { files, directory } = db.files;
  const kept = FOLDERS.flatMap((folder) => listKept(files, `${directory}/${folder}`));
  const newest = Math.max(0, ...kept.map(({ name }) => Number.parseInt(name, 10)));
  return Math.max(db.host.nowMs(), newest + 1);
}

interface KeptCopy {
  readonly directory: string;
  readonly name: string;
  readonly sizeBytes: number;
}

/**
 * Removes the oldest of what was kept until the rest is within the limits. The newest one stays
 * whatever its size. Nothing else is ever looked at.
 */
export function limitKept(files: Files, directory: string, limits: KeepAsideLimits): void {
  const kept = FOLDERS.flatMap((folder) => listKept(files, `${directory}/${folder}`));
  // Names begin with the time, which does not depend on the folder.
  kept.sort((a, b) => (a.name < b.name ? 1 : -1));
  let bytes = 0;
  for (const [i, copy] of kept.entries()) {
    bytes += copy.sizeBytes;
    const isOver = i >= limits.maxCount || (limits.maxBytes > 0 && bytes > limits.maxBytes);
    if (i > 0 && isOver) files.removeDirectory(copy.directory);
  }
}

/** Only what has a name as `keepAside` gives it. */
function listKept(files: Files, parent: string): KeptCopy[] {
  return files
    .list(parent)
    .filter((name) => /^\d{15}-[0-9a-f]+$/.test(name))
    .map((name) => {
      const directory = `${parent}/${name}`;
      return { directory, name, sizeBytes: sizeOf(files, directory) };
    });
}

/** Bytes of a file, or of everything below a directory. */
function sizeOf(files: Files, file: string): number {
  let names: readonly string[];
  try {
    names = files.list(file);
  } catch (error) {
    if (errorCode(error) !== "ENOTDIR") throw error;
    return files.size(file) ?? 0;
  }
  if (names.length === 0) return files.size(file) ?? 0;
  return names.reduce((sum, name) => sum + sizeOf(files, `${file}/${name}`), 0);
}
