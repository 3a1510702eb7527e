import * as fs from "node:fs";
import * as path from "node:path";
import { nodeFiles } from "../database/files.ts";
import { readShelfHead, shelfPath } from "../database/shelf-file.ts";

/** Stands in the data directory from an orderly stop to the next start. */
const NAME = "clean";

/**
 * Whether the last run of the data directory ended in order; from now on it is not known. A shelf is
 * left for the mount thread only if it is that of the last run: another version of litefs, which
 * knows of none, may have been here since. After a crash it is of use while the machine is up: what
 * was written since can be told by the times of the files then, and by nothing after a power cut.
 */
export function takeCleanMark(dataDirectory: string): boolean {
  const file = path.join(dataDirectory, NAME);
  const isClean = fs.existsSync(file);
  const shelf = readShelfHead(nodeFiles, dataDirectory);
  const isGood = isClean
    ? shelf?.digest === fs.readFileSync(file, "latin1").trim()
    : shelf?.isOfThisBoot === true;
  if (!isGood) discardShelf(dataDirectory);
  fs.rmSync(file, { force: true });
  // A power cut must not bring it back.
  if (isClean) nodeFiles.syncDirectory(dataDirectory);
  return isClean;
}

/** After a clean mark was taken by a run that never served: nothing has changed since. */
export function restoreCleanMark(dataDirectory: string): void {
  leaveCleanMark(dataDirectory, readShelfHead(nodeFiles, dataDirectory)?.digest);
}

/** The next start opens every database. */
export function discardShelf(dataDirectory: string): void {
  fs.rmSync(shelfPath(dataDirectory), { force: true });
}

/** `digest` is that of the shelf which the stop has left; a shelf of another time is of no use then. */
export function leaveCleanMark(dataDirectory: string, digest: string | undefined): void {
  fs.writeFileSync(path.join(dataDirectory, NAME), digest === undefined ? "" : `${digest}\n`);
}
