import * as fs from "node:fs";
import * as path from "node:path";
import { nodeFiles } from "../database/files.ts";
import { digestOfShelf, shelfPath } from "../database/shelf-file.ts";

/** Stands in the data directory from an orderly stop to the next start. */
const NAME = "clean";

/**
 * Whether the last run of the data directory ended in order; from now on it is not known. A shelf is
 * left for the mount thread only if it is that of the last run: another version of litefs, which
 * knows of none, may have been here since.
 */
export function takeCleanMark(dataDirectory: string): boolean {
  const file = path.join(dataDirectory, NAME);
  const isClean = fs.existsSync(file);
  const digest = isClean ? fs.readFileSync(file, "latin1").trim() : undefined;
  if (digestOfShelf(nodeFiles, dataDirectory) !== digest) {
    fs.rmSync(shelfPath(dataDirectory), { force: true });
  }
  fs.rmSync(file, { force: true });
  // A power cut must not bring it back.
  if (isClean) nodeFiles.syncDirectory(dataDirectory);
  return isClean;
}

export function leaveCleanMark(dataDirectory: string): void {
  const digest = digestOfShelf(nodeFiles, dataDirectory);
  fs.writeFileSync(path.join(dataDirectory, NAME), digest === undefined ? "" : `${digest}\n`);
}
